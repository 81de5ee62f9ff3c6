"""The one place where errors become HTTP answers."""

import logging
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from app.errors import BridgeError

log = logging.getLogger(__name__)


def install_error_handlers(app: FastAPI) -> None:
    """Answer every error with `{"error": …, "detail": …}`, never with a traceback."""

    @app.exception_handler(BridgeError)
    async def _on_bridge_error(request: Request, error: BridgeError) -> Response:
        return error_response(error)

    @app.exception_handler(HTTPException)
    async def _on_http_error(request: Request, error: HTTPException) -> Response:
        """Answer what the router refuses: no such path, or not by this method."""
        reason = HTTPStatus(error.status_code).name.lower()
        body = {"error": reason, "detail": error.detail}
        return JSONResponse(body, error.status_code, error.headers)

    @app.exception_handler(Exception)
    async def _on_unexpected(request: Request, error: Exception) -> Response:
        log.error("A request to %s failed", request.url.path, exc_info=error)
        body = {"error": "internal_error", "detail": "something failed here; it was logged"}
        return JSONResponse(body, 500)


def error_response(error: BridgeError) -> Response:
    """Answer with the error's own status, its reason and a sentence."""
    headers = {"Retry-After": "5"} if error.retryable else None
    return JSONResponse({"error": error.reason, "detail": str(error)}, error.http_status, headers)
