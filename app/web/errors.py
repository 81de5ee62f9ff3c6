"""The one place where errors become HTTP answers."""

import logging
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from app.errors import BridgeError, FieldsInvalid, SignInRequired

log = logging.getLogger(__name__)


def install_error_handlers(app: FastAPI) -> None:
    """Answer every error with `{"error": …, "detail": …}`, never with a traceback."""

    @app.exception_handler(BridgeError)
    async def _on_bridge_error(request: Request, error: BridgeError) -> Response:
        return error_response(error)

    @app.exception_handler(RequestValidationError)
    async def _on_invalid(request: Request, error: RequestValidationError) -> Response:
        """Answer what a URL's parameters should have been, each by its name."""
        told = {str(one["loc"][-1]): _told(one["msg"]) for one in error.errors()}
        return error_response(FieldsInvalid(told))

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
    """Answer with the error's own status, its reason and a sentence; and with each field's."""
    body: dict[str, str | dict[str, str]] = {"error": error.reason, "detail": str(error)}
    headers = {}
    if isinstance(error, FieldsInvalid):
        body["fields"] = error.problems
    if isinstance(error, SignInRequired):
        headers["WWW-Authenticate"] = "Bearer"
    if error.retryable:
        headers["Retry-After"] = str(error.retry_seconds)
    return JSONResponse(body, error.http_status, headers)


def _told(message: str) -> str:
    return message.replace("Input should be", "must be", 1)
