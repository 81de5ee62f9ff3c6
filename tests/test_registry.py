"""Limits and live streams of one process, with the store there and with it away."""

import asyncio
import math
from collections.abc import Collection
from contextlib import suppress
from functools import partial

import pytest

from app.errors import (
    BusinessMismatch,
    CallRateExceeded,
    Draining,
    PlanLimitReached,
    ProcessFull,
    StoreUnavailable,
    StreamAlreadyLive,
    TooManyStreams,
)
from app.events import CallIdentity, EndReason, HeldStream
from app.metrics import Metrics
from app.registry import STREAMS_KEPT_OF_CALL, Registry
from app.registry.slots import RESERVED_SECONDS
from app.store.base import LIVE_SECONDS, CallEnd, SlotAnswer, StreamClaim
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
        stream_sid: str = "",
    ) -> SlotAnswer:
        if self.away:
            raise StoreUnavailable("away")
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

    async def free_slot(
        self, business_id: str, call_sid: str, ended: CallEnd | None = None
    ) -> None:
        if self.away:
            raise StoreUnavailable("away")
        await super().free_slot(business_id, call_sid, ended)

    async def hold_streams(
        self, streams: Collection[HeldStream], lease_seconds: float
    ) -> list[tuple[HeldStream, StreamClaim]]:
        if self.away:
            raise StoreUnavailable("away")
        refused = await super().hold_streams(streams, lease_seconds)
        self.held.set()
        return refused

    async def claim_stream(self, held: HeldStream, lease_seconds: float) -> StreamClaim:
        if self.away:
            raise StoreUnavailable("away")
        return await super().claim_stream(held, lease_seconds)

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


class ReplacingStore(MemoryStore):
    """A store in which a replica of 0.1 has opened streams under ids that are held."""

    def __init__(self, clock: Clock, replaced: Collection[str]) -> None:
        super().__init__(clock)
        self.replaced = replaced

    async def replaced_streams(
        self, streams: Collection[HeldStream]
    ) -> list[tuple[HeldStream, StreamClaim]]:
        claim = StreamClaim.OTHER_BUSINESS
        return [(one, claim) for one in streams if one.call.stream_sid in self.replaced]


def nothing(reason: EndReason) -> None:
    """End nothing."""


async def go_live(registry: Registry, number: int, limit: int = 10) -> CallIdentity:
    identity = call(number)
    await registry.claim(held(identity))
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
        await registry.claim(held(identity))
    await registry.disclaim(identity.stream_sid)
    await registry.claim(held(identity))


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
    await registry.disclaim(identity.stream_sid)
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
    await registry.disclaim(identity.stream_sid)
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
    await registry.disclaim(identity.stream_sid)
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


def stream(number: int, call_sid: str = "CA1", business: str = "b") -> HeldStream:
    return held(CallIdentity(call_sid, f"MZ{number}", business, "plan", "twilio"))


@pytest.mark.parametrize("away", [False, True])
async def test_one_call_opens_two_streams_and_no_more(
    store: AwayStore, clock: Clock, away: bool
) -> None:
    registry = Registry(store, Metrics(), max_calls=100, clock=clock)
    store.away = away
    for number in range(2):
        await registry.claim(stream(number))
        await registry.begin(stream(number), nothing)
    for number in range(2, 50):
        with pytest.raises(TooManyStreams):
            await registry.claim(stream(number))
    assert registry.live_count == 2
    await registry.claim(stream(50, "CA2"))
    await registry.claim(stream(51, business="other"))
    # It has ended, and the last of its audio waits for the broker.
    await registry.finish(stream(0).call)
    await registry.claim(stream(52))
    with pytest.raises(TooManyStreams):
        await registry.claim(stream(53))
    await registry.disclaim("MZ52")
    await registry.claim(stream(54))


async def test_ended_streams_of_one_call_that_wait_for_the_broker_take_few_places(
    store: AwayStore, clock: Clock
) -> None:
    registry = Registry(store, Metrics(), max_calls=100, clock=clock)
    for number in range(STREAMS_KEPT_OF_CALL):
        await registry.claim(stream(number))
        await registry.finish(stream(number).call)
    with pytest.raises(TooManyStreams):
        await registry.claim(stream(50))
    await registry.claim(stream(51, "CA2"))
    # The broker has one of them.
    await registry.disclaim("MZ0")
    await registry.claim(stream(50))


async def test_one_call_opens_two_streams_over_all_replicas(store: AwayStore, clock: Clock) -> None:
    replicas = [Registry(store, Metrics(), max_calls=100, clock=clock) for _ in range(3)]
    opened = 0
    for number, replica in enumerate(replicas):
        with suppress(TooManyStreams):
            await replica.claim(stream(number))
            await replica.reserve("b", "CA1", 1, stream_sid=f"MZ{number}")
            await replica.begin(stream(number), nothing)
            opened += 1
    assert opened == 2


async def test_one_business_cannot_fill_a_process(store: AwayStore, clock: Clock) -> None:
    registry = Registry(store, Metrics(), max_calls=20, clock=clock)
    for number in range(17):
        await registry.claim(stream(number, f"CA{number}"))
    registry.check_room("b")
    await registry.reserve("b", "CA17", 99)
    with pytest.raises(ProcessFull, match="kept for other businesses"):
        registry.check_room("b")
    registry.check_room("other")
    await registry.claim(stream(17, "CA17"))
    with pytest.raises(ProcessFull, match="kept for other businesses"):
        await registry.claim(stream(18, "CA18"))
    for number in (18, 19):
        await registry.claim(stream(number, f"CA{number}", "other"))
    with pytest.raises(ProcessFull, match="holds 20 calls"):
        await registry.claim(stream(20, "CA20", "third"))


async def test_calls_on_their_way_count_against_the_process(registry: Registry) -> None:
    await go_live(registry, 1)
    for number in (2, 3):
        registry.check_room()
        await registry.reserve("b", f"CA{number}", 10)
    with pytest.raises(ProcessFull):
        registry.check_room()


async def test_no_more_than_max_calls_are_live(registry: Registry) -> None:
    for number in (1, 2, 3):
        await registry.claim(held(call(number)))
    with pytest.raises(ProcessFull):
        await registry.claim(held(call(4)))


async def test_a_drain_refuses_new_calls_and_ends_live_ones_when_told(
    registry: Registry,
) -> None:
    ended: list[EndReason] = []
    identity = call(1)
    await registry.claim(held(identity))
    await registry.begin(held(identity), ended.append)
    registry.refuse_new_calls()
    with pytest.raises(Draining):
        registry.check_room()
    assert not await registry.wait_until_empty(0.01)
    registry.end_all(EndReason.DRAIN)
    assert ended == [EndReason.DRAIN]
    await registry.disclaim(identity.stream_sid)
    assert await registry.wait_until_empty(0.01)


# ---------------------------------------------------------------- claims over replicas


@pytest.fixture
def other(store: AwayStore, clock: Clock) -> Registry:
    """Return the registry of another replica on the same store."""
    return Registry(store, Metrics(), max_calls=3, clock=clock)


def later(number: int, business: str = "b") -> HeldStream:
    return HeldStream(call(number, business), 1_700_000_000_001, 600)


@pytest.mark.parametrize("where", ["here", "elsewhere"])
async def test_an_id_that_another_socket_holds_is_refused(
    registry: Registry, other: Registry, where: str
) -> None:
    assert await registry.claim(held(call(1)))
    second = registry if where == "here" else other
    with pytest.raises(StreamAlreadyLive):
        await second.claim(later(1))
    with pytest.raises(BusinessMismatch):
        await second.claim(later(1, "another"))
    assert registry.live_count == 1
    assert other.live_count == 0
    await registry.disclaim("MZ1")
    assert await second.claim(later(1, "another"))


async def test_a_refused_claim_takes_nothing_from_its_holder(
    registry: Registry, other: Registry, store: AwayStore
) -> None:
    await registry.claim(held(call(1)))
    with pytest.raises(BusinessMismatch):
        await other.claim(later(1, "another"))
    await other.disclaim("MZ1")
    await other.let_go_of_ended()
    assert await store.held_streams() == [held(call(1))]
    with pytest.raises(StreamAlreadyLive):
        await other.claim(later(1))


async def test_with_the_store_away_the_process_claims_by_itself(
    registry: Registry, store: AwayStore
) -> None:
    store.away = True
    assert await registry.claim(held(call(1))) is False
    with pytest.raises(StreamAlreadyLive):
        await registry.claim(later(1))
    with pytest.raises(BusinessMismatch):
        await registry.claim(later(1, "another"))


async def test_a_stream_that_was_claimed_alone_ends_when_the_store_knows_another_holder(
    registry: Registry,
    other: Registry,
    store: AwayStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ended: dict[str, EndReason] = {}
    await other.claim(later(1))
    await other.claim(later(2, "another"))
    store.away = True
    for number in (1, 2):
        await registry.claim(held(call(number)))
        end = partial(ended.__setitem__, f"MZ{number}")
        await registry.begin(held(call(number)), end)
    store.away = False
    monkeypatch.setattr("app.registry.RENEW_SECONDS", 0.01)
    keeping = asyncio.create_task(registry.keep_leases())
    await until(lambda: len(ended) == 2)
    assert ended == {"MZ1": EndReason.ALREADY_LIVE, "MZ2": EndReason.BUSINESS_MISMATCH}
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)
    assert await store.held_streams() == [later(1), later(2, "another")]


async def test_the_end_of_a_stream_that_lives_elsewhere_keeps_its_calls_slot(
    registry: Registry, store: AwayStore
) -> None:
    identity = await go_live(registry, 1, limit=1)
    await registry.finish(identity, lives_elsewhere=True)
    assert await store.slots_taken("b") == 1
    assert await store.live_stream("b", "CA1") == "MZ1"


async def test_keeps_as_many_reservations_of_a_business_as_its_plan_has_calls(
    registry: Registry, store: AwayStore
) -> None:
    """Its calls are released at another replica, so that the store has room for more."""
    for number in range(20):
        await registry.reserve("a", f"CA{number}", 2)
        await store.free_slot("a", f"CA{number}")
    registry.check_room()
    await registry.reserve("b", "CA1", 2)
    with pytest.raises(ProcessFull):
        registry.check_room()


async def test_holds_a_business_to_its_plan_beside_an_absent_store_after_released_calls(
    registry: Registry, store: AwayStore
) -> None:
    for number in range(20):
        await registry.reserve("a", f"CA{number}", 2)
        await store.free_slot("a", f"CA{number}")
    store.away = True
    await registry.reserve("a", "CA19", 2)
    with pytest.raises(PlanLimitReached):
        await registry.reserve("a", "CA20", 2)


async def test_ends_a_stream_whose_record_is_another_businesss(clock: Clock) -> None:
    registry = Registry(ReplacingStore(clock, {"MZ1"}), Metrics(), max_calls=3, clock=clock)
    ended: list[tuple[int, EndReason]] = []
    for number in (1, 2):
        stream = held(call(number))
        await registry.claim(stream)
        await registry.begin(stream, lambda reason, number=number: ended.append((number, reason)))
    leases = asyncio.create_task(registry.keep_leases())
    await until(lambda: ended)
    leases.cancel()
    assert ended == [(1, EndReason.BUSINESS_MISMATCH)]
