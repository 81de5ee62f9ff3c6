"""A business's usage by month, and the end of a live call."""

from fastapi.responses import Response

from app.admin.roles import Permission
from app.administration import Administration
from app.administration.live import LiveCalls
from app.administration.usage import BusinessUse, UsageBook
from app.store.usage import Limit, MonthOfUse
from app.web.admin.businesses import BUSINESSES, row_of
from app.web.admin.calls import CALLS, path_of, whose
from app.web.admin.entry import Entry, Visit, see
from app.web.admin.views import MonthRow
from app.web.admin.words import count


def add_usage(entry: Entry, desk: Administration, book: UsageBook) -> None:
    """Add a business's usage."""

    @entry.get(f"{BUSINESSES}/{{id}}/usage")
    async def usage(visit: Visit) -> Response:
        stored = await desk.businesses.get(visit.who, visit.part("id"), Permission.READ_USAGE)
        use = await book.of(visit.who, stored.record.id)
        return visit.page(
            "usage.html",
            here="businesses",
            tab="usage",
            business=row_of(stored.record),
            limits=_limits(use),
            months=[_row(month) for month in use.months if month.calls or month.ms],
        )


def add_ending(entry: Entry, live: LiveCalls) -> None:
    """Add what ends a live call."""

    @entry.post(f"{CALLS}/{{sid}}/end")
    async def end(visit: Visit) -> Response:
        sid = visit.part("sid")
        await live.end(visit.who, sid, whose(visit, Permission.END_CALLS))
        back = "/admin/live" if visit.sent.has("watching") else path_of(visit, sid)
        return see(back, "ending")


def _limits(use: BusinessUse) -> list[str]:
    return [f"{_name(limit)}: {count(allowed)}" for limit, allowed in use.limits.items()]


def _row(month: MonthOfUse) -> MonthRow:
    notes = [f"{_name(one.limit)} of {count(one.allowed)} reached" for one in month.crossed]
    return MonthRow(month.month, month.calls, month.minutes, notes)


def _name(limit: Limit) -> str:
    what = "calls" if limit.is_of_calls else "minutes"
    return f"{'Hard' if limit.is_hard else 'Soft'} limit of {what}"
