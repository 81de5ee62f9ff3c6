"""What holds for every request, whatever serves it, and for every answer.

The boundary is the outermost layer, around error handlers too: no answer leaves without
its headers, and no route sees a request that a check here refuses.
"""

import logging
import re
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from fastapi import FastAPI, WebSocket
from fastapi.responses import Response
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.credentials.addresses import FORWARDED_FOR, Network, client_address, is_trusted_peer
from app.errors import BridgeError, HostRefused, OriginRefused
from app.web.errors import error_response

log = logging.getLogger(__name__)

NOSNIFF = (b"x-content-type-options", b"nosniff")
# A year; for this host alone, since its siblings are not this service's to decide about.
HSTS = (b"strict-transport-security", b"max-age=31536000")
# Platforms ask these by hosts of their own, and they tell nothing that is secret.
_ANY_HOST = ("/health", "/health/ready")
# Where a request without credentials places a call while ALLOW_UNSIGNED is true.
_PLACES_CALLS = ("/twilio-", "/v1/ingest", "/exotel-stream-url")


@dataclass(frozen=True, slots=True)
class BoundaryRules:
    """What the boundary is told.

    `http_base` is PUBLIC_URL, or empty. With `checks_host` (ALLOW_UNSIGNED=true) only
    loopback hosts and that of PUBLIC_URL are served. `client_header` is the lower-case
    name of the header in which proxies name their clients.
    """

    http_base: str = ""
    checks_host: bool = False
    trusted_proxies: tuple[Network, ...] = ()
    client_header: str = FORWARDED_FOR


def answer_headers(http_base: str) -> tuple[tuple[bytes, bytes], ...]:
    """Return the headers that every answer has; HSTS where PUBLIC_URL is https."""
    return (NOSNIFF, HSTS) if http_base.startswith("https://") else (NOSNIFF,)


class BridgeApp(FastAPI):
    """The application, with the boundary around all that FastAPI puts around the routes."""

    def __init__(self, rules: BoundaryRules, **about: Any) -> None:
        super().__init__(redirect_slashes=False, docs_url=None, redoc_url=None, **about)
        self._rules = rules

    def build_middleware_stack(self) -> ASGIApp:
        """Build FastAPI's layers, and the boundary around them."""
        return Boundary(super().build_middleware_stack(), self._rules)


# What follows `]` and is no port.
_AFTER_ADDRESS = re.compile(r"\](?!:\d*\Z|\Z)")


class Boundary:
    """Check and normalize each request, and complete each answer to plain HTTP.

    Answers to WebSocket handshakes get the same headers from our server: what is sent
    over an open socket passes through nothing here.
    """

    def __init__(self, app: ASGIApp, rules: BoundaryRules) -> None:
        self._app = app
        self._rules = rules
        self._headers = answer_headers(rules.http_base)
        self._public_host = urlsplit(rules.http_base).hostname or ""
        self._client_header = rules.client_header.encode("latin-1")
        self._knows_proxies = False

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Serve one request, or a WebSocket."""
        if scope["type"] not in ("http", "websocket"):
            return self._app(scope, receive, send)
        if not self._knows_proxies:
            self._notice_proxy(scope)
        path: str = scope["path"]
        # Both spellings are served everywhere. A redirect would name the request's Host and
        # its scheme behind a proxy, and turn a POST into a GET. `raw_path`, which Twilio
        # signs, stays as it came.
        if len(path) > 1 and path.endswith("/"):
            path = scope["path"] = path[:-1]
        if scope["type"] == "http":
            send = _completed(send, self._headers)
        if self._rules.checks_host and path not in _ANY_HOST:
            try:
                self._check_origin(path, Headers(scope=scope))
            except BridgeError as error:
                return _refuse(error, scope, receive, send)
        return self._app(scope, receive, send)

    def _check_origin(self, path: str, headers: Headers) -> None:
        """Refuse what a web page may have sent from the browser of whoever runs the service.

        A page can make its own host name lead here (DNS rebinding): then the Host header
        names it. Or it sends a request to this host: then Origin, or Sec-Fetch-Site for a
        plain GET to localhost, tells. A JWT is not sent by a browser of itself.

        Raises:
            HostRefused, OriginRefused: it may be such a request.
        """
        host = headers.get("host", "")
        if host and not self._is_ours(f"//{host}"):
            raise HostRefused(
                f"the request is for the host {host[:100]!r}. With ALLOW_UNSIGNED=true only "
                "localhost and the host of PUBLIC_URL are served: use one of these, or set "
                "PUBLIC_URL to the address that you use"
            )
        if not path.startswith(_PLACES_CALLS):
            return
        if headers.get("authorization", "")[:7].lower() == "bearer ":
            return
        origin = headers.get("origin")
        is_foreign = headers.get("sec-fetch-site") == "cross-site"
        if is_foreign or (origin is not None and not self._is_ours(origin)):
            raise OriginRefused(
                "the request comes from another site's page. With ALLOW_UNSIGNED=true only "
                "pages of localhost and of PUBLIC_URL may place calls"
            )

    def _is_ours(self, url: str) -> bool:
        try:
            parts = urlsplit(url)
            host = parts.hostname or ""
        except ValueError:
            return False
        if _AFTER_ADDRESS.search(parts.netloc):
            return False  # urlsplit leaves out what follows the brackets of an IPv6 address
        return bool(host) and (host == self._public_host or _is_loopback(host))

    def _notice_proxy(self, scope: Scope) -> None:
        """Warn once about a proxy that is not trusted: all its clients have its address."""
        peer = scope["client"][0] if scope.get("client") else ""
        names = {name for name, _ in scope["headers"]}
        if not names & {self._client_header, FORWARDED_FOR.encode()}:
            return
        self._knows_proxies = True
        if is_trusted_peer(peer, self._rules.trusted_proxies):
            if self._client_header not in names:
                log.warning(
                    "[server] ⚠️ The proxy at %s sends no %s, which CLIENT_ADDRESS_HEADER names: "
                    "all clients count as one address",
                    *(peer, self._rules.client_header),
                )
            return
        log.warning(
            "[server] ⚠️ A request from %s says that it is forwarded for another address, and "
            "TRUSTED_PROXIES does not hold %s. If that is your proxy, add it: otherwise all "
            "clients count as one address where failed credentials and sockets are limited",
            *(peer, client_address(peer, (), ()) or peer),
        )


def _completed(send: Send, own: Sequence[tuple[bytes, bytes]]) -> Send:
    def completed(message: Message) -> Awaitable[None]:
        if message["type"] == "http.response.start":
            given = list(message.get("headers", ()))
            names = {name.lower() for name, _ in given}
            given += [header for header in own if header[0] not in names]
            message = {**message, "headers": given}
        return send(message)

    return completed


async def _refuse(error: BridgeError, scope: Scope, receive: Receive, send: Send) -> None:
    log.warning("[server] ❌ Request refused: %s: %s", error.reason, error)
    answer: Response = error_response(error)
    if scope["type"] == "websocket":
        await WebSocket(scope, receive, send).send_denial_response(answer)
    else:
        await answer(scope, receive, send)


def _is_loopback(host: str) -> bool:
    # RFC 6761, 6.3: names under .localhost lead to loopback.
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
