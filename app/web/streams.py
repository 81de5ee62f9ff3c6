"""Media sockets: the handshake checked, the socket handed to a session."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress

from fastapi import APIRouter, Request, WebSocket, WebSocketDisconnect
from fastapi.responses import JSONResponse, Response
from starlette.routing import WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from app.carriers.authorization import Authorization, Proof
from app.credentials.handshake import refuse_origin
from app.errors import BridgeError
from app.log import masked_headers, masked_url
from app.metrics import Metrics
from app.session.call import CallSession
from app.session.reception import Handshake
from app.session.socket import Closed, Take
from app.session.watch import Line
from app.web.body import first_values
from app.web.errors import error_response
from app.web.sockets import socket_route
from app.web.twilio_form import SIGNATURE_HEADER, TwilioRequests, signed_parts
from app.wire.base import SOCKET_EXTENSION

log = logging.getLogger(__name__)

TWILIO_MEDIA = "/twilio-media"
# RFC 6455, 5.5: a control frame's payload is at most 125 bytes, two of them the code.
MAX_CLOSE_REASON_BYTES = 123
# RFC 6455, 7.4.1: no code in the Close frame, and no Close frame.
NO_CODE = 1005
NO_CLOSE_FRAME = 1006
# How long a peer that does not read may keep a Close frame from being sent.
CLOSE_SECONDS = 1.0


class OpenSocket:
    """A session's view of an accepted WebSocket.

    A server that lends no line (a plain uvicorn) pings by itself; then a silent
    peer is taken to be there until it says otherwise.
    """

    def __init__(self, websocket: WebSocket) -> None:
        self._websocket = websocket
        self._open = True
        extensions = websocket.scope.get("extensions") or {}
        lent = extensions.get(SOCKET_EXTENSION, {})
        self._line: Line | None = lent.get("line")
        self._note_admission: Callable[[Take], None] | None = lent.get("admitted")

    async def receive(self) -> str | bytes | Closed:
        """Give the next message, or say that there will be none."""
        message = await self._websocket.receive()
        if message["type"] == "websocket.disconnect":
            self._open = False
            # uvicorn says 1005 for a lost connection, too, but gives a reason with
            # a Close frame only.
            code = message.get("code") or NO_CODE
            return Closed(code if "reason" in message else NO_CLOSE_FRAME, message.get("cut"))
        text: str | None = message.get("text")
        if text is not None:
            return text
        data: bytes = message["bytes"]
        return data

    def admitted(self, take: Take) -> None:
        """Tell our server, if it is ours, that this socket's stream is admitted.

        It calls `take` for each message from now on; another server gives them to
        `receive`.
        """
        if self._note_admission is not None:
            self._note_admission(take)

    async def send(self, text: str) -> None:
        """Send a text message; no effect when it is closed."""
        if self._open:
            with suppress(RuntimeError, WebSocketDisconnect):
                await self._websocket.send_text(text)

    async def close(self, code: int, reason: str) -> None:
        """Close it; no effect when it is closed."""
        if self._open:
            self._open = False
            cut = reason.encode()[:MAX_CLOSE_REASON_BYTES].decode(errors="ignore")
            try:
                async with asyncio.timeout(CLOSE_SECONDS):
                    await self._websocket.close(code, cut)
            except TimeoutError:
                self.abort()
            except (RuntimeError, WebSocketDisconnect):
                # The peer went in this very moment.
                log.debug("= the socket was gone before it could be closed")

    def ask(self) -> None:
        """Ask the peer for a sign of life; no effect when it is closed."""
        if self._line is not None:
            self._line.ask()

    @property
    def answered(self) -> bool:
        """Tell whether anything came from the peer since it was asked, or that none can tell."""
        return self._line is None or self._line.answered

    def pause(self) -> None:
        """Have no more messages handed over until `resume`."""
        if self._line is not None:
            self._line.pause()

    def resume(self) -> None:
        """Have messages handed over again."""
        if self._line is not None:
            self._line.resume()

    def abort(self) -> None:
        """Let go of the connection at once, without a word to the peer."""
        self._open = False
        if self._line is not None:
            self._line.abort()


# No business has such an id.
_ANY_OF_EXOTEL = "(exotel)"


def assign_socket(websocket: WebSocket, authorization: Authorization) -> None:
    """Count a socket that waits for its stream for the business whose credential it showed.

    What an Exotel address or the shared pair admits shows no business: all of it together
    counts as one. A signature of the service's Twilio account is made by Twilio alone, and
    its sockets are counted in all only.

    Raises:
        TooManySockets: too many of the business wait in this process.
    """
    extensions = websocket.scope.get("extensions") or {}
    assign: Callable[[str], None] | None = extensions.get(SOCKET_EXTENSION, {}).get("assign")
    if assign is None:
        return
    if authorization.speaks_for_a_business:
        assign(authorization.business_id)
    elif authorization.proof in (Proof.EXOTEL_ADDRESS, Proof.EXOTEL_SHARED_PAIR):
        assign(_ANY_OF_EXOTEL)


def stream_router() -> APIRouter:
    """Make the routes of plain requests to the media streams' paths."""
    router = APIRouter()

    @router.get(TWILIO_MEDIA, include_in_schema=False)
    @router.get(TWILIO_MEDIA + "/", include_in_schema=False)
    @router.get(TWILIO_MEDIA + "/{business_id}", include_in_schema=False)
    async def not_an_upgrade(request: Request) -> Response:
        return upgrade_required()

    return router


def stream_sockets(
    requests: TwilioRequests,
    metrics: Metrics,
    new_session: Callable[[Handshake], CallSession],
    *,
    waive_origin: bool,
) -> list[WebSocketRoute]:
    """Make the routes of Twilio's media streams, with and without a trailing slash."""

    async def serve(websocket: WebSocket) -> None:
        log.info("[WebSocket] 🔌 Connection attempt received")
        business_id = websocket.path_params.get("business_id", "")
        try:
            if not waive_origin:
                refuse_origin(websocket.headers.getlist("origin"))
            authorization = await requests.check_handshake(
                *signed_parts(websocket.scope),
                websocket.headers.getlist(SIGNATURE_HEADER),
                business_id,
            )
            assign_socket(websocket, authorization)
        except BridgeError as error:
            metrics.refused.labels(error.reason).inc()
            log.warning("[WebSocket] ❌ Handshake refused: %s: %s", error.reason, error)
            await websocket.send_denial_response(error_response(error))
            return
        try:
            await websocket.accept()
        except WebSocketDisconnect:
            log.debug("= the peer went before its socket was accepted")
            return
        query = first_values(websocket.scope["query_string"])
        handshake = Handshake("twilio", authorization, query)
        await new_session(handshake).run(OpenSocket(websocket))

    paths = (TWILIO_MEDIA, TWILIO_MEDIA + "/", TWILIO_MEDIA + "/{business_id}")
    return [socket_route(path, serve) for path in paths]


def upgrade_required() -> Response:
    """Answer a plain request to a WebSocket's path (RFC 9110, 15.5.22)."""
    detail = "this is a WebSocket endpoint; connect with wss:// (or ws:// locally)"
    headers = {"Upgrade": "websocket"}
    return JSONResponse({"error": "upgrade_required", "detail": detail}, 426, headers)


class RequestLog:
    """Log requests to media sockets, upgrade or not, before anything else sees them.

    "The WebSocket never connects" is the trouble this service was born from:
    these lines show whether a request came, and what a proxy made of it.
    """

    def __init__(self, app: ASGIApp, prefixes: tuple[str, ...] = (TWILIO_MEDIA,)) -> None:
        self._app = app
        self._prefixes = prefixes

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Log the request when it is for a media socket, and pass it on."""
        if scope["type"] in ("http", "websocket") and scope["path"].startswith(self._prefixes):
            headers = [
                (name.decode("latin-1"), value.decode("latin-1"))
                for name, value in scope["headers"]
            ]
            url = masked_url(*signed_parts(scope))
            upgrade = scope["type"] == "websocket"
            log.info("[Request] %s %s", scope.get("method", "GET"), url)
            log.info("[Request] Headers: %s", masked_headers(headers))
            log.info("[Request] Is WebSocket upgrade: %s", str(upgrade).lower())
        return self._app(scope, receive, send)
