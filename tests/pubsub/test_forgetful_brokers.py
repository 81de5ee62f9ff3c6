"""Brokers that lose what they confirmed, or of which only a part answers."""

import asyncio
import random
import time
from collections.abc import Sequence

import pytest

from app.errors import BrokerLost, BrokerReplaced
from app.events import AudioEntry, EndEntry, GapEntry
from app.media import Track
from app.pubsub.base import CALLS_KEY, Append, CallWrite, OpenStream, Outcome, Write, audio_key
from app.pubsub.memory import MemoryPubSub
from app.pubsub.recent import Recent
from tests.pubsub.test_outbox import START, entries, flushed, opened, put, running, seqs_of
from tests.samples import a_record, an_event
from tests.waiting import WAIT_SECONDS


class Forgetful(MemoryPubSub):
    """A broker that can be replaced by one that lacks the newest entries."""

    promise_seconds = 60.0

    def __init__(self) -> None:
        super().__init__(time.monotonic)
        self._was_replaced = False

    def replace(self, forgets: int | None) -> None:
        """Forget so many entries of each stream; None: everything."""
        self._was_replaced = True
        for key in list(self._streams):
            kept = list(self._streams[key].entries)
            kept = [] if forgets is None else kept[: max(0, len(kept) - forgets)]
            self._streams[key].entries.clear()
            self._streams[key].entries.extend(kept)
            self._streams[key].last = kept[-1][0] if kept else (0, 0)
        if forgets is None:
            self._records.clear()

    def _notice(self) -> None:
        if self._was_replaced:
            self._was_replaced = False
            raise BrokerReplaced("replaced")

    async def write(self, batch: Sequence[Write]) -> Sequence[Outcome]:
        self._notice()
        return await super().write(batch)

    async def still_there(self, lane: int) -> None:
        self._notice()


@pytest.mark.parametrize("forgets", [0, 1, 7, 20])
async def test_what_a_replaced_broker_lacks_is_written_again_in_order(forgets: int) -> None:
    pubsub = Forgetful()
    async with running(pubsub) as outbox:
        queue = opened(outbox, "MZ1")
        put(queue, range(20))
        await flushed(queue)
        pubsub.replace(forgets)
        put(queue, range(20, 40))
        queue.put_end("stop")
        await flushed(queue)
    assert seqs_of(await entries(pubsub, "MZ1")) == list(range(40))
    assert (queue.published, dict(queue.dropped)) == (40, {})


async def test_what_was_found_standing_after_a_lost_reply_is_kept_as_well() -> None:
    class Silent(Forgetful):
        lost = 0

        async def write(self, batch: Sequence[Write]) -> Sequence[Outcome]:
            outcomes = await super().write(batch)
            if self.lost:
                self.lost -= 1
                raise BrokerLost("timeout")
            return outcomes

    pubsub = Silent()
    async with running(pubsub) as outbox:
        queue = opened(outbox, "MZ1")
        put(queue, range(5))
        await flushed(queue)
        pubsub.lost = 1
        put(queue, range(5, 10))
        await flushed(queue)
        put(queue, range(10, 15))
        await flushed(queue)
        pubsub.replace(10)
        put(queue, [15])
        queue.put_end("stop")
        await flushed(queue)
    assert seqs_of(await entries(pubsub, "MZ1")) == list(range(16))


async def test_a_stream_that_has_ended_is_made_whole_though_nothing_more_is_written() -> None:
    pubsub = Forgetful()
    async with running(pubsub) as outbox:
        queue = opened(outbox, "MZ1")
        put(queue, range(20))
        queue.put_end("stop")
        await flushed(queue)
        pubsub.replace(5)
        assert seqs_of(await entries(pubsub, "MZ1")) == list(range(20))


async def test_a_broker_that_has_nothing_gets_the_record_again() -> None:
    pubsub = Forgetful()
    async with running(pubsub) as outbox:
        queue = opened(outbox, "MZ1")
        put(queue, range(3))
        await flushed(queue)
        pubsub.replace(None)
        put(queue, [3])
        await flushed(queue)
        assert (await pubsub.record("MZ1"))["callSid"] == "CA1"
        assert [entry["seq"] for _, entry in pubsub._streams[audio_key("MZ1")].entries] == [
            *range(4)
        ]


async def test_what_is_too_old_to_be_kept_becomes_a_gap_and_is_accounted_for() -> None:
    now = 1000.0
    pubsub = Forgetful()
    async with running(pubsub, clock=lambda: now) as outbox:
        queue = opened(outbox, "MZ1")
        put(queue, range(1, 11))
        await flushed(queue)
        now += pubsub.promise_seconds + 1
        put(queue, [11, 12])
        await flushed(queue)
        pubsub.replace(None)
        put(queue, [13])
        queue.put_end("stop")
        await flushed(queue)
    gap, *audio, end = await entries(pubsub, "MZ1")
    assert isinstance(gap, GapEntry)
    assert (gap.frames, gap.first_seq, gap.last_seq, gap.reason) == (10, 1, 10, "broker_lost")
    assert (seqs_of(audio), end) == ([11, 12, 13], EndEntry(end.n, "stop"))
    assert (queue.published, dict(queue.dropped)) == (3, {"broker_lost": 10})


async def test_what_another_writer_ended_meanwhile_continues_above_that() -> None:
    pubsub = Forgetful()
    async with running(pubsub) as outbox:
        queue = opened(outbox, "MZ1")
        put(queue, range(10))
        await flushed(queue)
        pubsub.replace(5)
        await MemoryPubSub.write(pubsub, [Append("MZ1", START + 9, 1, EndEntry(1, "lost"), 100)])
        put(queue, [10, 11])
        queue.put_end("stop")
        await flushed(queue)
    stored = pubsub._streams[audio_key("MZ1")].entries
    ids = [entry_id for entry_id, _ in stored]
    assert ids == sorted(set(ids))
    assert [fields["seq"] for _, fields in stored if "seq" in fields] == list(range(12))


async def test_of_an_id_that_was_used_again_only_the_last_stream_is_restored() -> None:
    pubsub = Forgetful()
    async with running(pubsub) as outbox:
        for start in (START, START + 1000):
            queue = outbox.queue("MZ1", start, bytes_per_second=16000, tracks=1, retained=100)
            outbox.open_stream(queue, a_record(start), 60)
            put(queue, range(5))
            queue.put_end("stop")
            await flushed(queue)
        pubsub.replace(None)
        assert seqs_of(await entries(pubsub, "MZ1")) == list(range(5))
    ids = {entry_id[0] for entry_id, _ in pubsub._streams[audio_key("MZ1")].entries}
    assert ids == {START + 1000}


class Halved(MemoryPubSub):
    """A broker of two lanes, of whose keys some do not answer now and then."""

    lanes = 2

    def __init__(self, seed: int) -> None:
        super().__init__(time.monotonic)
        self._random = random.Random(seed)
        self.written: list[str] = []

    def lane_of(self, key: str) -> int:
        return int(key == CALLS_KEY)

    async def write(self, batch: Sequence[Write]) -> Sequence[Outcome]:
        silent = {stream for stream in ("MZ1", "MZ2", "calls") if self._random.random() < 0.4}
        outcomes = []
        for write in batch:
            stream = "calls" if isinstance(write, CallWrite) else write.stream
            if stream in silent:
                outcomes.append(Outcome.RETRY)
                continue
            self.written.append(f"{type(write).__name__} {stream}")
            outcomes += await super().write([write])
        return outcomes


@pytest.mark.parametrize("seed", range(5))
async def test_a_part_that_does_not_answer_delays_its_own_writes_and_loses_none(
    seed: int,
) -> None:
    pubsub = Halved(seed)
    async with running(pubsub) as outbox:
        queues = [opened(outbox, name) for name in ("MZ1", "MZ2")]
        for first in range(0, 200, 10):
            for queue in queues:
                put(queue, range(first, first + 10))
            await asyncio.sleep(0)
        for queue in queues:
            queue.put_end("stop")
            await flushed(queue)
    for queue in queues:
        assert seqs_of(await entries(pubsub, queue.stream)) == list(range(200))
        assert queue.published == 200


@pytest.mark.parametrize("seed", range(5))
async def test_an_event_of_a_stream_waits_for_the_streams_own_keys(seed: int) -> None:
    pubsub = Halved(seed)
    async with running(pubsub) as outbox:
        queue = outbox.queue("MZ1", START, bytes_per_second=16000, tracks=1, retained=100)
        outbox.open_stream(queue, a_record(START), 60)
        outbox.announce(an_event("e1", "stream.started"))
        outbox.announce(an_event("e2", "stream.dtmf"))
        await asyncio.wait_for(outbox.wait_until_idle(), WAIT_SECONDS)
    assert pubsub.written[0] == "OpenStream MZ1"
    kinds = ["Announce", "Announce", "ListCall", "NoteCall", "NoteCall"]
    assert sorted(pubsub.written[1:]) == [f"{kind} calls" for kind in kinds]


def test_what_is_recent_is_kept_for_its_time_and_within_its_bound() -> None:
    def audio(n: int) -> Write:
        return Append("MZ1", START, n, AudioEntry(n, n, 0, Track.INBOUND, b"x" * 100), 100)

    recent = Recent(2.0, max_bytes=250)
    opening = OpenStream("MZ1", a_record(START), 60)
    recent.add([opening], 0, 0.0)
    recent.add([audio(1)], 100, 1.0)
    assert recent.writes() == [opening, audio(1)]
    recent.add([audio(2)], 100, 2.5)
    assert recent.writes() == [audio(1), audio(2)]
    recent.add([audio(3)], 100, 2.6)
    assert recent.writes() == [audio(2), audio(3)]
    recent.forget_old(10.0)
    assert not recent
