"""Our uvicorn: it finishes live calls before it stops."""

import asyncio
import logging
import signal
import socket
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from types import FrameType
from typing import Any

import uvicorn
from uvicorn._types import ASGISendEvent
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import CloseCode
from websockets.http11 import Request
from websockets.protocol import OPEN

from app.log import masked_url
from app.session.watch import LINE_EXTENSION
from app.wire.base import MAX_MESSAGE_BYTES

log = logging.getLogger(__name__)

# Longer than the 60-90 s that platforms' routers keep an idle connection, so that
# it is never ours that closes under a request.
KEEP_ALIVE_SECONDS = 95


class MediaSocketProtocol(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket protocol, which loses nothing that came before a fault.

    uvicorn 0.54 drops the messages it has parsed when a later one in the same
    read breaks the protocol; here they reach the application first. It lends
    the application its `Line`.
    """

    answered = True

    def ask(self) -> None:
        """Ask the peer for a sign of life, by a ping; no effect when it is closed."""
        self.answered = False
        if self.conn.state is OPEN and not self.transport.is_closing():
            self.conn.send_ping(b"")
            self.transport.write(b"".join(self.conn.data_to_send()))

    def abort(self) -> None:
        """Let go of the connection at once, with all that is still to be sent."""
        self.transport.abort()

    def data_received(self, data: bytes) -> None:
        """Take bytes from the socket."""
        self.answered = True
        self.conn.receive_data(data)
        self.handle_events()
        if self.close_sent:
            return
        if self.conn.parser_exc is not None:
            self.handle_parser_exception()
        elif not self.handshake_initiated and self.conn.handshake_exc is not None:
            self._refuse_request(self.conn.handshake_exc)

    def send_receive_event_to_app(self) -> None:
        """Hand on a message; text that is not UTF-8 fails the connection (RFC 6455, 8.1).

        uvicorn 0.54 does so too, and logs it as an error of ours, with a traceback.
        """
        if self.curr_msg_data_type == "text" and not self.close_sent:
            try:
                b"".join(self.frames).decode()
            except UnicodeDecodeError:
                self.frames = []
                self.conn.fail(CloseCode.INVALID_DATA, "text is not UTF-8")
                self.handle_parser_exception()
                return
        super().send_receive_event_to_app()

    def handle_connect(self, event: Request) -> None:
        """Take an upgrade request; log one that RFC 6455 demands to be refused."""
        super().handle_connect(event)
        if self.response.status_code == HTTPStatus.SWITCHING_PROTOCOLS:
            lent: dict[object, object] = {"line": self}
            self.scope["extensions"] = {**(self.scope["extensions"] or {}), LINE_EXTENSION: lent}
        if self.response.status_code != HTTPStatus.SWITCHING_PROTOCOLS:
            path, _, query = event.path.partition("?")
            log.warning(
                "[server] WebSocket upgrade request received { url: '%s' }", masked_url(path, query)
            )
            log.warning(
                "[server] ❌ WebSocket upgrade failed: %d, %s",
                *(self.response.status_code, self.conn.handshake_exc),
            )

    async def send(self, message: ASGISendEvent) -> None:
        """Take the application's message; a refusal that is sent completes the handshake.

        uvicorn 0.54 counts only an accept and a close, and logs each refusal as an error.
        After a close it gives the peer time, but waits for ever where the peer does not
        read what was sent before.
        """
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and not message.get("more_body"):
            self.handshake_complete = True
        elif message["type"] == "websocket.close":
            self.loop.call_later(self.close_timeout, self.transport.abort)

    def _refuse_request(self, why: Exception) -> None:
        """Answer a request that cannot be read, which uvicorn leaves without an answer."""
        log.warning("[server] ❌ WebSocket upgrade failed: 431, %s", why)
        body = b"the request's headers are too large or cannot be read\n"
        # RFC 6585, 5
        self.transport.write(
            b"HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\n"
            b"Content-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
        )
        self.handshake_complete = self.close_sent = True
        self.transport.close()


class DrainingServer(uvicorn.Server):
    """Stop taking calls at the first signal, and stop serving when the last has ended.

    uvicorn closes every WebSocket with 1012 before the application hears of a
    shutdown; so the wait must come before its own. Repeated SIGTERMs change
    nothing; Ctrl-C twice stops at once.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        refuse_new_calls: Callable[[], None],
        drain: Callable[[], Awaitable[None]],
        on_listening: Callable[[int], None],
    ) -> None:
        super().__init__(config)
        self._on_listening = on_listening
        self._refuse_new_calls = refuse_new_calls
        self._drain = drain

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Take a signal: refuse new calls from this moment on."""
        if not self.should_exit:
            self._refuse_new_calls()
        if sig == signal.SIGINT and self.should_exit:
            self.force_exit = True
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen, and say on which port."""
        await super().startup(sockets)
        if self.started:
            self._on_listening(self.servers[0].sockets[0].getsockname()[1])

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Wait for the drain, or for a second Ctrl-C; then shut down as uvicorn does."""
        async with asyncio.TaskGroup() as tasks:
            drain = tasks.create_task(self._wait_for_calls())
            while not drain.done() and not self.force_exit:
                await asyncio.wait({drain}, timeout=0.1)
            drain.cancel()
        await super().shutdown(sockets)

    async def _wait_for_calls(self) -> None:
        await self._drain()


def server_config(app: Any, host: str, port: int) -> uvicorn.Config:
    """Configure uvicorn: bounded messages, no compression, no log of its own.

    permessage-deflate is off: audio does not shrink, and a connection costs a
    third of the memory without it. So are pings of uvicorn's own: a session asks
    a peer that has fallen silent, and knows then what its silence means.
    """
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        loop="uvloop",
        http="httptools",
        ws=MediaSocketProtocol,
        ws_max_size=MAX_MESSAGE_BYTES,
        ws_per_message_deflate=False,
        ws_ping_interval=None,
        ws_ping_timeout=None,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=5,
        proxy_headers=False,
        server_header=False,
        access_log=False,
        log_config=None,
    )
