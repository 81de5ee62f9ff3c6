"""Routes that this instance does not serve, and why."""

from collections.abc import Sequence

from fastapi import APIRouter, Request, WebSocket
from fastapi.responses import JSONResponse, Response


def off_router(paths: Sequence[str], why: str) -> APIRouter:
    """Answer these paths, as HTTP and as WebSocket, with 503 and the reason."""
    router = APIRouter(include_in_schema=False)

    async def off(request: Request) -> Response:
        return _unavailable(why)

    async def off_socket(websocket: WebSocket) -> None:
        await websocket.send_denial_response(_unavailable(why))

    for path in paths:
        router.add_api_route(path, off, methods=["GET", "POST"])
        router.add_api_websocket_route(path, off_socket)
    return router


def _unavailable(why: str) -> Response:
    return JSONResponse({"error": "not_configured", "detail": why}, 503)
