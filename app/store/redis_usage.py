"""What businesses have used of their months, in Redis.

`live:{BUSINESS}:usage:MONTH` has the fields `calls` and `ms`, `first` and `last` (when a
call came, Unix ms), and for each limit that was reached its name, with what it allowed,
and `NAME:at`.
"""

import math
from collections.abc import Collection, Mapping, Sequence

from app.store.reach import RedisReach, in_ms, text
from app.store.scripts import NOTE_USAGE, READ_USAGE
from app.store.usage import (
    KEPT_SECONDS,
    MINUTE_MS,
    ONCE_SECONDS,
    Counting,
    Crossing,
    Limit,
    MonthOfUse,
    month_of,
)

_REMEMBERED = in_ms(ONCE_SECONDS), in_ms(KEPT_SECONDS)


class RedisUsage(RedisReach):
    """Count calls and live time in Redis."""

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
        streams, limits = streams or {}, limits or {}
        key = slots_key(business_id)
        keys = [_usage_key(business_id, month)]
        keys += [_counted_key(business_id, call_sid) for call_sid in calls]
        keys += [f"{key}:metered:{stream}:{month}" for stream in streams]
        said: list[str | int] = [at, *_REMEMBERED, len(calls), *streams.values()]
        for limit, allowed in limits.items():
            said += [limit, "calls" if limit.is_of_calls else "ms", _counted_in(limit, allowed)]
        fields, crossed = await self._ask("EVAL", NOTE_USAGE, len(keys), *keys, *said)
        use = _month(month, fields)
        names = {text(name) for name in crossed}
        return use, [crossing for crossing in use.crossed if crossing.limit in names]

    async def usage_of(self, business_id: str, months: Sequence[str]) -> list[MonthOfUse]:
        """Give these months, in this order."""
        if not months:
            return []
        keys = [_usage_key(business_id, month) for month in months]
        found = await self._ask("EVAL", READ_USAGE, len(keys), *keys)
        return [_month(month, fields) for month, fields in zip(months, found, strict=True)]


def slots_key(business_id: str) -> str:
    """Name the key of a business's slots, with which its other live keys begin."""
    return f"live:{{{business_id}}}"


def counting_keys(business_id: str, call_sid: str, counting: Counting) -> list[str]:
    """Name the keys with which TAKE_SLOT counts a call."""
    return [
        _usage_key(business_id, month_of(counting.at)),
        _counted_key(business_id, call_sid),
        _counted_key(business_id, counting.takes_over or call_sid),
    ]


def counting_arguments(counting: Counting) -> list[str | int]:
    """Give what TAKE_SLOT is told of a call that counts."""
    hard = [
        _counted_in(limit, counting.limits[limit]) if limit in counting.limits else ""
        for limit in (Limit.CALLS_HARD, Limit.MINUTES_HARD)
    ]
    return [counting.at, *hard, *_REMEMBERED]


def _usage_key(business_id: str, month: str) -> str:
    return f"{slots_key(business_id)}:usage:{month}"


def _counted_key(business_id: str, call_sid: str) -> str:
    return f"{slots_key(business_id)}:counted:{call_sid}"


def _counted_in(limit: Limit, allowed: float) -> int:
    """Give a limit as it is counted: in calls, or in ms."""
    return math.ceil(allowed if limit.is_of_calls else allowed * MINUTE_MS)


def _month(month: str, fields: Sequence[str | bytes]) -> MonthOfUse:
    parts = iter(map(text, fields))
    said = dict(zip(parts, parts, strict=True))
    crossed = tuple(
        Crossing(
            limit,
            int(said[limit]) / (1 if limit.is_of_calls else MINUTE_MS),
            int(said[f"{limit}:at"]),
        )
        for limit in Limit
        if limit in said
    )
    return MonthOfUse(
        month,
        int(said.get("calls", 0)),
        int(said.get("ms", 0)),
        int(said.get("first", 0)),
        int(said.get("last", 0)),
        crossed,
    )
