"""What businesses have used of their months, for whoever asks: as figures, and as CSV."""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from app.admin.principal import Principal
from app.admin.roles import Permission
from app.administration.businesses import Businesses
from app.store.base import Store
from app.store.usage import Limit, MonthOfUse, limits_of, months_until

MOST_MONTHS = 24
DEFAULT_MONTHS = 12


class State(StrEnum):
    """How a month stands to its limits."""

    WITHIN = "within"
    SOFT = "soft_limit_reached"
    HARD = "hard_limit_reached"


@dataclass(frozen=True, slots=True)
class BusinessUse:
    """A business's last months, the newest first, and what its plan allows in each now."""

    business_id: str
    plan: str
    limits: Mapping[Limit, float]
    months: Sequence[MonthOfUse]


def state_of(use: MonthOfUse) -> State:
    """Tell which limits a month has reached; they are noted within seconds."""
    reached = {crossing.limit.is_hard for crossing in use.crossed}
    return State.HARD if True in reached else State.SOFT if reached else State.WITHIN


class UsageBook:
    """Show usage to whoever may see it. `wall_clock` gives Unix seconds."""

    def __init__(
        self, store: Store, businesses: Businesses, wall_clock: Callable[[], float]
    ) -> None:
        self._store = store
        self._businesses = businesses
        self._wall_clock = wall_clock

    async def of(
        self, who: Principal, business_id: str, months: int = DEFAULT_MONTHS
    ) -> BusinessUse:
        """Give the last 1 to 24 months of a business.

        Raises:
            NotThere: there is no such business, or it is another's.
        """
        business = await self._businesses.get(who, business_id, Permission.READ_USAGE)
        plan = await self._store.plan(business.record.plan)
        names = months_until(int(self._wall_clock() * 1000), min(months, MOST_MONTHS))
        return BusinessUse(
            business_id,
            business.record.plan,
            limits_of(plan) if plan else {},
            await self._store.usage_of(business_id, names),
        )


def as_csv(use: BusinessUse) -> str:
    """Write months as CSV (RFC 4180), the newest first; a limit's column has when it was reached.

    Nothing in it was written by a person: no spreadsheet takes it for a formula.
    """
    written = io.StringIO()
    rows = csv.writer(written)
    rows.writerow(["month", "calls", "minutes", "state", *(f"{limit}_reached" for limit in Limit)])
    for month in use.months:
        reached = {crossing.limit: _moment(crossing.at) for crossing in month.crossed}
        minutes = f"{month.minutes:.1f}"
        times = [reached.get(limit, "") for limit in Limit]
        rows.writerow([month.month, month.calls, minutes, state_of(month), *times])
    return written.getvalue()


def _moment(at: int) -> str:
    return f"{datetime.fromtimestamp(at / 1000, UTC):%Y-%m-%dT%H:%M:%SZ}"
