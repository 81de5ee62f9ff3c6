"""How a page is reached: who is there, what their form sent, and errors as pages."""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from app.admin.principal import Principal, operator_name
from app.administration.gate import SignedIn, csrf_token
from app.errors import (
    BridgeError,
    FormExpired,
    NotThere,
    SignInRequired,
    StoreUnavailable,
    TooManyRequests,
)
from app.web.admin.pages import HEADERS, page
from app.web.admin.submitted import Submitted, read_form
from app.web.admin.views import Viewer
from app.web.visitors import Visitors

log = logging.getLogger(__name__)

SIGN_IN = "/admin/sign-in"
TITLES = {
    NotThere: "There is no such thing",
    FormExpired: "This form is out of date",
    StoreUnavailable: "Redis cannot be reached",
}


@dataclass(frozen=True, slots=True)
class Visit:
    """A request of somebody who is signed in; `sent` is their form, empty for a GET."""

    request: Request
    signed_in: SignedIn
    viewer: Viewer
    sent: Submitted

    @property
    def who(self) -> Principal:
        """Give whoever asks."""
        return self.signed_in.principal

    def part(self, name: str) -> str:
        """Give a part of the path."""
        return str(self.request.path_params[name])

    def asked(self, name: str) -> str:
        """Give what the URL's query says, at most 200 characters of it."""
        return self.request.query_params.get(name, "")[:200]

    def page(self, template: str, *, status: int = 200, **shown: Any) -> Response:
        """Show a page to whoever asks."""
        return page(template, self.viewer, status=status, said=self.asked("said"), **shown)


Endpoint = Callable[[Visit], Awaitable[Response]]
NameOf = Callable[[Principal], Awaitable[str]]


class Entry:
    """Let in who is signed in; send others to sign in.

    `name_of` returns the name of their business, empty for an operator; `by_hand` is as in
    Viewer.
    """

    def __init__(
        self, router: APIRouter, visitors: Visitors, name_of: NameOf, by_hand: bool = False
    ) -> None:
        self._router = router
        self._visitors = visitors
        self._name_of = name_of
        self._by_hand = by_hand

    def get(self, path: str) -> Callable[[Endpoint], Endpoint]:
        """Serve a page."""
        return self._route(path, "GET")

    def post(self, path: str) -> Callable[[Endpoint], Endpoint]:
        """Serve what a form of ours does; of no other page's."""
        return self._route(path, "POST")

    def _route(self, path: str, method: str) -> Callable[[Endpoint], Endpoint]:
        def register(endpoint: Endpoint) -> Endpoint:
            async def serve(request: Request) -> Response:
                viewer: Viewer | None = None
                signed_in: SignedIn | None = None
                try:
                    signed_in = await self._visitors.signed_in(request)
                    if signed_in is None:
                        return _to_sign_in(request)
                    sent = Submitted()
                    if method == "POST":
                        sent = await read_form(request)
                        self._visitors.check_form(request, signed_in, sent.text("csrf"))
                    with self._visitors.requests.use(signed_in.principal.business_id):
                        viewer = await self._viewer(signed_in)
                        return await endpoint(Visit(request, signed_in, viewer, sent))
                except SignInRequired:
                    return _to_sign_in(request)
                except BridgeError as error:
                    if signed_in is not None and not isinstance(error, TooManyRequests):
                        what = f"{method} {path}"
                        await self._visitors.note_refusal(signed_in.principal, what, error)
                    return problem(viewer, error)

            self._router.add_api_route(
                path, serve, methods=[method], include_in_schema=False, response_class=Response
            )
            return endpoint

        return register

    async def _viewer(self, signed_in: SignedIn) -> Viewer:
        who = signed_in.principal
        name = await self._name_of(who) or operator_name(who.actor)
        return Viewer(name, csrf_token(signed_in), who.role, who.business_id, self._by_hand)


def problem(viewer: Viewer | None, error: BridgeError) -> Response:
    """Show an error as a page, in words."""
    title = next((words for kind, words in TITLES.items() if isinstance(error, kind)), "")
    if error.http_status >= 500:
        log.warning("[admin] A page could not be shown: %s: %s", error.reason, error)
    words = str(error)
    if isinstance(error, StoreUnavailable):
        words = "Nothing can be read or stored until it is back. Calls go on meanwhile. Try again."
    shown = {"title": title or "This cannot be done", "words": _sentence(words), "back": ""}
    answer = page("problem.html", viewer, status=error.http_status, **shown)
    if error.http_status == 429:
        answer.headers["Retry-After"] = str(error.retry_seconds)
    return answer


def see(path: str, said: str = "") -> Response:
    """Send the browser to a page after what a form did (RFC 9110, 15.4.4)."""
    joined = f"{path}{'&' if '?' in path else '?'}said={said}" if said else path
    return RedirectResponse(joined, 303, HEADERS)


def quoted(part: str) -> str:
    """Write something as a part of a path."""
    return quote(part, safe="")


def _sentence(words: str) -> str:
    return words[:1].upper() + words[1:] + ("" if words.endswith((".", "!", "?")) else ".")


def _to_sign_in(request: Request) -> Response:
    path = request.url.path
    if request.method != "GET" or path == "/admin":
        return see(SIGN_IN)
    query = f"?{request.url.query}" if request.url.query else ""
    return see(f"{SIGN_IN}?next={quoted(path + query)}")
