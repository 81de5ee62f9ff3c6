"""The routes of the service, and every parameter by which one of them can be asked."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.routing import WebSocketRoute

from app.main import create_app
from app.settings import Settings

# Everything is on, so that every route is there.
_EVERYTHING = {
    "PUBLIC_URL": "http://localhost:8000",
    "PUBSUB_ADAPTER": "memory",
    "TWILIO_AUTH_TOKEN": "t" * 32,
    "SECRET_KEY": "s" * 32,
    "ADMIN_TOKEN": "a" * 32,
    "JWT_SECRET": "j" * 32,
    "SUPPORT_EXOTEL": "true",
    "EXOTEL_API_KEY": "k" * 16,
    "EXOTEL_API_TOKEN": "t" * 16,
    "EXOTEL_DEFAULT_BUSINESS": "business-1",
}


@dataclass(frozen=True)
class Route:
    """A method and a path, and the names of the parameters that it documents."""

    method: str
    path: str
    parameters: frozenset[str]

    @property
    def id(self) -> str:
        return f"{self.method} {self.path}"


def whole_service() -> FastAPI:
    """Return the application with every route that settings can turn on."""
    return create_app(Settings.load(_EVERYTHING))


def http_routes(app: FastAPI) -> list[Route]:
    """Return every plain HTTP route; the two spellings of a trailing slash are one."""
    document = app.openapi()
    found = {}
    for route in _flat(app.routes):
        path = str(route.path).rstrip("/") or "/"
        for method in sorted((route.methods or set()) - {"HEAD", "OPTIONS"}):
            operation = document["paths"].get(path, {}).get(method.lower(), {})
            parameters = {one["name"] for one in operation.get("parameters", ())}
            parameters |= set(_body_fields(operation, document))
            parameters |= set(re.findall(r"{(\w+)(?::\w+)?}", path))
            if isinstance(route, APIRoute):
                parameters |= {one.alias for one in route.dependant.query_params}
            found[method, path] = Route(method, path, frozenset(parameters) - {"If-Match"})
    return list(found.values())


def socket_paths(app: FastAPI) -> set[str]:
    """Return the paths of every WebSocket route; both spellings of a trailing slash are one."""
    assert not [route for route in _flat(app.routes) if isinstance(route, WebSocketRoute)]
    return {
        route.path.rstrip("/")
        for middleware in app.user_middleware
        for route in middleware.kwargs.get("routes", ())
    }


def _flat(routes: Any) -> Iterator[Any]:
    for route in routes:
        inner = getattr(route, "original_router", None) or getattr(route, "router", None)
        if hasattr(route, "path"):
            yield route
        elif inner is not None:
            yield from _flat(inner.routes)
        else:
            raise AssertionError(f"an unknown kind of route: {route!r}")


def _body_fields(operation: Mapping[str, Any], document: Mapping[str, Any]) -> Iterator[str]:
    for content in operation.get("requestBody", {}).get("content", {}).values():
        schema = content.get("schema", {})
        while "$ref" in schema:
            schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
        yield from schema.get("properties", {})
