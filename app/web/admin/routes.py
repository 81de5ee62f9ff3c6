"""Every page, with what it needs."""

from dataclasses import dataclass

from fastapi import APIRouter
from fastapi.responses import Response

from app.administration.audit import AuditLog
from app.administration.principal import OPERATOR, Principal
from app.errors import NotThere
from app.web.admin.entry import Entry, Visit, see
from app.web.admin.records import add_audit
from app.web.admin.signing import add_signing
from app.web.visitors import Visitors


@dataclass(frozen=True, slots=True)
class PageParts:
    """What the pages are made from."""

    visitors: Visitors
    audit: AuditLog


def admin_router(parts: PageParts) -> APIRouter:
    """Make every page of `/admin`."""
    router = APIRouter()

    async def name_of(who: Principal) -> str:
        return OPERATOR if who.is_operator else who.business_id

    entry = Entry(router, parts.visitors, name_of)
    add_signing(router, entry, parts.visitors)
    add_audit(entry, parts.audit)

    @entry.get("/admin")
    async def home(visit: Visit) -> Response:
        return see("/admin/audit")

    @entry.get("/admin/{path:path}")
    async def nowhere(visit: Visit) -> Response:
        raise NotThere("no page has this address; it may be mistyped, or what it showed is gone")

    return router
