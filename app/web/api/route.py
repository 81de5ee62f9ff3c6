"""What every route of the API has: somebody who asks, a bounded body, documented refusals.

router = api_router("calls")

@router.get("/calls/{call_sid}", responses=answers(NotThere))
async def call(who: Asking, call_sid: str) -> Response:
    who.demand(Permission.READ_CALLS, business_id)
"""

from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Annotated, Any, TypeVar

import msgspec
from fastapi import APIRouter, Depends, FastAPI, Header, Query, Request
from fastapi.responses import JSONResponse, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.types import Message

from app.admin.principal import Principal
from app.errors import (
    AdminError,
    BridgeError,
    EditedMeanwhile,
    FieldsInvalid,
    Forbidden,
    FormExpired,
    MalformedRequest,
    SignInRequired,
    StoreUnavailable,
    TooManyAttempts,
    TooManyRequests,
    TooOften,
    VersionMissing,
)
from app.web.body import bounded_body
from app.web.documented import ADMIN, JSON_TYPE, Answers, refusals
from app.web.visitors import Visitors

_T = TypeVar("_T")

PREFIX = "/api/v1"
MAX_BODY_BYTES = 64 * 1024
# Of an edit: which version it is of.
IF_MATCH = "If-Match"

_OF_EVERY_ROUTE = (
    MalformedRequest,
    SignInRequired,
    Forbidden,
    FormExpired,
    FieldsInvalid,
    TooManyAttempts,
    TooManyRequests,
    TooOften,
    StoreUnavailable,
)
OF_EDITS = (EditedMeanwhile, VersionMissing)


class GuardedRoute(APIRoute):
    """Serve nobody whom `Visitors` does not know, and read no endless body."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Wrap what FastAPI makes of the endpoint."""
        serve = super().get_route_handler()

        async def guarded(request: Request) -> Response:
            visitors: Visitors = request.app.state.visitors
            request.state.principal = who = await visitors.principal(request)
            body = await bounded_body(request, MAX_BODY_BYTES)
            given = False

            async def receive() -> Message:
                nonlocal given
                if given:
                    return await request.receive()
                given = True
                return {"type": "http.request", "body": body, "more_body": False}

            try:
                with visitors.requests.use(who.business_id):
                    answer = await serve(Request(request.scope, receive))
            except TooManyRequests:
                raise  # not worth an entry in the audit log each
            except AdminError as error:
                await visitors.note_refusal(who, f"{request.method} {self.path}", error)
                raise
            answer.headers.setdefault("Cache-Control", "no-store")
            return answer

        return guarded


def api_router(tag: str) -> APIRouter:
    """Make a router of the API; its paths begin with /api/v1."""
    return APIRouter(prefix=PREFIX, tags=[tag], route_class=GuardedRoute)


def use_visitors(app: FastAPI, visitors: Visitors) -> None:
    """Tell the API's routes who knows those that ask."""
    app.state.visitors = visitors


def answers(*kinds: type[BridgeError], ok: str = "", status: int = 200) -> Answers:
    """Describe a route's answers: `ok`, these refusals, and those of every route."""
    described = refusals(*_OF_EVERY_ROUTE, *kinds)
    if ok:
        described[status] = {"description": ok}
    return described


def secured(**about: Any) -> dict[str, Any]:
    """Give a route's `openapi_extra`: how it is proved who asks, and what else is said of it."""
    return {"security": ADMIN, **about}


def _asking(request: Request) -> Principal:
    principal: Principal = request.state.principal
    return principal


# Who asks: the first parameter of every endpoint.
Asking = Annotated[Principal, Depends(_asking)]


# -------------------------------------------------------------------------- bodies


async def _json_object(request: Request) -> dict[str, Any]:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != JSON_TYPE:
        raise MalformedRequest(f"the body must be {JSON_TYPE}")
    try:
        decoded: dict[str, Any] = msgspec.json.decode(await request.body(), type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise MalformedRequest("the body must be a JSON object, in UTF-8") from error
    return decoded


# A body that is a JSON object; its fields are checked where they are used, all at once.
JsonObject = Annotated[dict[str, Any], Depends(_json_object)]


# --------------------------------------------------------------------------- pages

MOST_ON_A_PAGE = 200
After = Annotated[str, Query(description="The `next` of the page before.")]
Limit = Annotated[int, Query(ge=1, le=MOST_ON_A_PAGE, description="How many at most.")]


def page_of(
    items: Sequence[_T], name_of: Callable[[_T], str], after: str, limit: int
) -> tuple[list[_T], str | None]:
    """Cut a page out of what is in the order of its names; give it, and the next page's `after`."""
    rest = [item for item in items if name_of(item) > after]
    page = rest[:limit]
    return page, name_of(page[-1]) if len(rest) > limit else None


# ------------------------------------------------------------------------ versions

_IF_MATCH = Header(alias=IF_MATCH, description="The ETag that the edit is of; `*` for any.")
IfMatch = Annotated[str | None, _IF_MATCH]


def version_of(if_match: str | None) -> int | None:
    """Read If-Match (RFC 9110, 13.1.1); None for whatever version stands.

    Raises:
        VersionMissing: there is none.
        EditedMeanwhile: it is of no version that there was.
    """
    if not if_match:
        raise VersionMissing("send If-Match with the ETag of the version that you edit")
    if if_match.strip() == "*":
        return None
    digits = if_match.strip().removeprefix("W/").strip('"')
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 15):
        raise EditedMeanwhile("If-Match is of no version there was: send the ETag as you got it")
    return int(digits)


def etag(version: int) -> str:
    """Write a version as an ETag (RFC 9110, 8.8.3)."""
    return f'"{version}"'


def versioned(
    body: BaseModel, version: int, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Answer with a record and the ETag of its version."""
    shown = {"ETag": etag(version), **(headers or {})}
    return JSONResponse(body.model_dump(mode="json"), status, shown)
