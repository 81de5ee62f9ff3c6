"""What a process tells the store of calls and live time: once, whatever happens between."""

import logging
import math
from collections.abc import Collection, Mapping
from typing import Any

import pytest

from app.errors import MonthlyLimitReached, StoreUnavailable
from app.events import CallIdentity, EndReason, HeldStream
from app.metrics import Metrics
from app.plans import Business, Directory, Plan
from app.registry import Registry, metering
from app.store.base import CallEnd, SlotAnswer, Store
from app.store.memory import MemoryStore
from app.store.redis import RedisStore
from app.store.usage import Counting, Crossing, Limit, MonthOfUse
from tests.store.conftest import PATIENT, emptied

# 2026-11-30 23:59:00 UTC.
START = 1_796_083_140.0
NOVEMBER, DECEMBER = "2026-11", "2026-12"
HARD = {Limit.CALLS_HARD: 2.0}
DIRECTORY = Directory(
    (Plan("plan", calls_per_month_soft=2, minutes_per_month_soft=1),),
    (Business("b", "B", "plan"),),
)


class AwayStore(MemoryStore):
    """A store that can be taken away and brought back."""

    away = False

    async def take_slot(
        self,
        business_id: str,
        call_sid: str,
        limit: int,
        lease_seconds: float,
        per_second: float = math.inf,
        counting: Counting | None = None,
        refused_after: CallEnd | None = None,
        stream_sid: str = "",
    ) -> SlotAnswer:
        self._check_there()
        return await super().take_slot(
            business_id,
            call_sid,
            limit,
            lease_seconds,
            per_second,
            counting,
            refused_after,
            stream_sid,
        )

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
        self._check_there()
        return await super().note_usage(
            business_id, month, at, calls=calls, streams=streams, limits=limits
        )

    def _check_there(self) -> None:
        if self.away:
            raise StoreUnavailable("away")


class Process:
    """A process with its registry, on a clock that is set by hand."""

    def __init__(self, store: Store | None = None) -> None:
        self.now = START
        self.away_store = AwayStore(self.clock)
        self.store = store or self.away_store
        self.metrics = Metrics()
        self.crossed: list[tuple[str, str, Limit]] = []
        self.registry = Registry(
            self.store,
            self.metrics,
            max_calls=100_000,
            clock=self.clock,
            wall_clock=self.clock,
            on_crossed=lambda business_id, use, crossing: self.crossed.append(
                (business_id, use.month, crossing.limit)
            ),
        )

    def clock(self) -> float:
        return self.now

    async def call(
        self,
        call_sid: str,
        takes_over: str = "",
        limits: Mapping[Limit, float] = HARD,
        business: str = "b",
    ) -> None:
        counting = Counting(int(self.now * 1000), limits, takes_over)
        await self.registry.reserve(business, call_sid, 99_999, counting=counting)

    async def live(self, number: int = 1, business: str = "b") -> CallIdentity:
        identity = CallIdentity(f"CA{number}", f"MZ{number}", business, "plan", "twilio")
        await self.registry.begin(self.held(identity), lambda reason: None)
        return identity

    def held(self, identity: CallIdentity) -> HeldStream:
        return HeldStream(identity, int(self.now * 1000), 600)

    async def used(self, month: str = NOVEMBER) -> tuple[int, int]:
        [use] = await self.store.usage_of("b", [month])
        return use.calls, use.ms


@pytest.fixture
def process() -> Process:
    return Process()


# ------------------------------------------------------------------------ minutes


async def test_a_live_streams_time_is_told_as_it_goes_by(process: Process) -> None:
    identity = await process.live()
    for expected in (6_000, 12_000):
        process.now += 6
        await process.registry.note_usage()
        await process.registry.note_usage()
        assert await process.used() == (0, expected)
    process.now += 1.5
    await process.registry.finish(identity)
    process.now += 30
    await process.registry.note_usage()
    await process.registry.finish(identity)
    await process.registry.note_usage()
    assert await process.used() == (0, 13_500)


async def test_a_stream_over_the_end_of_a_month_counts_in_both(process: Process) -> None:
    identity = await process.live()
    process.now += 59
    await process.registry.note_usage()
    process.now += 6
    await process.registry.finish(identity)
    await process.registry.note_usage()
    assert await process.used(NOVEMBER) == (0, 60_000)
    assert await process.used(DECEMBER) == (0, 5_000)


async def test_time_while_the_store_is_away_is_told_when_it_is_back(process: Process) -> None:
    first, _ = await process.live(1), await process.live(2)
    process.away_store.away = True
    process.now += 10
    await process.registry.finish(first)
    with pytest.raises(StoreUnavailable):
        await process.registry.note_usage()
    process.now += 90
    process.away_store.away = False
    await process.registry.note_usage()
    assert await process.used(NOVEMBER) == (0, 70_000)
    assert await process.used(DECEMBER) == (0, 40_000)


async def test_a_holder_that_goes_on_after_another_was_told_counts_nothing_twice(
    process: Process,
) -> None:
    identity = await process.live()
    twin = Process(process.store)
    await twin.registry.begin(process.held(identity), lambda reason: None)
    for holder in (process, twin):
        holder.now += 8
        await holder.registry.note_usage()
    assert await process.used() == (0, 8_000)


async def test_more_streams_and_calls_than_a_note_takes_are_told_in_several(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metering, "AT_A_TIME", 2)
    process.away_store.away = True
    for number in range(5):
        await process.call(f"CA{number}", limits={})
        await process.live(number)
    process.away_store.away = False
    process.now += 1
    await process.registry.note_usage()
    assert await process.used() == (5, 5_000)


async def test_what_waits_for_the_store_is_bounded_and_its_loss_counted(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metering, "MAX_WAITING", 3)
    process.away_store.away = True
    for number in range(5):
        await process.call(f"CA{number}", limits={})
    process.away_store.away = False
    await process.registry.note_usage()
    assert await process.used() == (3, 0)
    assert b"bridge_usage_lost_total 2.0" in process.metrics.exposition()


async def test_a_stream_that_ends_while_it_is_told_of_is_told_of_to_its_end(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    identity = await process.live()
    process.now += 5
    note_usage = process.store.note_usage

    async def slowly(*place: Any, **said: Any) -> tuple[MonthOfUse, list[Crossing]]:
        noted = await note_usage(*place, **said)
        process.now += 1
        await process.registry.finish(identity)
        return noted

    monkeypatch.setattr(process.store, "note_usage", slowly)
    await process.registry.note_usage()
    monkeypatch.undo()
    await process.registry.note_usage()
    assert await process.used() == (0, 6_000)


# -------------------------------------------------------------------------- calls


async def test_a_call_counts_once_however_often_it_asks(process: Process) -> None:
    for _ in range(3):
        await process.call("CA1")
    await process.registry.release("b", "CA1")
    await process.call("CA1")
    await process.registry.note_usage()
    assert await process.used() == (1, 0)


async def test_calls_beyond_the_hard_limit_are_refused(process: Process) -> None:
    await process.call("CA1")
    await process.call("CA2")
    with pytest.raises(MonthlyLimitReached):
        await process.call("CA3")
    await process.call("CA2")


async def test_calls_taken_while_the_store_is_away_count_when_it_is_back(
    process: Process,
) -> None:
    process.away_store.away = True
    for call in ("CA1", "CA1", "CA2"):
        await process.call(call)
    with pytest.raises(MonthlyLimitReached):
        await process.call("CA3")
    process.away_store.away = False
    await process.call("CA2")
    await process.registry.note_usage()
    assert await process.used() == (2, 0)


async def test_with_the_store_away_the_month_goes_on_from_what_is_known(
    process: Process,
) -> None:
    await process.call("CA1")
    await process.registry.note_usage()
    process.away_store.away = True
    await process.call("CA2")
    with pytest.raises(MonthlyLimitReached):
        await process.call("CA3")
    process.now += 60
    await process.call("CA3")  # it is December


async def test_with_the_store_away_minutes_go_on_from_what_is_known(process: Process) -> None:
    await process.live()
    process.now += 5
    await process.registry.note_usage()
    process.away_store.away = True
    half_a_minute = {Limit.MINUTES_HARD: 0.5}
    process.now += 24
    await process.call("CA2", limits=half_a_minute)
    process.now += 1
    with pytest.raises(MonthlyLimitReached):
        await process.call("CA3", limits=half_a_minute)


@pytest.mark.parametrize("away_at_url", [False, True])
@pytest.mark.parametrize("away_at_start", [False, True])
async def test_a_call_under_a_made_up_id_counts_once(
    process: Process, away_at_url: bool, away_at_start: bool
) -> None:
    process.away_store.away = away_at_url
    await process.call("url-1", limits={Limit.CALLS_HARD: 1.0})
    process.away_store.away = away_at_start
    await process.call("CA1", takes_over="url-1", limits={Limit.CALLS_HARD: 1.0})
    process.away_store.away = False
    await process.registry.note_usage()
    assert await process.used() == (1, 0)


# -------------------------------------------------------------------- soft limits


async def test_a_soft_limit_is_told_once_over_all_replicas(
    redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    url = await emptied(redis_url)
    stores = [RedisStore.from_url(url, timeout_seconds=PATIENT) for _ in range(2)]
    one, two = (Process(store) for store in stores)
    await stores[0].load_if_empty(DIRECTORY)
    try:
        with caplog.at_level(logging.WARNING, "app.registry.metering"):
            for number in range(6):
                await (one, two)[number % 2].call(f"CA{number}", limits={})
            for process in (one, two, one):
                await process.registry.note_usage()
        assert one.crossed + two.crossed == [("b", NOVEMBER, Limit.CALLS_SOFT)]
        assert len(caplog.records) == 1
        identity = await two.live()
        two.now += 59.999
        await two.registry.note_usage()
        assert two.crossed == []
        two.now += 0.001
        await two.registry.finish(identity)
        await two.registry.note_usage()
        assert two.crossed == [("b", NOVEMBER, Limit.MINUTES_SOFT)]
    finally:
        for store in stores:
            await store.close()


async def test_a_limit_that_could_not_be_noted_is_noted_later(process: Process) -> None:
    await process.store.load_if_empty(DIRECTORY)
    for call in ("CA1", "CA2"):
        await process.call(call, limits={})
    process.away_store.away = True
    with pytest.raises(StoreUnavailable):
        await process.registry.note_usage()
    process.away_store.away = False
    await process.registry.note_usage()
    assert process.crossed == [("b", NOVEMBER, Limit.CALLS_SOFT)]


async def test_an_unknown_business_has_no_limits_and_is_counted(process: Process) -> None:
    await process.live(business="b")
    process.now += 1
    await process.registry.note_usage()
    assert process.crossed == []
    assert await process.used() == (0, 1_000)


# -------------------------------------------------------------------- ended calls


async def test_an_ended_call_ends_all_its_streams_and_no_other(process: Process) -> None:
    ended: list[str] = []
    for stream, call, business in (("MZ1", "CA1", "b"), ("MZ2", "CA1", "c"), ("MZ3", "CA2", "b")):
        identity = CallIdentity(call, stream, business, "plan", "twilio")

        def end(reason: EndReason, stream: str = stream) -> None:
            ended.append(f"{stream} {reason}")

        await process.registry.begin(process.held(identity), end)
    process.registry.end_call("b", "CA1")
    process.registry.end_call("b", "CA-unheard-of")
    assert ended == ["MZ1 ended_by_admin"]
