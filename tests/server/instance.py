"""Our server, under an application of a few lines, with rules of the test's own."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn

from app.metrics import Metrics
from app.server import SocketRules, server_config
from app.wire.base import SOCKET_EXTENSION
from tests.waiting import until


@dataclass
class Listener:
    """An application that notes what comes, and does what the test tells it to.

    `holds` keeps an accepted socket from reading, and a request from an answer,
    until it is set; `accepts` keeps a socket from being accepted. A text message
    `admit` is told to the server, as a session tells of its stream, and what comes
    after it is noted past the queue; `close` closes the socket, `shout` does after
    more than any buffer holds. An answer that `goes_on` repeats its body without an end.
    """

    received: list[Any] = field(default_factory=list)
    ended: list[dict[str, Any]] = field(default_factory=list)
    holds: asyncio.Event | None = None
    accepts: asyncio.Event | None = None
    body: bytes = b"ok"
    goes_on: bool = False

    async def __call__(
        self,
        scope: dict[str, Any],
        receive: Callable[[], Awaitable[dict[str, Any]]],
        send: Callable[[dict[str, Any]], Awaitable[None]],
    ) -> None:
        if scope["type"] == "http":
            await self._answer(receive, send)
        elif scope["type"] == "websocket":
            await self._listen(scope, receive, send)

    async def _answer(self, receive: Any, send: Any) -> None:
        while (message := await receive()).get("more_body"):
            pass
        if message["type"] == "http.disconnect":
            return
        self.received.append("request")
        if self.holds is not None:
            await self.holds.wait()
        if self.goes_on:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            while True:
                await send({"type": "http.response.body", "body": self.body, "more_body": True})
                await asyncio.sleep(0.02)
        headers = [(b"content-length", b"%d" % len(self.body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": self.body})

    async def _listen(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        await receive()
        if self.accepts is not None:
            await self.accepts.wait()
        await send({"type": "websocket.accept"})
        if self.holds is not None:
            await self.holds.wait()
        while (message := await receive())["type"] == "websocket.receive":
            said = message.get("text", message.get("bytes"))
            self.received.append(said)
            if said == "admit":
                scope["extensions"][SOCKET_EXTENSION]["admitted"](self.received.append)
            elif said == "shout":
                await send({"type": "websocket.send", "bytes": bytes(20_000_000)})
                return
            elif said == "close":
                await send({"type": "websocket.close", "code": 1000, "reason": "asked"})
        self.ended.append(message)


@dataclass(frozen=True)
class Instance:
    """A running server: where it is, what it counted, and its parts."""

    port: int
    app: Listener
    metrics: Metrics
    config: Any
    connections: Any

    def closed(self, reason: str) -> int:
        value = self.metrics.registry.get_sample_value(
            "bridge_sockets_closed_total", {"reason": reason}
        )
        return int(value or 0)


@asynccontextmanager
async def serving(
    rules: SocketRules | None = None, app: Listener | None = None
) -> AsyncIterator[Instance]:
    """Run our protocols in this process until the block ends."""
    listener = app or Listener()
    metrics = Metrics()
    config = server_config(listener, "127.0.0.1", 0, rules=rules or SocketRules(), metrics=metrics)
    config.lifespan = "off"
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listening:
        port = listening.getsockname()[1]
        running = asyncio.create_task(server.serve(sockets=[listening]))
        await until(lambda: server.started)
        try:
            yield Instance(port, listener, metrics, config, server.server_state.connections)
        finally:
            server.should_exit = True
            await running
