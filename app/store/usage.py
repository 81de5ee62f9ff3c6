"""The usage port: how many calls and minutes a business has had in a month.

Months are those of UTC, written `2026-11`. Every method raises StoreUnavailable when the
store cannot be reached in time.
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final, Protocol

from app.plans import Plan

# Longer than a call lasts (Twilio: a day at most): a call or a stream that is told of
# again within this time of the last time counts no more.
ONCE_SECONDS: Final = 2 * 86_400.0
# Two years and a bit: what there is to show.
KEPT_SECONDS: Final = 800 * 86_400.0
MINUTE_MS: Final = 60_000


class Limit(StrEnum):
    """A plan's limit on a month, by the name of its field."""

    CALLS_SOFT = "calls_per_month_soft"
    CALLS_HARD = "calls_per_month_hard"
    MINUTES_SOFT = "minutes_per_month_soft"
    MINUTES_HARD = "minutes_per_month_hard"

    @property
    def is_hard(self) -> bool:
        """Tell whether new calls are refused beyond it."""
        return self in (Limit.CALLS_HARD, Limit.MINUTES_HARD)

    @property
    def is_of_calls(self) -> bool:
        """Tell whether it counts calls, and not minutes."""
        return self in (Limit.CALLS_SOFT, Limit.CALLS_HARD)


def limits_of(plan: Plan) -> dict[Limit, float]:
    """Give a plan's limits on a month; those that are infinite are none."""
    found = {limit: getattr(plan, limit) for limit in Limit}
    return {limit: allowed for limit, allowed in found.items() if not math.isinf(allowed)}


@dataclass(frozen=True, slots=True)
class Counting:
    """How a call that comes at `at` (Unix ms) counts in its month, and what that allows.

    The call it `takes_over` from is the same one, under an id that was made up for it.
    """

    at: int
    limits: Mapping[Limit, float] = field(default_factory=dict)
    takes_over: str = ""


@dataclass(frozen=True, slots=True)
class Crossing:
    """A limit that was reached: how much it `allowed`, and when (Unix ms)."""

    limit: Limit
    allowed: float
    at: int


@dataclass(frozen=True, slots=True)
class MonthOfUse:
    """What a business has used of a month; times are Unix ms, 0 where there was no call."""

    month: str
    calls: int = 0
    ms: int = 0
    first_at: int = 0
    last_at: int = 0
    crossed: tuple[Crossing, ...] = ()

    @property
    def minutes(self) -> float:
        """Give the minutes that streams were live."""
        return self.ms / MINUTE_MS

    def used(self, limit: Limit) -> float:
        """Give what counts against a limit."""
        return self.calls if limit.is_of_calls else self.minutes


class Usage(Protocol):
    """Count calls and the time that streams are live, each once, for all replicas.

    `Store.take_slot` counts a call, in one step with what its month still allows.
    """

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
        """Count what was not counted yet; give the month, and the limits just crossed.

        `calls` are CallSids. `streams` has, for each life of a stream, the ms for
        which it has been live in this month until now, in all: what is told again adds
        only what is new. A limit is crossed once over all replicas, and again when it
        has been changed.
        """

    async def usage_of(self, business_id: str, months: Sequence[str]) -> list[MonthOfUse]:
        """Give these months, in this order."""


def month_of(at: int) -> str:
    """Name the month of a time (Unix ms)."""
    return f"{datetime.fromtimestamp(at / 1000, UTC):%Y-%m}"


def months_until(at: int, count: int) -> list[str]:
    """Name the last `count` months, that of `at` (Unix ms) first."""
    moment = datetime.fromtimestamp(at / 1000, UTC)
    months = range(moment.year * 12 + moment.month - 1, -1, -1)[:count]
    return [f"{number // 12:04}-{number % 12 + 1:02}" for number in months]


def by_month(started_at: int, ms: int) -> dict[str, int]:
    """Share out `ms` that began at `started_at` (Unix ms) among their months."""
    shares: dict[str, int] = {}
    at, end = started_at, started_at + ms
    while at < end:
        until = min(end, _end_of_month(at))
        shares[month_of(at)] = until - at
        at = until
    return shares


def is_reached(used: float, allowed: float) -> bool:
    """Tell whether a limit is reached: nothing is left of it."""
    return used >= allowed


def just_crossed(
    use: MonthOfUse, limits: Mapping[Limit, float], known: Iterable[Crossing], at: int
) -> list[Crossing]:
    """Name the limits that a month has reached, and that are not known to be."""
    seen = {(crossing.limit, crossing.allowed) for crossing in known}
    return [
        Crossing(limit, allowed, at)
        for limit, allowed in limits.items()
        if is_reached(use.used(limit), allowed) and (limit, allowed) not in seen
    ]


def _end_of_month(at: int) -> int:
    moment = datetime.fromtimestamp(at / 1000, UTC)
    years, month = divmod(moment.month, 12)
    following = datetime(moment.year + years, month + 1, 1, tzinfo=UTC)
    return round(following.timestamp() * 1000)
