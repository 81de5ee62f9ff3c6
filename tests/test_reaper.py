"""Streams whose replica died, ended by one that lives."""

import asyncio
import time
from dataclasses import replace

import pytest

from app.errors import BrokerError, BrokerLost, StoreUnavailable
from app.events import AudioEntry, CallIdentity, EndEntry, Entry, HeldStream
from app.media import Track
from app.metrics import Metrics
from app.pubsub.base import Append, OpenStream
from app.pubsub.memory import MemoryPubSub
from app.reaper import CLAIM_STREAMS, Reaper
from app.store.base import LIVE_SECONDS
from app.store.memory import MemoryStore
from tests.samples import a_record
from tests.waiting import WAIT_SECONDS

START = 1_700_000_000_000


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class FailingPubSub(MemoryPubSub):
    """A broker that fails as often as it is told, before or after it has acted."""

    before = after = 0

    async def end_lost(self, held: HeldStream) -> bool:
        if self.before:
            self.before -= 1
            raise BrokerLost("timeout")
        ended = await super().end_lost(held)
        if self.after:
            self.after -= 1
            raise BrokerLost("timeout")
        return ended


class Replicas:
    """A store and a broker, and a reaper of one replica; `ours` are what it holds."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.store = MemoryStore(self.clock)
        self.pubsub = FailingPubSub(self.clock)
        self.metrics = Metrics()
        self.ours: set[HeldStream] = set()
        self.reaper = Reaper(
            self.store, self.pubsub, self.metrics, is_ours=lambda held: held in self.ours
        )

    async def open(self, number: int) -> HeldStream:
        stream = f"MZ{number}"
        held = HeldStream(CallIdentity(f"CA{number}", stream, "b", "p", "twilio"), START, 600)
        entry = AudioEntry(1, 1, 0, Track.INBOUND, b"ab")
        record = replace(a_record(START), call=held.call)
        await self.pubsub.write(
            [OpenStream(stream, record, 600), Append(stream, START, 1, entry, 10)]
        )
        await self.store.hold_streams([held], LIVE_SECONDS)
        return held

    async def run_for(self, seconds: float, *renewed: HeldStream) -> None:
        """Let time pass as it does for replicas that reach the store all along."""
        for _ in range(int(seconds)):
            self.clock.now += 1
            await self.store.hold_streams(renewed, LIVE_SECONDS)
            await self.reaper.sweep()

    async def entries(self, held: HeldStream) -> list[Entry]:
        return [entry async for _, entry in self.pubsub.entries(held.call.stream_sid)]

    async def is_ended(self, held: HeldStream) -> bool:
        return "endedAt" in await self.pubsub.record(held.call.stream_sid)

    def reaped(self) -> float:
        return self.metrics.registry.get_sample_value("bridge_streams_reaped_total") or 0.0


@pytest.fixture
def replicas() -> Replicas:
    return Replicas()


async def test_a_stream_that_nobody_renews_is_ended_once(replicas: Replicas) -> None:
    held = await replicas.open(1)
    await replicas.run_for(3 * LIVE_SECONDS)
    assert (await replicas.entries(held))[-1] == EndEntry(1, "lost")
    assert replicas.reaped() == 1


async def test_a_stream_that_is_renewed_is_left_alone(replicas: Replicas) -> None:
    dead, living = await replicas.open(1), await replicas.open(2)
    await replicas.run_for(3 * LIVE_SECONDS, living)
    assert await replicas.is_ended(dead)
    assert not await replicas.is_ended(living)


async def test_after_a_pause_of_the_store_the_living_have_a_whole_lease(
    replicas: Replicas,
) -> None:
    held = await replicas.open(1)
    await replicas.run_for(LIVE_SECONDS, held)
    replicas.clock.now += 3 * LIVE_SECONDS
    await replicas.reaper.sweep()
    await replicas.run_for(LIVE_SECONDS - 1)
    assert not await replicas.is_ended(held)
    await replicas.run_for(1)
    assert await replicas.is_ended(held)


async def test_a_reaper_never_ends_what_its_own_process_holds(replicas: Replicas) -> None:
    held = await replicas.open(1)
    replicas.ours = {held}
    await replicas.run_for(3 * LIVE_SECONDS)
    assert not await replicas.is_ended(held)
    replicas.ours = set()
    await replicas.run_for(LIVE_SECONDS + 1)
    assert await replicas.is_ended(held)


async def test_all_the_streams_of_a_dead_replica_are_ended_in_one_sweep(
    replicas: Replicas,
) -> None:
    streams = [await replicas.open(number) for number in range(2 * CLAIM_STREAMS + 1)]
    await replicas.run_for(LIVE_SECONDS + 1)
    assert all([await replicas.is_ended(held) for held in streams])
    assert replicas.reaped() == len(streams)


async def test_the_slot_of_a_lost_stream_is_free(replicas: Replicas) -> None:
    held = await replicas.open(1)
    await replicas.store.take_slot("b", "CA1", 1, 1000)
    await replicas.run_for(LIVE_SECONDS + 1)
    assert await replicas.is_ended(held)
    assert await replicas.store.take_slot("b", "CA2", 1, 60)


async def test_a_call_with_another_stream_that_lives_keeps_its_slot(replicas: Replicas) -> None:
    held = await replicas.open(1)
    await replicas.store.take_slot("b", "CA1", 1, 1000)
    await replicas.store.mark_live("b", "CA1", "MZ2", 1000)
    await replicas.run_for(LIVE_SECONDS + 1)
    assert await replicas.is_ended(held)
    assert not await replicas.store.take_slot("b", "CA2", 1, 60)


@pytest.mark.parametrize("when", ["before", "after"])
async def test_an_end_of_which_nothing_is_heard_is_written_again(
    replicas: Replicas, when: str
) -> None:
    held = await replicas.open(1)
    setattr(replicas.pubsub, when, 1)
    with pytest.raises(BrokerError):
        await replicas.run_for(2 * LIVE_SECONDS)
    await replicas.run_for(10)
    assert (await replicas.entries(held)) == [
        AudioEntry(1, 1, 0, Track.INBOUND, b"ab"),
        EndEntry(1, "lost"),
    ]
    assert replicas.reaped() == 1


async def test_a_store_or_broker_that_fails_does_not_end_the_reaper(
    replicas: Replicas, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.reaper.POLL_SECONDS", 0.01)
    failures: list[Exception] = [StoreUnavailable("away"), BrokerLost("timeout")]
    done = asyncio.Event()

    class Failing(MemoryStore):
        async def claim_lost_streams(
            self, limit: int, lease_seconds: float, claim_seconds: float
        ) -> list[HeldStream]:
            if failures:
                raise failures.pop()
            done.set()
            return []

    reaper = Reaper(
        Failing(time.monotonic), replicas.pubsub, replicas.metrics, is_ours=lambda held: False
    )
    running = asyncio.create_task(reaper.run())
    async with asyncio.timeout(WAIT_SECONDS):
        await done.wait()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
