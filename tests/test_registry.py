"""Limits and live streams of one process, with the store there and with it away."""

import asyncio
import math
from collections.abc import Collection

import pytest

from app.errors import (
    CallRateExceeded,
    Draining,
    PlanLimitReached,
    ProcessFull,
    StoreUnavailable,
    StreamAlreadyLive,
)
from app.events import CallIdentity, EndReason, HeldStream
from app.metrics import Metrics
from app.registry import Registry
from app.registry.slots import RESERVED_SECONDS
from app.store.base import LIVE_SECONDS, CallEnd, SlotAnswer
from app.store.memory import MemoryStore
from app.store.usage import Counting
from tests.waiting import WAIT_SECONDS, until


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class AwayStore(MemoryStore):
    """A store that can be taken away and brought back."""

    away = False

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.held = asyncio.Event()

    async def take_slot(
        self,
        business_id: str,
        call_sid: str,
        limit: int,
        lease_seconds: float,
        per_second: float = math.inf,
        counting: Counting | None = None,
        refused_after: CallEnd | None = None,
    ) -> SlotAnswer:
        if self.away:
            raise StoreUnavailable("away")
        return await super().take_slot(
            business_id, call_sid, limit, lease_seconds, per_second, counting, refused_after
        )

    async def free_slot(
        self, business_id: str, call_sid: str, ended: CallEnd | None = None
    ) -> None:
        if self.away:
            raise StoreUnavailable("away")
        await super().free_slot(business_id, call_sid, ended)

    async def hold_streams(self, streams: Collection[HeldStream], lease_seconds: float) -> None:
        await super().hold_streams(streams, lease_seconds)
        self.held.set()

    async def let_go(self, streams: Collection[HeldStream]) -> None:
        if self.away:
            raise StoreUnavailable("away")
        self.held.clear()
        await super().let_go(streams)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(clock: Clock) -> AwayStore:
    return AwayStore(clock)


@pytest.fixture
def registry(store: AwayStore, clock: Clock) -> Registry:
    return Registry(store, Metrics(), max_calls=3, clock=clock)


def call(number: int, business: str = "b") -> CallIdentity:
    return CallIdentity(f"CA{number}", f"MZ{number}", business, "plan", "twilio")


def held(identity: CallIdentity) -> HeldStream:
    return HeldStream(identity, 1_700_000_000_000, 600)


def nothing(reason: EndReason) -> None:
    """End nothing."""


async def go_live(registry: Registry, number: int, limit: int = 10) -> CallIdentity:
    identity = call(number)
    registry.claim(identity.stream_sid)
    await registry.reserve(identity.business_id, identity.call_sid, limit)
    await registry.begin(held(identity), nothing)
    return identity


async def test_a_slot_is_held_once_for_a_call_that_asks_twice(registry: Registry) -> None:
    for _ in range(3):
        await registry.reserve("b", "CA1", 1)
    with pytest.raises(PlanLimitReached):
        await registry.reserve("b", "CA2", 1)


async def test_a_released_slot_is_free_for_another_call(registry: Registry) -> None:
    await registry.reserve("b", "CA1", 1)
    await registry.release("b", "CA1")
    await registry.reserve("b", "CA2", 1)


async def test_a_live_calls_slot_is_not_released_by_a_callback(registry: Registry) -> None:
    await go_live(registry, 1, limit=1)
    await registry.release("b", "CA1")
    with pytest.raises(PlanLimitReached):
        await registry.reserve("b", "CA2", 1)


async def test_a_streams_end_frees_the_slot_before_its_id(registry: Registry) -> None:
    identity = await go_live(registry, 1, limit=1)
    await registry.finish(identity)
    await registry.reserve("b", "CA2", 1)
    with pytest.raises(StreamAlreadyLive):
        registry.claim(identity.stream_sid)
    registry.disclaim(identity.stream_sid)
    registry.claim(identity.stream_sid)


async def leases(store: AwayStore, clock: Clock) -> list[HeldStream]:
    """Tell which leases there are, by letting each run out."""
    for _ in range(3):
        await store.claim_lost_streams(0, LIVE_SECONDS, 0)
        clock.now += LIVE_SECONDS / 2
    return await store.claim_lost_streams(10, LIVE_SECONDS, 0)


async def test_a_streams_lease_is_held_until_its_id_is_free_again(
    registry: Registry, store: AwayStore, clock: Clock
) -> None:
    identity = await go_live(registry, 1)
    await registry.finish(identity)
    await registry.let_go_of_ended()
    assert registry.holds(held(identity))
    assert await leases(store, clock) == [held(identity)]
    registry.disclaim(identity.stream_sid)
    await registry.let_go_of_ended()
    assert not registry.holds(held(identity))
    assert await leases(store, clock) == []


async def test_a_streams_lease_is_held_from_its_beginning(
    registry: Registry, store: AwayStore, clock: Clock
) -> None:
    identity = await go_live(registry, 1)
    assert await leases(store, clock) == [held(identity)]


async def test_leases_that_the_store_did_not_take_back_are_given_up_later(
    registry: Registry, store: AwayStore, clock: Clock
) -> None:
    identity = await go_live(registry, 1)
    registry.disclaim(identity.stream_sid)
    store.away = True
    with pytest.raises(StoreUnavailable):
        await registry.let_go_of_ended()
    assert registry.holds(held(identity))
    store.away = False
    await registry.let_go_of_ended()
    assert await leases(store, clock) == []


async def test_leases_are_renewed_and_given_up_as_time_goes_by(
    registry: Registry, store: AwayStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.registry.RENEW_SECONDS", 0.01)
    identity = await go_live(registry, 1)
    await store.let_go([held(identity)])
    keeping = asyncio.create_task(registry.keep_leases())
    await asyncio.wait_for(store.held.wait(), WAIT_SECONDS)
    registry.disclaim(identity.stream_sid)
    await until(lambda: not registry.holds(held(identity)))
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)


async def test_with_the_store_away_the_process_holds_the_limit_by_itself(
    registry: Registry, store: AwayStore
) -> None:
    await go_live(registry, 1, limit=2)
    store.away = True
    await registry.reserve("b", "CA1", 2)
    await registry.reserve("b", "CA2", 2)
    with pytest.raises(PlanLimitReached):
        await registry.reserve("b", "CA3", 2)
    await registry.reserve("other", "CA4", 1)


async def test_calls_faster_than_the_pace_are_refused(registry: Registry) -> None:
    for _ in range(2):
        await registry.reserve("b", "CA1", 9, 1.0)
    with pytest.raises(CallRateExceeded):
        await registry.reserve("b", "CA2", 9, 1.0)
    await registry.reserve("other", "CA3", 9, 1.0)


async def test_with_the_store_away_the_process_keeps_the_pace_by_itself(
    registry: Registry, store: AwayStore, clock: Clock
) -> None:
    await registry.reserve("b", "CA1", 9, 2.0)
    await registry.reserve("b", "CA2", 9)  # without a pace: not counted, and nothing forgotten
    store.away = True
    await registry.reserve("b", "CA1", 9, 2.0)
    await registry.reserve("b", "CA3", 9, 2.0)
    with pytest.raises(CallRateExceeded):
        await registry.reserve("b", "CA4", 9, 2.0)
    clock.now += 1
    await registry.reserve("b", "CA4", 9, 2.0)


async def test_with_the_store_away_a_reservation_runs_out_too(
    registry: Registry, store: AwayStore, clock: Clock
) -> None:
    store.away = True
    await registry.reserve("b", "CA1", 1)
    clock.now += RESERVED_SECONDS + 1
    await registry.reserve("b", "CA2", 1)


async def test_calls_on_their_way_count_against_the_process(registry: Registry) -> None:
    await go_live(registry, 1)
    for number in (2, 3):
        registry.check_room()
        await registry.reserve("b", f"CA{number}", 10)
    with pytest.raises(ProcessFull):
        registry.check_room()


async def test_no_more_than_max_calls_are_live(registry: Registry) -> None:
    for number in (1, 2, 3):
        registry.claim(f"MZ{number}")
    with pytest.raises(ProcessFull):
        registry.claim("MZ4")


async def test_a_drain_refuses_new_calls_and_ends_live_ones_when_told(
    registry: Registry,
) -> None:
    ended: list[EndReason] = []
    identity = call(1)
    registry.claim(identity.stream_sid)
    await registry.begin(held(identity), ended.append)
    registry.refuse_new_calls()
    with pytest.raises(Draining):
        registry.check_room()
    assert not await registry.wait_until_empty(0.01)
    registry.end_all(EndReason.DRAIN)
    assert ended == [EndReason.DRAIN]
    registry.disclaim(identity.stream_sid)
    assert await registry.wait_until_empty(0.01)
