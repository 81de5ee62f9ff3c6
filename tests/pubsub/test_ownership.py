"""A stream's id belongs to one business: who may open, close and end it, on each adapter."""

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from redis.asyncio import Redis

from app.events import AudioEntry, EndEntry, Entry, HeldStream, LifecycleEvent
from app.media import Track
from app.metrics import Metrics
from app.pubsub.base import (
    Append,
    CloseStream,
    OpenStream,
    Outcome,
    PubSub,
    Replaces,
    Write,
)
from app.pubsub.memory import MemoryPubSub
from app.pubsub.outbox import Outbox
from app.pubsub.redis_pubsub import RedisPubSub
from app.pubsub.redis_streams import RedisStreams
from tests.samples import CALL, a_receipt, a_record, an_event
from tests.waiting import WAIT_SECONDS, until

START = 1_700_000_000_000
STREAM = CALL.stream_sid
MINE, THEIRS = "business-1", "business-2"
Keeping = MemoryPubSub | RedisStreams


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator["Redis"]:
    client = Redis.from_url(redis_url, decode_responses=True)
    await client.flushall()
    yield client
    await client.aclose()


@pytest.fixture(params=["memory", "redis_streams", "redis_pubsub"])
async def pubsub(
    request: pytest.FixtureRequest, redis: "Redis", redis_url: str
) -> AsyncIterator[PubSub]:
    made: PubSub
    if request.param == "memory":
        made = MemoryPubSub(time.monotonic)
    else:
        made = (RedisStreams if request.param == "redis_streams" else RedisPubSub)(redis_url)
    yield made
    await made.close()


@pytest.fixture(params=["memory", "redis_streams"])
async def keeping(
    request: pytest.FixtureRequest, redis: "Redis", redis_url: str
) -> AsyncIterator[Keeping]:
    made = MemoryPubSub(time.monotonic) if request.param == "memory" else RedisStreams(redis_url)
    yield made
    await made.close()


def opening(
    business_id: str, started_at: int = START, replaces: Replaces = Replaces.ANY
) -> OpenStream:
    call = replace(CALL, business_id=business_id)
    return OpenStream(STREAM, replace(a_record(started_at), call=call), 600, replaces)


def closing(business_id: str, started_at: int = START) -> CloseStream:
    return CloseStream(STREAM, started_at + 60, a_receipt(), 600, business_id, started_at)


def audio(n: int = 1, id_ms: int = START) -> Append:
    return Append(STREAM, id_ms, n, AudioEntry(n, n, 0, Track.INBOUND, b"ab"), 1000)


def held(business_id: str, started_at: int = START) -> HeldStream:
    return HeldStream(replace(CALL, business_id=business_id), started_at, 600)


async def outcome(pubsub: PubSub, write: Write) -> Outcome:
    [found] = await pubsub.write([write])
    return found


async def kept(pubsub: Keeping) -> tuple[dict[str, str], int]:
    """Return what stands of the stream: its record, and how many entries."""
    record = {name: str(value) for name, value in (await pubsub.record(STREAM)).items()}
    if isinstance(pubsub, MemoryPubSub):
        return record, len(pubsub.stored(STREAM))
    return record, int(await pubsub._ways.ask("XLEN", f"audio:{{{STREAM}}}"))


@pytest.mark.parametrize("replaces", Replaces)
async def test_an_opening_never_replaces_another_businesss_live_stream(
    pubsub: PubSub, replaces: Replaces
) -> None:
    assert await outcome(pubsub, opening(THEIRS)) is Outcome.WRITTEN
    mine = opening(MINE, START + 5, replaces)
    assert await outcome(pubsub, mine) is Outcome.OTHER_BUSINESS
    assert await outcome(pubsub, opening(MINE, START)) is Outcome.OTHER_BUSINESS
    # The business that has it may open it again.
    assert await outcome(pubsub, opening(THEIRS)) is Outcome.WRITTEN


@pytest.mark.parametrize("replaces", Replaces)
async def test_an_opening_leaves_another_businesss_recording_as_it_is(
    keeping: Keeping, replaces: Replaces
) -> None:
    await keeping.write([opening(THEIRS), audio(), closing(THEIRS)])
    before = await kept(keeping)
    mine = opening(MINE, START + 5, replaces)
    assert await outcome(keeping, mine) is Outcome.OTHER_BUSINESS
    assert await kept(keeping) == before


async def test_an_id_that_is_free_again_can_be_opened(pubsub: PubSub) -> None:
    """With channels nothing is kept; where it is, the business's own stream is replaced."""
    business_id = MINE if pubsub.replayable else THEIRS
    await pubsub.write([opening(business_id), closing(business_id)])
    assert await outcome(pubsub, opening(MINE, START + 5)) is Outcome.WRITTEN


@pytest.mark.parametrize(
    ("replaces", "is_ended", "began", "expected"),
    [
        (Replaces.ANY, False, START + 5, Outcome.WRITTEN),
        (Replaces.ANY, True, START + 5, Outcome.WRITTEN),
        (Replaces.ENDED, True, START + 5, Outcome.WRITTEN),
        (Replaces.ENDED, False, START + 5, Outcome.LIVE_ELSEWHERE),
        (Replaces.ENDED, False, START, Outcome.WRITTEN),
        (Replaces.OLDER, False, START + 5, Outcome.WRITTEN),
        (Replaces.OLDER, False, START - 5, Outcome.LIVE_ELSEWHERE),
        (Replaces.OLDER, True, START - 5, Outcome.LIVE_ELSEWHERE),
    ],
)
async def test_what_an_opening_replaces_of_its_own_business(
    keeping: Keeping, replaces: Replaces, is_ended: bool, began: int, expected: Outcome
) -> None:
    await keeping.write([opening(MINE), audio()])
    if is_ended:
        await keeping.write([closing(MINE)])
    before = await kept(keeping)
    assert await outcome(keeping, opening(MINE, began, replaces)) is expected
    if expected is not Outcome.WRITTEN:
        assert await kept(keeping) == before


async def test_channels_of_a_live_stream_are_not_taken_over_by_a_process_that_did_not_claim_it(
    redis_url: str, redis: "Redis"
) -> None:
    pubsub = RedisPubSub(redis_url)
    await pubsub.write([opening(MINE)])
    unclaimed = opening(MINE, START + 5, Replaces.ENDED)
    assert await outcome(pubsub, unclaimed) is Outcome.LIVE_ELSEWHERE
    late = opening(MINE, START - 5, Replaces.OLDER)
    assert await outcome(pubsub, late) is Outcome.LIVE_ELSEWHERE
    assert await redis.ttl(f"owner:{{{STREAM}}}") > 0
    await pubsub.close()


@pytest.mark.parametrize("whose", [closing(MINE), closing(THEIRS, START + 5)])
async def test_a_close_of_another_stream_changes_nothing(
    keeping: Keeping, whose: CloseStream
) -> None:
    await keeping.write([opening(THEIRS), audio()])
    before = await kept(keeping)
    await keeping.write([whose])
    assert await kept(keeping) == before
    await keeping.write([closing(THEIRS)])
    assert "endedAt" in (await kept(keeping))[0]


async def test_a_close_of_a_stream_that_is_gone_makes_no_record(keeping: Keeping) -> None:
    await keeping.write([closing(MINE)])
    assert await kept(keeping) == ({}, 0)


async def test_a_lost_stream_is_ended_for_its_own_business_only(keeping: Keeping) -> None:
    await keeping.write([opening(THEIRS), audio()])
    before = await kept(keeping)
    assert not await keeping.end_lost(held(MINE))
    assert await kept(keeping) == before
    assert await keeping.end_lost(held(THEIRS))


async def test_a_record_of_0_1_is_ended_and_not_replaced(redis: "Redis", redis_url: str) -> None:
    """As version 0.1 stores a live stream: without `peerStreamSid`, under its peer's name."""
    old = "business-2.int-1"
    fields = {
        "callSid": "int-1", "businessId": THEIRS, "plan": "premium", "carrier": "client",
        "from": "", "to": "", "params": "{}", "encoding": "pcm16", "sampleRate": "8000",
        "channels": "1", "tracks": "inbound", "carrierEncoding": "pcm16",
        "carrierSampleRate": "8000", "startedAt": str(START),
    }  # fmt: skip
    await redis.hset(f"stream:{{{old}}}", mapping=fields)
    await redis.xadd(f"audio:{{{old}}}", {"seq": 1, "audio": "ab"}, id=f"{START}-1")
    pubsub = RedisStreams(redis_url)
    call = replace(CALL, call_sid="int-1", stream_sid=old)
    mine = OpenStream(old, replace(a_record(START + 5), call=call), 600)
    assert await outcome(pubsub, mine) is Outcome.OTHER_BUSINESS
    theirs = HeldStream(replace(call, business_id=THEIRS, carrier="client"), START, 600)
    assert await pubsub.end_lost(theirs)
    assert json.loads((await redis.hgetall(f"stream:{{{old}}}"))["receipt"])["provisional"]
    await pubsub.close()


# ------------------------------------------------------------- queues of refused streams


class Publishing:
    """An outbox of a business whose stream has an id that another business holds."""

    def __init__(self, pubsub: PubSub) -> None:
        self.outbox = Outbox(
            pubsub, Metrics(), clock=time.monotonic, jitter=random.Random(1).random
        )
        self.refused: list[str] = []
        self.opened: list[str] = []
        self.queue = self.outbox.queue(
            STREAM, START + 5, bytes_per_second=16000, tracks=1, retained=1000
        )
        self.queue.on_refused = self.refused.append

    def open(self, replaces: Replaces = Replaces.ANY) -> None:
        record = opening(MINE, START + 5).record
        opened = self.opened.append
        self.outbox.open_stream(self.queue, record, 600, lambda: opened(STREAM), replaces=replaces)

    def put(self, count: int = 3) -> None:
        for seq in range(count):
            self.queue.put_audio(seq, 20 * seq, Track.INBOUND, b"ab", 1, time.monotonic())


@pytest.fixture
async def publishing(keeping: Keeping) -> AsyncIterator[Publishing]:
    made = Publishing(keeping)
    writer = asyncio.create_task(made.outbox.run())
    yield made
    writer.cancel()
    await asyncio.gather(writer, return_exceptions=True)


async def events_of(pubsub: Keeping, count: int) -> list[LifecycleEvent]:
    found: list[LifecycleEvent] = []
    async with asyncio.timeout(WAIT_SECONDS):
        async for event in pubsub.lifecycle():
            found.append(event)
            if len(found) == count:
                break
    return found


async def test_each_frame_of_a_refused_stream_is_counted_as_dropped(
    keeping: Keeping, publishing: Publishing
) -> None:
    await keeping.write([opening(THEIRS), audio()])
    before = await kept(keeping)
    publishing.put(3)
    publishing.open()
    await until(lambda: publishing.refused)
    publishing.put(4)  # more comes before its session has ended
    publishing.queue.put_gap(None, 1, 1, 1, 0, "carrier")
    publishing.queue.put_end("business_mismatch")
    async with asyncio.timeout(WAIT_SECONDS):
        await publishing.queue.wait_until_flushed()
        await publishing.queue.wait_for_room()
        await publishing.outbox.wait_until_idle()
    assert publishing.refused == ["business_mismatch"]
    assert publishing.opened == []
    assert (publishing.queue.published, publishing.queue.dropped) == (0, {"business_mismatch": 7})
    assert publishing.outbox.queued_bytes == 0
    assert await kept(keeping) == before


async def test_a_refused_stream_is_announced_without_the_id_of_another(
    keeping: Keeping, publishing: Publishing
) -> None:
    await keeping.write([opening(THEIRS)])
    publishing.open()
    publishing.outbox.announce(an_event("1", "stream.started"))
    publishing.outbox.announce(an_event("2", "stream.dtmf"))
    [event] = await events_of(keeping, 1)
    assert (event.name, event.call) == ("stream.dtmf", replace(CALL, stream_sid=""))


async def test_a_holder_that_was_replaced_does_not_take_its_id_back(
    keeping: Keeping, publishing: Publishing
) -> None:
    """One that was frozen finds a later stream under its id, and writes nothing into it."""
    publishing.open()
    publishing.put(2)
    await until(lambda: publishing.queue.published == 2)
    await keeping.write([closing(MINE, START + 5), opening(MINE, START + 9)])
    await keeping.write([audio(1, START + 9)])
    before = await kept(keeping)
    publishing.put(3)
    await until(lambda: publishing.refused)
    assert publishing.refused == ["stream_already_live"]
    assert publishing.queue.dropped == {"stream_already_live": 3}
    assert await kept(keeping) == before


async def test_a_failover_does_not_write_into_what_another_business_opened_since(
    redis: "Redis", redis_url: str
) -> None:
    """The new primary has lost a stream, and its id was opened by another business."""
    pubsub = RedisStreams(redis_url)
    made = Publishing(pubsub)
    writer = asyncio.create_task(made.outbox.run())
    made.open()
    made.put(2)
    await until(lambda: made.queue.published == 2)
    await redis.delete(*(f"{kind}:{{{STREAM}}}" for kind in ("audio", "control", "stream")))
    await pubsub.write([opening(THEIRS, START + 1)])
    before = await kept(pubsub)
    [lane] = made.outbox._lanes
    lane._delivery._must_restore = True
    made.put(3)
    await until(lambda: made.refused)
    assert made.refused == ["business_mismatch"]
    assert sum(made.queue.dropped.values()) + made.queue.published == 5
    assert await kept(pubsub) == before
    writer.cancel()
    await asyncio.gather(writer, return_exceptions=True)
    await pubsub.close()


def test_a_queue_that_was_refused_stays_empty() -> None:
    outbox = Outbox(
        MemoryPubSub(time.monotonic), Metrics(), clock=time.monotonic, jitter=random.random
    )
    queue = outbox.queue(STREAM, START, bytes_per_second=16000, tracks=1, retained=1000)
    queue.refuse("business_mismatch")
    for seq in range(100):
        queue.put_audio(seq, seq * 20, Track.INBOUND, b"ab" * 80, 2, time.monotonic())
    entry: Entry = EndEntry(1, "stop")
    queue.put_end(entry.reason)
    assert queue.dropped == {"business_mismatch": 200}
    assert not queue.has_waiting
    assert not queue.is_full
    assert outbox.queued_bytes == 0
