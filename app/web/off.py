"""Routes that this instance does not serve, and why."""

from collections.abc import Sequence

from fastapi import APIRouter, Request, WebSocket
from fastapi.responses import JSONResponse, Response
from starlette.routing import WebSocketRoute

from app.web.sockets import socket_route


def off_router(paths: Sequence[str], why: str) -> APIRouter:
    """Answer requests to these paths with 503 and the reason."""
    router = APIRouter(include_in_schema=False)

    async def off(request: Request) -> Response:
        return _unavailable(why)

    for path in paths:
        router.add_api_route(path, off, methods=["GET", "POST"])
    return router


def off_sockets(paths: Sequence[str], why: str) -> list[WebSocketRoute]:
    """Answer WebSockets' upgrades at these paths in the same way."""

    async def off(websocket: WebSocket) -> None:
        await websocket.send_denial_response(_unavailable(why))

    return [socket_route(path, off) for path in paths]


def _unavailable(why: str) -> Response:
    return JSONResponse({"error": "not_configured", "detail": why}, 503)
