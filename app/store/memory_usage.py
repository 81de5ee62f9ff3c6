"""What businesses have used of their months, in a process that stands alone."""

from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

from app.store.once import Once
from app.store.usage import (
    ONCE_SECONDS,
    Counting,
    Crossing,
    Limit,
    MonthOfUse,
    is_reached,
    just_crossed,
    month_of,
)

# What was noted first is forgotten first.
MAX_MONTHS = 100_000
MAX_STREAMS = 100_000


class MemoryUsage:
    """Count calls and live time in this process. `clock` gives monotonic seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._months: OrderedDict[tuple[str, str], MonthOfUse] = OrderedDict()
        self._counted = Once(clock)
        self._metered: OrderedDict[str, int] = OrderedDict()

    async def note_usage(
        self,
        business_id: str,
        month: str,
        at: int,
        *,
        calls: Collection[str] = (),
        streams: Mapping[str, int] | None = None,
        limits: Mapping[Limit, float] | None = None,
    ) -> tuple[MonthOfUse, list[Crossing]]:
        """Count what was not counted yet; give the month, and the limits just crossed."""
        for call_sid in calls:
            self.count_call(business_id, call_sid, month, at)
        use = self._month(business_id, month)
        use = replace(use, ms=use.ms + self._unmetered(business_id, month, streams or {}))
        crossed = just_crossed(use, limits or {}, use.crossed, at)
        others = {crossing.limit for crossing in crossed}
        kept = [crossing for crossing in use.crossed if crossing.limit not in others]
        use = replace(use, crossed=(*kept, *crossed))
        self._keep(business_id, use)
        return use, crossed

    async def usage_of(self, business_id: str, months: Sequence[str]) -> list[MonthOfUse]:
        """Give these months, in this order."""
        return [self._month(business_id, month) for month in months]

    def allows(self, business_id: str, call_sid: str, counting: Counting) -> bool:
        """Tell whether a call has been counted, or its month's hard limits leave room for it."""
        names = {_name(business_id, sid) for sid in (call_sid, counting.takes_over) if sid}
        if any(self._counted.knows(name) for name in names):
            return True
        use = self._month(business_id, month_of(counting.at))
        return not any(
            limit.is_hard and is_reached(use.used(limit), allowed)
            for limit, allowed in counting.limits.items()
        )

    def count_call(
        self, business_id: str, call_sid: str, month: str, at: int, takes_over: str = ""
    ) -> None:
        """Count a call in its month, unless it was counted."""
        earlier = takes_over and self._counted.knows(_name(business_id, takes_over))
        if not self._counted.first(_name(business_id, call_sid), ONCE_SECONDS) or earlier:
            return
        use = self._month(business_id, month)
        first_at = use.first_at or at
        self._keep(business_id, replace(use, calls=use.calls + 1, first_at=first_at, last_at=at))

    def _unmetered(self, business_id: str, month: str, streams: Mapping[str, int]) -> int:
        """Give the ms that are new, and remember them; who ended long ago is forgotten first."""
        added = 0
        for stream, ms in streams.items():
            name = _name(business_id, f"{stream}:{month}")
            counted = self._metered.pop(name, 0)
            added += max(0, ms - counted)
            self._metered[name] = max(ms, counted)
        while len(self._metered) > MAX_STREAMS:
            self._metered.popitem(last=False)
        return added

    def _month(self, business_id: str, month: str) -> MonthOfUse:
        return self._months.get((business_id, month), MonthOfUse(month))

    def _keep(self, business_id: str, use: MonthOfUse) -> None:
        self._months[business_id, use.month] = use
        while len(self._months) > MAX_MONTHS:
            self._months.popitem(last=False)


def _name(business_id: str, name: str) -> str:
    return f"{business_id}/{name}"
