"""Every page, with what it needs."""

from dataclasses import dataclass

from fastapi import APIRouter
from fastapi.responses import Response

from app.administration import Administration
from app.administration.principal import OPERATOR, Principal
from app.errors import NotThere
from app.web.admin.businesses import add_businesses
from app.web.admin.connections import add_keys, add_numbers, add_secrets
from app.web.admin.entry import Entry, Visit, see
from app.web.admin.plans import add_plans
from app.web.admin.records import add_audit
from app.web.admin.signing import add_signing
from app.web.visitors import Visitors


@dataclass(frozen=True, slots=True)
class PageParts:
    """What the pages are made from; `http_base` is PUBLIC_URL, or empty."""

    visitors: Visitors
    administration: Administration
    http_base: str


def admin_router(parts: PageParts) -> APIRouter:
    """Make every page of `/admin`."""
    router = APIRouter()
    desk = parts.administration

    async def name_of(who: Principal) -> str:
        if who.is_operator:
            return OPERATOR
        return (await desk.businesses.get(who, who.business_id)).record.name

    entry = Entry(router, parts.visitors, name_of)
    add_signing(router, entry, parts.visitors)
    add_plans(entry, desk.plans, desk.businesses)
    add_businesses(entry, desk)
    add_numbers(entry, desk, parts.http_base)
    add_secrets(entry, desk)
    add_keys(entry, desk)
    add_audit(entry, desk.audit)

    @entry.get("/admin")
    async def home(visit: Visit) -> Response:
        return see("/admin/businesses")

    @entry.get("/admin/{path:path}")
    async def nowhere(visit: Visit) -> Response:
        raise NotThere("no page has this address; it may be mistyped, or what it showed is gone")

    return router
