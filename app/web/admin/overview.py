"""The overview: how things stand, and what a newcomer does next."""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime

from fastapi.responses import Response

from app.admin.roles import Permission
from app.administration import Administration
from app.archive.base import CallFilter
from app.archive.calls import CallState, CallSummary
from app.archive.library import Library
from app.plans import Business
from app.store.base import Store
from app.web.admin.entry import Entry, Visit
from app.web.admin.telling import lost_of, row_of
from app.web.admin.views import CallRow, NextStep, Overview, SlotUse
from app.web.health import Condition, results_of

# Of today's calls so many are looked at; the page says so when there are more.
LOOKED_AT = 200
SHOWN = 5
# The busiest; a list of all is on another page.
BUSIEST = 20
ASKED_AT_ONCE = 8


def add_overview(
    entry: Entry,
    desk: Administration,
    library: Library,
    store: Store,
    conditions: Sequence[Condition],
    wall_clock: Callable[[], float],
) -> None:
    """Add the overview. `wall_clock` gives Unix seconds."""

    @entry.get("/admin")
    async def overview(visit: Visit) -> Response:
        who = visit.who
        scope = who.scope(Permission.READ_CALLS)
        now = wall_clock()
        # How much of a plan is in use: no more of it is shown than usage is.
        usage = Permission.READ_USAGE
        businesses = [one.record for one in await desk.businesses.all(who, usage)]
        plans = {one.record.name: one.record for one in await desk.plans.all(who, usage)}
        today = await library.calls(scope, CallFilter(since=_midnight(now)), "", LOOKED_AT)
        recent = today.calls or (await library.calls(scope, CallFilter(), "", SHOWN)).calls
        taken = await _taken(businesses)
        slots = [
            SlotUse(one.id, one.name, one.plan, taken[one.id], plans[one.plan].max_concurrent_calls)
            for one in businesses
            if one.plan in plans
        ]
        view = Overview(
            live=sum(call.state is CallState.LIVE for call in today.calls),
            slots=sorted(slots, key=lambda one: -one.used),
            calls_today=len(today.calls),
            more_today=today.next is not None,
            frames_lost=sum(lost_of(call) or 0 for call in today.calls),
            broker=await _broker(),
            warnings=await store.durability_warnings() if who.is_operator else (),
            step=_step(bool(plans), bool(businesses), bool(recent)),
        )
        names = {one.id: one.name for one in businesses}
        rows = [_row(call, names, now) for call in recent[:SHOWN]]
        return visit.page("overview.html", here="overview", view=view, busiest=BUSIEST, recent=rows)

    async def _taken(businesses: Sequence[Business]) -> dict[str, int]:
        taken: dict[str, int] = {}
        for some in _batches(businesses):
            counts = await asyncio.gather(*(store.slots_taken(one.id) for one in some))
            taken |= {one.id: count for one, count in zip(some, counts, strict=True)}
        return taken

    async def _broker() -> str:
        said = await results_of(conditions)
        return next((said[name] for name in ("broker", "store") if said.get(name) != "ok"), "ok")


def _batches(businesses: Sequence[Business]) -> Iterator[Sequence[Business]]:
    for first in range(0, len(businesses), ASKED_AT_ONCE):
        yield businesses[first : first + ASKED_AT_ONCE]


def _step(has_plans: bool, has_businesses: bool, has_calls: bool) -> NextStep:
    if not has_plans:
        return "plan"
    if not has_businesses:
        return "business"
    return "" if has_calls else "call"


def _midnight(now: float) -> int:
    at = datetime.fromtimestamp(now, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return round(at.timestamp() * 1000)


def _row(call: CallSummary, names: Mapping[str, str], now: float) -> CallRow:
    return row_of(call, names.get(call.business_id, call.business_id), int(now * 1000))
