"""What lies under a WebSocket's messages: pings, and letting go of a connection."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from fastapi import WebSocket
from uvicorn.server import ServerState
from websockets.asyncio.client import ClientConnection, connect

from app.server import MediaSocketProtocol, server_config
from app.session.watch import Line
from app.web.streams import OpenSocket
from app.wire.base import SOCKET_EXTENSION
from tests.waiting import WAIT_SECONDS, until

Send = Callable[[dict[str, Any]], Awaitable[None]]


class Hasty(MediaSocketProtocol):
    """Our protocol class, that gives a peer less time after a close."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.close_timeout = 0.2


class Server:
    """A server of one connection, spoken for by hand."""

    def __init__(self) -> None:
        self.opened: asyncio.Queue[tuple[Line, Send]] = asyncio.Queue()
        self.state = ServerState()

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Send) -> None:
        self.websocket = WebSocket(scope, receive, send)
        await self.websocket.accept()
        self.opened.put_nowait((scope["extensions"][SOCKET_EXTENSION]["line"], send))
        while (await receive())["type"] != "websocket.disconnect":
            pass

    async def let_go(self) -> None:
        await until(lambda: not self.state.connections)


@asynccontextmanager
async def served(**options: Any) -> AsyncIterator[tuple[Server, ClientConnection, Line, Send]]:
    server = Server()
    config = server_config(server, "127.0.0.1", 0)
    config.load()
    loop = asyncio.get_running_loop()
    listening = await loop.create_server(lambda: Hasty(config, server.state, {}), "127.0.0.1", 0)
    narrow = socket.socket()
    narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    narrow.connect(listening.sockets[0].getsockname())
    try:
        async with connect("ws://localhost/", sock=narrow, compression=None, **options) as client:
            yield server, client, *await server.opened.get()
    finally:
        listening.close()


async def test_a_peer_that_is_there_answers_a_ping_and_any_bytes_are_an_answer() -> None:
    async with served() as (_, client, line, _send):
        for _ in range(3):
            line.ask()
            assert not line.answered
            await until(lambda: line.answered)
        await client.send("text")


async def test_a_connection_that_is_let_go_is_gone_at_once() -> None:
    async with served() as (server, client, line, _):
        line.abort()
        await server.let_go()
        line.ask()
        await client.wait_closed()
        assert client.close_code == 1006


async def test_a_peer_that_does_not_read_cannot_keep_its_socket_from_being_closed() -> None:
    async with served(max_queue=1, close_timeout=0.1) as (server, client, line, send):
        with suppress(TimeoutError):
            while True:
                async with asyncio.timeout(0.3):  # until a sender is made to wait
                    await send({"type": "websocket.send", "text": "x" * 2**16})
        async with asyncio.timeout(WAIT_SECONDS):
            await OpenSocket(server.websocket).close(1000, "peer_not_reading")
        await server.let_go()
        client.transport.abort()


@pytest.mark.parametrize("reads", [True, False])
async def test_after_a_close_no_peer_holds_its_connection(reads: bool) -> None:
    options = {} if reads else {"max_queue": 1, "close_timeout": 0.1}
    async with served(**options) as (server, client, line, send):
        if not reads:
            # More than the kernel takes, and less than makes a sender wait.
            while line.transport.get_write_buffer_size() == 0:  # type: ignore[attr-defined]
                await send({"type": "websocket.send", "text": "x" * 4096})
        await send({"type": "websocket.close", "code": 1000})
        await server.let_go()
        if not reads:
            client.transport.abort()
