"""The writer: in order and exactly once, whatever the broker answers."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import pytest

from app.errors import BrokerLost, BrokerRefused
from app.events import AudioEntry, CallIdentity, EndEntry, Entry, GapEntry, LifecycleEvent
from app.media import Track
from app.metrics import Metrics
from app.pubsub.base import Append, Field, Outcome, PubSub, Write, audio_key
from app.pubsub.limits import OutboxLimits
from app.pubsub.memory import MemoryPubSub
from app.pubsub.outbox import Outbox
from app.pubsub.queue import StreamQueue
from app.pubsub.redis_streams import RedisStreams
from tests.samples import a_record, an_event
from tests.waiting import WAIT_SECONDS, until

START = 1_700_000_000_000
QUICK = OutboxLimits(retry_first_seconds=0.001, retry_longest_seconds=0.01)

Fault = Callable[[Sequence[Write]], Awaitable[None]]


class Faulty(MemoryPubSub):
    """A broker that fails as told: before it writes, or after and without a word."""

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__(time.monotonic)
        self._faults = list(faults)
        self.batches: list[int] = []

    async def write(self, batch: Sequence[Write]) -> Sequence[Outcome]:
        fault = self._faults.pop(0) if self._faults else ""
        self.batches.append(len(batch))
        if fault == "refuse":
            raise BrokerRefused("readonly")
        if fault == "lose before":
            raise BrokerLost("connection")
        outcomes = await super().write(batch)
        if fault == "lose after":
            raise BrokerLost("timeout")
        if fault == "crash":
            raise ZeroDivisionError
        return outcomes

    def stored(self, stream: str) -> list[tuple[tuple[int, int], dict[str, Field]]]:
        return list(self._streams[audio_key(stream)].entries)


@asynccontextmanager
async def running(
    pubsub: PubSub, limits: OutboxLimits = QUICK, clock: Callable[[], float] = time.monotonic
) -> AsyncIterator[Outbox]:
    outbox = Outbox(pubsub, Metrics(), clock=clock, jitter=random.Random(1).random, limits=limits)
    writer = asyncio.create_task(outbox.run())
    try:
        yield outbox
    finally:
        writer.cancel()
        await asyncio.gather(writer, return_exceptions=True)


def opened(outbox: Outbox, stream: str) -> StreamQueue:
    queue = outbox.queue(stream, START, bytes_per_second=16000, tracks=1, retained=10_000)
    outbox.open_stream(queue, a_record(START), 60)
    return queue


def put(queue: StreamQueue, seqs: Sequence[int]) -> None:
    for seq in seqs:
        queue.put_audio(seq, 20 * seq, Track.INBOUND, seq.to_bytes(4, "big"), 1, time.monotonic())


async def flushed(queue: StreamQueue) -> None:
    async with asyncio.timeout(WAIT_SECONDS):
        await queue.wait_until_flushed()


async def entries(pubsub: PubSub, stream: str) -> list[Entry]:
    async with asyncio.timeout(WAIT_SECONDS):
        return [entry async for _, entry in pubsub.entries(stream)]


def seqs_of(found: Sequence[Entry]) -> list[int]:
    return [entry.seq for entry in found if isinstance(entry, AudioEntry)]


@pytest.mark.parametrize(
    "faults",
    [
        [],
        ["refuse"] * 5,
        ["lose before", "lose before"],
        ["lose after", "lose after", "lose after"],
        ["", "lose after", "refuse", "lose before", "lose after", "crash", "refuse"],
    ],
)
async def test_every_entry_stands_once_and_in_order_after_any_fault(faults: list[str]) -> None:
    pubsub = Faulty(faults)
    async with running(pubsub) as outbox:
        queue = opened(outbox, "MZ1")
        for first in range(0, 300, 10):
            put(queue, range(first, first + 10))
            await asyncio.sleep(0)
        queue.put_end("stop")
        await flushed(queue)
    assert seqs_of(await entries(pubsub, "MZ1")) == list(range(300))
    assert queue.published == 300
    assert not queue.dropped


async def test_after_an_end_by_another_writer_a_live_holder_continues_above_it() -> None:
    pubsub = Faulty([])
    async with running(pubsub) as outbox:
        queue = opened(outbox, "MZ1")
        put(queue, [1])
        await flushed(queue)
        await pubsub.write([Append("MZ1", START + 9, 1, EndEntry(1, "lost"), 100)])
        put(queue, [2, 3])
        queue.put_end("stop")
        await flushed(queue)
    ids = [entry_id for entry_id, _ in pubsub.stored("MZ1")]
    assert ids == [(START, 1), *((START + 9, n) for n in (1, 2, 3, 4))]
    assert queue.published == 3


async def test_an_entry_that_could_only_be_written_out_of_order_is_dropped_and_counted() -> None:
    pubsub = Faulty([])
    async with running(pubsub) as outbox:
        queue = opened(outbox, "MZ1")
        put(queue, [1])
        await flushed(queue)
        await pubsub.write([Append("MZ1", START, 2, EndEntry(2, "lost"), 100)])
        put(queue, [2, 3])
        queue.put_end("stop")
        await flushed(queue)
    assert (queue.published, queue.dropped) == (2, {"broker_rejected": 1})


async def test_a_stream_is_opened_before_its_audio_and_its_event_comes_after() -> None:
    written: list[str] = []

    class Recording(MemoryPubSub):
        async def write(self, batch: Sequence[Write]) -> Sequence[Outcome]:
            written.extend(type(write).__name__ for write in batch)
            return await super().write(batch)

    pubsub = Recording(time.monotonic)
    async with running(pubsub) as outbox:
        queue = outbox.queue("MZ1", START, bytes_per_second=16000, tracks=1, retained=100)
        put(queue, [1])
        await asyncio.sleep(0.05)
        assert written == []
        outbox.open_stream(queue, a_record(START), 60)
        outbox.announce(an_event("e1", "stream.started"))
        await flushed(queue)
    assert written == ["OpenStream", "NoteCall", "ListCall", "Announce", "Append"]


async def test_while_the_broker_is_away_the_oldest_audio_goes_and_is_accounted_for() -> None:
    pubsub = Faulty(["", *["refuse"] * 100])
    limits = OutboxLimits(
        buffer_seconds=1.0,
        entries_per_second=50,
        retry_first_seconds=0.001,
        retry_longest_seconds=0.005,
    )
    async with running(pubsub, limits) as outbox:
        queue = opened(outbox, "MZ1")
        await until(lambda: pubsub.batches)
        put(queue, range(200))
        queue.put_end("stop")
        await flushed(queue)
    found = await entries(pubsub, "MZ1")
    gap_frames = sum(entry.frames for entry in found if isinstance(entry, GapEntry))
    assert gap_frames == queue.dropped["overflow"] > 0
    assert len(seqs_of(found)) == queue.published
    assert queue.published + gap_frames == 200


async def test_one_stream_does_not_starve_another() -> None:
    pubsub = Faulty([])
    limits = OutboxLimits(batch_entries=16, entries_per_stream=4)
    async with running(pubsub, limits) as outbox:
        busy, quiet = opened(outbox, "MZ1"), opened(outbox, "MZ2")
        put(busy, range(1000))
        put(quiet, [1])
        await flushed(quiet)
        assert busy.published < 1000
        await flushed(busy)


async def test_events_have_a_budget_of_their_own() -> None:
    pubsub = Faulty(["refuse"] * 1000)
    limits = OutboxLimits(max_events=3, retry_first_seconds=0.01)
    async with running(pubsub, limits) as outbox:
        assert outbox.takes_events
        for number in range(4):
            outbox.announce(an_event(str(number)))
        assert not outbox.takes_events


def event_of(business_id: str, number: int, name: str) -> LifecycleEvent:
    call = CallIdentity(f"CA{number}", business_id=business_id)
    return LifecycleEvent(name, f"{business_id}-{name}-{number}", START, call, {})


async def announced_by(pubsub: PubSub, last: str) -> list[LifecycleEvent]:
    """Return the events of `calls`, up to the one with this id."""
    found = []
    async with asyncio.timeout(WAIT_SECONDS):
        async for event in pubsub.lifecycle():
            found.append(event)
            if event.event_id == last:
                break
    return found


async def test_a_business_that_floods_leaves_room_for_the_events_of_others() -> None:
    pubsub = Faulty(["refuse"] * 1_000_000)
    limits = OutboxLimits(max_events=12, retry_first_seconds=0.01)
    async with running(pubsub, limits) as outbox:
        for number in range(500):
            outbox.announce(event_of("a", number, "stream.dtmf"))
        assert not outbox.takes_events_of("a")
        assert outbox.takes_events_of("b")
        assert outbox.takes_events
        for number in range(500):
            outbox.announce(event_of("b", number, "stream.mark"))
        assert not outbox.takes_events_of("b")
        assert outbox.takes_events_of("c")


async def test_refused_calls_of_nobody_leave_room_for_the_events_of_businesses() -> None:
    pubsub = Faulty(["refuse"] * 1_000_000)
    limits = OutboxLimits(max_events=12, retry_first_seconds=0.01)
    async with running(pubsub, limits) as outbox:
        for number in range(500):
            if outbox.takes_events_of(""):
                outbox.announce(event_of("", number, "call.rejected"))
        assert not outbox.takes_events_of("")
        assert outbox.takes_events_of("a")


@pytest.mark.parametrize(
    "name",
    ["stream.dtmf", "stream.mark", "stream.played", "stream.cleared", "stream.error"],
)
async def test_events_beyond_a_businesss_part_are_dropped_and_reported(name: str) -> None:
    pubsub = Faulty(["refuse"] * 3)
    limits = OutboxLimits(max_events=12, retry_first_seconds=0.01)
    async with running(pubsub, limits) as outbox:
        for number in range(500):
            outbox.announce(event_of("a", number, name))
        outbox.announce(event_of("a", 1, "stream.stopped"))
        outbox.announce(event_of("b", 1, name))
        await outbox.wait_until_idle()
        outbox.announce(event_of("a", 501, name))
        found = await announced_by(pubsub, f"a-{name}-501")
    waited = [event for event in found if event.call.business_id == "a" and event.name == name]
    (report,) = [event for event in found if event.name == "events.dropped"]
    assert report.call == CallIdentity(business_id="a")
    assert report.data == {"count": 501 - len(waited), "events": {name: 501 - len(waited)}}
    assert 1 < len(waited) <= 12
    assert event_of("b", 1, name) in found


async def test_what_begins_or_ends_a_call_is_never_dropped() -> None:
    pubsub = Faulty(["refuse"] * 3)
    limits = OutboxLimits(max_events=4, retry_first_seconds=0.01)
    names = ["call.incoming", "stream.started", "stream.stopped"]
    async with running(pubsub, limits) as outbox:
        for number in range(20):
            outbox.announce(event_of("a", number, "stream.dtmf"))
            outbox.announce(event_of("a", number, names[number % 3]))
        await outbox.wait_until_idle()
        found = await announced_by(pubsub, f"a-{names[19 % 3]}-19")
        assert outbox.takes_events_of("a")
    kept = [event.event_id for event in found if event.name in names]
    assert kept == [f"a-{names[number % 3]}-{number}" for number in range(20)]


async def test_every_event_gives_its_room_back() -> None:
    pubsub = Faulty([])
    limits = OutboxLimits(max_events=4, retry_first_seconds=0.01)
    async with running(pubsub, limits) as outbox:
        for number in range(50):
            outbox.announce(event_of("a", number, "call.rejected"))
            outbox.announce(LifecycleEvent("call.rejected", f"{number}", START, CallIdentity(), {}))
            await outbox.wait_until_idle()
        assert outbox.takes_events_of("a")
        assert outbox.takes_events


async def test_batches_shrink_when_replies_are_lost_and_grow_again() -> None:
    pubsub = Faulty(["", "lose before", "lose before", "lose before"])
    async with running(pubsub) as outbox:
        queue = opened(outbox, "MZ1")
        await until(lambda: pubsub.batches)
        put(queue, range(1000))
        await flushed(queue)
    assert pubsub.batches[1] == 64  # what one stream may put into a batch
    assert min(pubsub.batches[1:]) >= 8


async def test_real_redis_gets_each_entry_once_though_replies_are_lost(redis_url: str) -> None:
    faults = iter(random.Random(7).choices(["", "lose"], k=10_000))

    class Swallowing(RedisStreams):
        async def write(self, batch: Sequence[Write]) -> Sequence[Outcome]:
            outcomes = await super().write(batch)
            if next(faults) == "lose":
                raise BrokerLost("connection")
            return outcomes

    pubsub = Swallowing(redis_url)
    async with running(pubsub) as outbox:
        queues = [opened(outbox, f"MZ-lossy-{number}") for number in range(5)]
        for first in range(0, 500, 5):
            for queue in queues:
                put(queue, range(first, first + 5))
            await asyncio.sleep(0.001)
        for queue in queues:
            queue.put_end("stop")
            await flushed(queue)
    for queue in queues:
        assert seqs_of(await entries(pubsub, queue.stream)) == list(range(500))
        assert queue.published == 500
    await pubsub.close()
