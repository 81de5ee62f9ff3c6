"""Who asks, and what was done: `/me` and `/audit`."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict

from app.admin.audit_entries import AuditEntry
from app.admin.audit_log import MOST_ON_A_PAGE, AuditLog
from app.admin.roles import Permission, Role
from app.errors import NotThere
from app.web.api.calls import OfBusiness
from app.web.api.route import Asking, answers, api_router, secured


class Me(BaseModel):
    """Who asks. `business_id` is null for an operator, who may do everything with every business.

    `actor` is their name in the audit log: `operator`, `operator:NAME` or `key:ID`.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "role": "agent",
                "actor": "key:0f3a5c7e9b1d",
                "business_id": "business-1",
                "permissions": ["read calls, listen to them and watch them", "end a call"],
            }
        }
    )
    role: Role
    actor: str
    business_id: str | None
    permissions: list[str]


class Entry(BaseModel):
    """One thing that was done, read or refused. `at` is Unix ms; `data` has no secret.

    `address` is where the request came from, null for a command. `seq` is the entry's number in
    the chain, null where it has none: version 0.1 wrote it, or SECRET_KEY is not set.
    """

    id: str
    seq: int | None
    at: int
    actor: str
    action: str
    target: str
    business_id: str | None
    address: str | None
    data: dict[str, str | int]

    @classmethod
    def of(cls, entry: AuditEntry) -> "Entry":
        """Return an entry as it is answered."""
        return cls(
            id=entry.id,
            seq=entry.seq or None,
            address=entry.address or None,
            at=entry.at,
            actor=entry.actor,
            action=entry.action,
            target=entry.target,
            business_id=entry.business_id or None,
            data=dict(entry.data),
        )


class AuditPage(BaseModel):
    """A page of the audit log; `next` is the `before` of the page after it, null for the last."""

    items: list[Entry]
    next: str | None


def access_router(audit: AuditLog) -> APIRouter:
    """Make `/me` and `/audit`."""
    router = api_router("access")

    @router.get(
        "/me",
        operation_id="me",
        response_description="Who asks.",
        responses=answers(),
        openapi_extra=secured(),
    )
    async def me(who: Asking) -> Me:
        """Tell whose token or key this is, and what it may do."""
        return Me(
            role=who.role,
            actor=who.actor,
            business_id=who.business_id or None,
            permissions=[permission.value for permission in Permission if who.may(permission)],
        )

    @router.get(
        "/audit",
        operation_id="audit",
        response_description="The latest first.",
        responses=answers(NotThere),
        openapi_extra=secured(),
    )
    async def audit_log(
        who: Asking,
        business: OfBusiness = None,
        before: str = "",
        limit: Annotated[int, Query(ge=1, le=MOST_ON_A_PAGE)] = 50,
    ) -> AuditPage:
        """List what was done, read and refused, of all businesses or of one; admins: their own."""
        found = await audit.page(who, business, before, limit)
        items = [Entry.of(entry) for entry in found]
        return AuditPage(items=items, next=items[-1].id if len(items) == limit else None)

    return router
