"""Every page, with what it needs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fastapi import APIRouter
from fastapi.responses import Response

from app.administration import Administration
from app.administration.live import LiveCalls
from app.administration.speech import LiveSpeech
from app.administration.usage import UsageBook
from app.diagnosis.checkup import Checkup
from app.errors import NotThere
from app.records import Records
from app.store.base import Store
from app.web.admin.access import add_keys, add_sessions
from app.web.admin.businesses import add_businesses
from app.web.admin.calls import add_calls
from app.web.admin.connections import add_numbers, add_secrets
from app.web.admin.entry import Entry, Visit
from app.web.admin.health import add_health
from app.web.admin.overview import add_overview
from app.web.admin.persons import add_persons
from app.web.admin.plans import add_plans
from app.web.admin.records import add_audit
from app.web.admin.signing import add_signing
from app.web.admin.usage import add_ending, add_usage
from app.web.api.calls import CallDesk
from app.web.health import Condition
from app.web.visitors import Visitors


@dataclass(frozen=True, slots=True)
class PageParts:
    """What the pages are made from.

    `conditions` are those of readiness, `http_base` and `ws_base` are PUBLIC_URL's, or empty;
    `by_hand` tells that calls may be placed unsigned; `wall_clock` gives Unix
    seconds.
    """

    visitors: Visitors
    administration: Administration
    calls: CallDesk
    live: LiveCalls
    speech: LiveSpeech
    usage: UsageBook
    store: Store
    conditions: Sequence[Condition]
    http_base: str
    ws_base: str
    by_hand: bool
    wall_clock: Callable[[], float]
    checkup: Checkup
    records: Records


def admin_router(parts: PageParts) -> APIRouter:
    """Make every page of `/admin`."""
    router = APIRouter()
    desk = parts.administration

    entry = Entry(router, parts.visitors, desk.businesses.name_of, parts.by_hand)
    add_signing(router, entry, parts.visitors)
    add_overview(entry, desk, parts.calls.library, parts.store, parts.conditions, parts.wall_clock)
    add_calls(entry, desk, parts.calls, parts.speech, parts.wall_clock)
    add_ending(entry, parts.live)
    add_usage(entry, desk, parts.usage)
    add_plans(entry, desk.plans, desk.businesses)
    add_businesses(entry, desk, parts.records.erasure)
    add_numbers(entry, desk, parts.http_base)
    add_secrets(entry, desk, parts.ws_base)
    add_keys(entry, desk, parts.wall_clock)
    add_sessions(entry, desk, parts.visitors)
    add_audit(entry, desk.audit)
    add_persons(entry, desk, parts.records.persons)
    add_health(entry, parts.checkup)

    @entry.get("/admin/{path:path}")
    async def nowhere(visit: Visit) -> Response:
        raise NotThere("no page has this address; it may be mistyped, or what it showed is gone")

    return router
