"""`/sessions`: who is signed in with a browser, and how to end that."""

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict

from app.admin.principal import Principal
from app.admin.roles import Role
from app.admin.sessions import ListedSession, Sessions
from app.errors import NotThere
from app.web.api.route import Asking, answers, api_router, secured
from app.web.documented import ID_PATTERN

OfBusiness = Annotated[
    str | None,
    Query(
        alias="business", pattern=ID_PATTERN, description="The business whose sessions these are."
    ),
]


class SessionItem(BaseModel):
    """Somebody signed in with a browser. Times are Unix ms.

    `actor` is their name in the audit log, `name` an operator's, or the label of the key.
    `last_used_at` is exact to a minute; the session ends at `ends_at` unless it is used before:
    12 hours after its last use, and 7 days after it began in any case. `address` is where it
    was last used from, of IPv6 the /64; empty where that is not known. `is_current` marks the
    session that asks.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "id": "9f86d081884c7d65",
                "actor": "operator:alice",
                "name": "alice",
                "role": "operator",
                "business_id": None,
                "began_at": 1790000000000,
                "last_used_at": 1790003600000,
                "ends_at": 1790046800000,
                "address": "198.51.100.7",
                "browser": "Firefox on Windows",
                "is_current": False,
            }
        }
    )
    id: str
    actor: str
    name: str
    role: Role
    business_id: str | None
    began_at: int
    last_used_at: int
    ends_at: int
    address: str
    browser: str
    is_current: bool

    @classmethod
    def of(cls, one: ListedSession, who: Principal) -> "SessionItem":
        """Return a session as it is answered."""
        session = one.session
        return cls(
            id=session.id,
            actor=one.holder.actor,
            name=one.name,
            role=one.holder.role,
            business_id=one.holder.business_id or None,
            began_at=session.began_at,
            last_used_at=session.last_used_at,
            ends_at=one.ends_at,
            address=session.address,
            browser=session.browser,
            is_current=session.id == who.session_id,
        )


class SessionList(BaseModel):
    """Sessions, the newest first."""

    items: list[SessionItem]
    next: None = None


class EndedSessions(BaseModel):
    """How many sessions were ended."""

    ended: int


def sessions_router(sessions: Sessions) -> APIRouter:
    """Create the routes of sessions."""
    router = api_router("access")

    @router.get(
        "/sessions",
        operation_id="list-sessions",
        response_description="The newest first.",
        responses=answers(NotThere),
        openapi_extra=secured(),
    )
    async def list_sessions(who: Asking, business: OfBusiness = None) -> SessionList:
        """List who is signed in with a browser.

        An operator sees all operators' sessions, or with `business` that business's; an admin
        sees those of their business; others their own, begun with the same key.
        """
        found = await sessions.visible(who, business)
        return SessionList(items=[SessionItem.of(one, who) for one in found])

    @router.delete(
        "/sessions/{session_id}",
        operation_id="end-session",
        status_code=204,
        response_description="It is over, and so are live pages opened by it, within 5 s.",
        responses=answers(NotThere),
        openapi_extra=secured(),
    )
    async def end_session(who: Asking, session_id: str, business: OfBusiness = None) -> Response:
        """End a session: one that `GET /sessions` lists, with the same `business`."""
        await sessions.end(who, session_id, business)
        return Response(status_code=204)

    @router.delete(
        "/sessions",
        operation_id="end-sessions",
        response_description="How many were ended.",
        responses=answers(NotThere),
        openapi_extra=secured(),
    )
    async def end_sessions(who: Asking, business: OfBusiness = None) -> EndedSessions:
        """Sign out everywhere: end every session begun with your token or key, this one included.

        With `business`, end every session of that business (operators, and its admins).
        """
        if business is None:
            return EndedSessions(ended=await sessions.end_own(who))
        return EndedSessions(ended=await sessions.end_of_business(who, business))

    return router
