"""What businesses use of their months: measured here, and kept by the store."""

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeVar

from app.errors import ConfigurationError, StoreUnavailable
from app.events import HeldStream
from app.metrics import Metrics
from app.store.base import Store
from app.store.usage import (
    Counting,
    Crossing,
    Limit,
    MonthOfUse,
    by_month,
    is_reached,
    limits_of,
    month_of,
)

log = logging.getLogger(__name__)

# Calls, and ended streams, of one business that wait until the store can count them.
MAX_WAITING = 10_000
# A script keeps everyone waiting: at most so many calls and streams a note.
AT_A_TIME = 200

OnCrossed = Callable[[str, MonthOfUse, Crossing], None]

_T = TypeVar("_T")


@dataclass(slots=True)
class _Meter:
    """A stream's time: since when it is live, and until when where it has ended."""

    held: HeldStream
    since: float
    until: float | None = None
    told_ms: int = 0

    def ms(self, now: float) -> int:
        """Give for how long it has been live until `now`."""
        return round(1000 * ((now if self.until is None else self.until) - self.since))

    @property
    def name(self) -> str:
        """Name this life of the stream."""
        return f"{self.held.call.stream_sid}@{self.held.started_at}"


@dataclass(slots=True)
class _Account:
    """What is known here of one business: its streams' time, and calls not counted yet."""

    live: dict[str, _Meter] = field(default_factory=dict)
    ended: dict[str, _Meter] = field(default_factory=dict)
    uncounted: dict[str, str] = field(default_factory=dict)  # CallSid → month
    known: MonthOfUse | None = None
    # Calls have counted since the store was last told anything.
    changed: bool = False

    @property
    def has_news(self) -> bool:
        return bool(self.live or self.ended or self.uncounted or self.changed)

    def meters(self) -> Iterator[_Meter]:
        yield from self.live.values()
        yield from self.ended.values()

    def use_of(self, month: str, now: float) -> MonthOfUse:
        """Give what is known to be used of a month."""
        known = self.known if self.known and self.known.month == month else MonthOfUse(month)
        calls = sum(of == month for of in self.uncounted.values())
        ms = sum(meter.ms(now) - meter.told_ms for meter in self.meters())
        return MonthOfUse(month, known.calls + calls, known.ms + ms)


class Metering:
    """Tell the store of the calls and the live time that it has not counted yet.

    A stream's time runs from its beginning to its end here, and is told in all, so
    that nothing counts twice. What the store cannot take waits, bounded, and is told
    when it is back. `on_crossed` hears of each limit that this process was the first to
    see reached, with the business's id. `clock` gives monotonic seconds, `wall_clock`
    Unix seconds.
    """

    def __init__(
        self,
        store: Store,
        metrics: Metrics,
        *,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
        on_crossed: OnCrossed,
    ) -> None:
        self._store = store
        self._metrics = metrics
        self._clock = clock
        self._wall_clock = wall_clock
        self._on_crossed = on_crossed
        # As many as there are businesses.
        self._accounts: dict[str, _Account] = {}

    # ------------------------------------------------------------------- calls

    def counted(self, business_id: str, counting: Counting) -> None:
        """Note that the store has counted a call, now or before."""
        account = self._account(business_id)
        account.changed = True
        account.uncounted.pop(counting.takes_over, None)

    def count_later(self, business_id: str, call_sid: str, counting: Counting) -> None:
        """Take a call that the store could not count."""
        waiting = self._account(business_id).uncounted
        if counting.takes_over and waiting.pop(counting.takes_over, None) is None:
            return  # the store has counted it under the id that was made up for it
        waiting.setdefault(call_sid, month_of(counting.at))
        self._bound(waiting)

    def allows(self, business_id: str, call_sid: str, counting: Counting) -> bool:
        """Tell, by what this process knows, whether a month has room for a call."""
        account = self._account(business_id)
        if counting.takes_over or call_sid in account.uncounted:
            return True
        use = account.use_of(month_of(counting.at), self._clock())
        return not any(
            limit.is_hard and is_reached(use.used(limit), allowed)
            for limit, allowed in counting.limits.items()
        )

    # ----------------------------------------------------------------- streams

    def begin(self, held: HeldStream) -> None:
        """Count a stream's time from now on."""
        account = self._account(held.call.business_id)
        account.live[held.call.stream_sid] = _Meter(held, self._clock())

    def finish(self, business_id: str, stream_sid: str) -> None:
        """Count it no further; no effect on one that was never begun."""
        account = self._account(business_id)
        meter = account.live.pop(stream_sid, None)
        if meter is not None:
            meter.until = self._clock()
            account.ended[meter.name] = meter
            self._bound(account.ended)

    # -------------------------------------------------------------------- notes

    async def note(self) -> None:
        """Tell the store all that it does not know yet.

        Raises:
            StoreUnavailable: what is left is told another time.
        """
        for business_id, account in list(self._accounts.items()):
            if not account.has_news:
                continue
            account.changed = False
            try:
                await self._note(business_id, account)
            except StoreUnavailable:
                account.changed = True
                raise

    async def _note(self, business_id: str, account: _Account) -> None:
        now, at = self._clock(), int(self._wall_clock() * 1000)
        limits = await self._limits_of(business_id)
        calls: dict[str, list[str]] = {month_of(at): []}
        for call_sid, month in account.uncounted.items():
            calls.setdefault(month, []).append(call_sid)
        streams: dict[str, dict[str, int]] = {}
        told: list[tuple[_Meter, int]] = []
        for meter in account.meters():
            told.append((meter, ms := meter.ms(now)))
            for month, share in by_month(meter.held.started_at, ms).items():
                streams.setdefault(month, {})[meter.name] = share
        for month in sorted(calls.keys() | streams.keys()):
            waiting = iter(calls.get(month, ())), iter(streams.get(month, {}).items())
            for some_calls, some_streams in _together(*waiting):
                use, crossed = await self._store.note_usage(
                    business_id,
                    month,
                    at,
                    calls=some_calls,
                    streams=dict(some_streams),
                    limits=limits,
                )
                for call_sid in some_calls:
                    account.uncounted.pop(call_sid, None)
                account.known = use
                for crossing in crossed:
                    self._tell(business_id, use, crossing)
        for meter, ms in told:
            meter.told_ms = ms
            if meter.until is not None and meter.ms(now) == ms:
                account.ended.pop(meter.name, None)

    async def _limits_of(self, business_id: str) -> Mapping[Limit, float]:
        """Give the limits that hold now, whatever plan a live call began with."""
        try:
            found = await self._store.lookup(business_id)
        except ConfigurationError:
            return {}
        return limits_of(found[1]) if found else {}

    def _tell(self, business_id: str, use: MonthOfUse, crossing: Crossing) -> None:
        log.warning(
            "[Usage] ⚠️ Business %s has reached %s = %g in %s: %d calls, %.1f minutes",
            *(business_id, crossing.limit, crossing.allowed, use.month, use.calls, use.minutes),
        )
        self._on_crossed(business_id, use, crossing)

    def _account(self, business_id: str) -> _Account:
        return self._accounts.setdefault(business_id, _Account())

    def _bound(self, waiting: dict[str, _T]) -> None:
        while len(waiting) > MAX_WAITING:
            del waiting[next(iter(waiting))]
            self._metrics.usage_lost.inc()


def _together(
    calls: Iterator[str], streams: Iterator[tuple[str, int]]
) -> Iterator[tuple[list[str], list[tuple[str, int]]]]:
    """Give both in parts of AT_A_TIME; at least one part, though it be empty."""
    while True:
        some_calls, some_streams = list(islice(calls, AT_A_TIME)), list(islice(streams, AT_A_TIME))
        yield some_calls, some_streams
        if len(some_calls) < AT_A_TIME and len(some_streams) < AT_A_TIME:
            return
