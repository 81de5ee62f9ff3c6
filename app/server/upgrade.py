"""uvicorn's WebSocket handshake: bounded, and answered whatever comes."""

import asyncio
import json
import logging
from http import HTTPStatus
from typing import Any

from uvicorn._types import ASGISendEvent
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState
from websockets.http11 import Request, Response
from websockets.server import ServerProtocol

from app.errors import LocalError, TooManyFromAddress, TooManySockets
from app.log import masked_url
from app.server.config import GuardedConfig
from app.server.rules import Fault
from app.server.sockets import counted_address

log = logging.getLogger(__name__)
uvicorn_log = logging.getLogger("uvicorn.error")


class HandshakeProtocol(ServerProtocol):
    """The handshake of `websockets`, with headers of the server's own in every answer to it."""

    own_headers: tuple[tuple[bytes, bytes], ...] = ()

    def send_response(self, response: Response) -> None:
        """Send an answer, whoever made it: the application, uvicorn or `websockets`."""
        for name, value in self.own_headers:
            if name.decode() not in response.headers:
                response.headers[name.decode()] = value.decode()
        super().send_response(response)


class UpgradeProtocol(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket protocol with a handshake that is counted, logged and always answered.

    A socket counts as unadmitted from its upgrade request on, until the
    application says that its stream is admitted, or it is gone.
    """

    def __init__(
        self,
        config: GuardedConfig,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._door = config.door
        # uvicorn makes one of the class above it, without extensions as we configure it.
        self.conn = HandshakeProtocol(max_size=config.ws_max_size, logger=uvicorn_log)
        self.conn.own_headers = config.door.rules.own_headers
        self._counted_for: str | None = None
        self._business_id = ""

    def lend(self, extensions: dict[str, Any]) -> None:
        """Put into the ASGI scope's extensions what the application may use."""
        raise NotImplementedError

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._leave_unadmitted()
        super().connection_lost(exc)

    def handle_connect(self, event: Request) -> None:
        """Take an upgrade request, if there is room; log one that RFC 6455 refuses."""
        door = self._door
        address = counted_address(
            self.client[0] if self.client else "",
            event.headers.get_all(door.rules.client_header),
            door.rules.trusted_proxies,
        )
        try:
            door.unadmitted.enter(address)
        except (TooManySockets, TooManyFromAddress) as error:
            self._refuse_for_now(event, error)
            return
        self._counted_for = address
        super().handle_connect(event)
        if self.response.status_code == HTTPStatus.SWITCHING_PROTOCOLS:
            self.lend(self.scope["extensions"])
            return
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
        """
        await super().send(message)
        if message["type"] == "websocket.accept":
            # `websockets` holds them to the connection's end; who asks reads the scope's.
            self.request.headers.clear()
            self.response.headers.clear()
        elif message["type"] == "websocket.http.response.body" and not message.get("more_body"):
            self.handshake_complete = True

    def _assign(self, business_id: str) -> None:
        """Count the socket for a business too; raise TooManySockets if that has too many."""
        if self._counted_for is None or self._business_id:
            return
        try:
            self._door.unadmitted.assign(business_id)
        except TooManySockets as error:
            self._door.note(Fault(error.reason), self.client)
            raise
        self._business_id = business_id

    def _leave_unadmitted(self) -> None:
        if self._counted_for is not None:
            self._door.unadmitted.leave(self._counted_for, self._business_id)
            self._counted_for = None

    def _refuse_for_now(self, request: Request, error: LocalError) -> None:
        self._door.note(Fault(error.reason), self.client)
        self.request = request
        self.handshake_initiated = True
        body = json.dumps({"error": error.reason, "detail": str(error)})
        response = self.conn.reject(error.http_status, body)
        response.headers["Retry-After"] = "5"
        del response.headers["Content-Type"]
        response.headers["Content-Type"] = "application/json"
        self.conn.send_response(response)
        self._end_handshake(b"".join(self.conn.data_to_send()))

    def _refuse_request(self, why: Exception) -> None:
        """Answer a request that cannot be read, which uvicorn leaves without an answer."""
        log.warning("[server] ❌ WebSocket upgrade failed: 431, %s", why)
        body = b"the request's headers are too large or cannot be read\n"
        # RFC 6585, 5
        self._end_handshake(
            b"HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\n"
            + b"".join(b"%s: %s\r\n" % header for header in self._door.rules.own_headers)
            + b"Content-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
        )

    def _end_handshake(self, answer: bytes) -> None:
        self.transport.write(answer)
        self.handshake_complete = self.close_sent = True
        self.transport.close()
