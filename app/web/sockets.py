"""WebSocket routes, served beside FastAPI's and without its layers."""

import logging
from collections.abc import Awaitable, Callable, Sequence

from fastapi import WebSocket
from fastapi.responses import JSONResponse
from starlette.routing import Match, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send

log = logging.getLogger(__name__)

Serve = Callable[[WebSocket], Awaitable[None]]
MAX_SHOWN_PATH = 100


class _Endpoint:
    """Call a function with each WebSocket, and nothing around it."""

    def __init__(self, serve: Serve) -> None:
        self._serve = serve

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Serve one WebSocket."""
        return self._serve(WebSocket(scope, receive, send))


def socket_route(path: str, serve: Serve) -> WebSocketRoute:
    """Route a path, with or without parameters, to a function."""
    return WebSocketRoute(path, _Endpoint(serve))


class SocketRoutes:
    """Serve WebSockets by these routes, and leave everything else to `app`.

    Each layer that a WebSocket's endpoint is called through keeps its frame for as
    long as the socket is open. FastAPI's are fifteen, for requests and dependencies
    that a media socket does not have; through these routes there is none.
    """

    def __init__(self, app: ASGIApp, routes: Sequence[WebSocketRoute]) -> None:
        self._app = app
        self._routes = routes

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Serve one request; a WebSocket's that no route serves is refused with 404."""
        if scope["type"] != "websocket":
            return self._app(scope, receive, send)
        for route in self._routes:
            match, found = route.matches(scope)
            if match is Match.FULL:
                scope.update(found)
                return route.app(scope, receive, send)
        return _refuse(WebSocket(scope, receive, send))


async def _refuse(websocket: WebSocket) -> None:
    """Answer a handshake at another path, and say so: a typo is what keeps calls away."""
    path = websocket.scope["path"][:MAX_SHOWN_PATH]
    log.warning("[server] ❌ No WebSocket is served at %s", path)
    detail = "no WebSocket is served here; there are /twilio-media and /v1/ingest"
    answer = JSONResponse({"error": "not_found", "detail": detail}, 404)
    await websocket.send_denial_response(answer)
