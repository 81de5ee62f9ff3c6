"""What every adapter promises, checked on each: memory, Redis streams, Redis Pub/Sub."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence

import pytest

from app.errors import BrokerRefused
from app.events import AudioEntry, EndEntry, Entry, GapEntry, LifecycleEvent
from app.media import Track
from app.pubsub.base import (
    CALLS_KEY,
    Announce,
    Append,
    CloseStream,
    OpenStream,
    Outcome,
    PubSub,
    Write,
)
from app.pubsub.memory import MemoryPubSub
from app.pubsub.redis_pubsub import RedisPubSub
from app.pubsub.redis_streams import RedisStreams
from tests.pubsub.conftest import Listen, Reader
from tests.samples import a_receipt, a_record, an_event
from tests.waiting import until, until_subscribed

START = 1_700_000_000_000
ADAPTERS: dict[str, Callable[[str], PubSub]] = {
    "memory": lambda url: MemoryPubSub(time.monotonic),
    "redis_streams": RedisStreams,
    "redis_pubsub": RedisPubSub,
}


@pytest.fixture(params=ADAPTERS)
async def pubsub(request: pytest.FixtureRequest, redis_url: str) -> AsyncIterator[PubSub]:
    adapter = ADAPTERS[request.param](redis_url)
    await adapter.open()
    yield adapter
    await adapter.close()


@pytest.fixture
def stream(request: pytest.FixtureRequest) -> str:
    return f"MZ{abs(hash(request.node.name)):x}"


def audio(n: int, payload: bytes = b"\x01\x00\xff\n") -> AudioEntry:
    return AudioEntry(n, n + 1, 20 * (n - 1), Track.INBOUND, payload)


def appends(stream: str, entries: Sequence[Entry], id_ms: int = START) -> list[Write]:
    return [Append(stream, id_ms, entry.n, entry, 1000) for entry in entries]


def begun(stream: str, entries: Sequence[Entry]) -> list[Write]:
    """Return the writes that open a stream and append entries."""
    return [OpenStream(stream, a_record(START), 600), *appends(stream, entries)]


ENTRIES: list[Entry] = [
    audio(1),
    GapEntry(2, None, 3, 3, 5, 20, "carrier"),
    GapEntry(3, Track.OUTBOUND, 1, 6, 6, 80, "overflow"),
    AudioEntry(4, 9, 100, Track.OUTBOUND, bytes(range(256)), frames=3),
    EndEntry(5, "stop"),
]


async def test_entries_are_read_back_in_order_and_bit_exact(
    pubsub: PubSub, stream: str, listen: Listen
) -> None:
    listening = await listen(pubsub, stream)
    await pubsub.write([OpenStream(stream, a_record(), 60)])
    outcomes = await pubsub.write(appends(stream, ENTRIES))
    await listening.ended()
    assert outcomes == [Outcome.WRITTEN] * 5
    assert listening.heard == [(f"{START}-{entry.n}", entry) for entry in ENTRIES]


async def test_an_end_ends_the_reading(pubsub: PubSub, stream: str, listen: Listen) -> None:
    listening = await listen(pubsub, stream)
    await pubsub.write(begun(stream, [audio(1), EndEntry(2, "stop"), audio(3)]))
    await listening.ended()
    assert len(listening.heard) == 2


async def test_events_are_heard_from_now_on_where_that_is_asked(
    pubsub: PubSub, stream: str, redis_url: str
) -> None:
    await pubsub.write([Announce(an_event(f"{stream}-before"))])
    reader = Reader(pubsub.lifecycle(from_now=True))
    if isinstance(pubsub, RedisPubSub):
        await until_subscribed(redis_url, CALLS_KEY)
    written = 0
    while not reader.heard:  # it begins when it can, and nobody is told
        written += 1
        await pubsub.write([Announce(an_event(f"{stream}-{written}"))])
        await asyncio.sleep(0.01)
    await reader.has(1)
    heard = [event.event_id for event in reader.heard if isinstance(event, LifecycleEvent)]
    assert f"{stream}-before" not in heard
    assert heard


async def test_lifecycle_events_are_read_back_whole(
    pubsub: PubSub, stream: str, listen: Listen
) -> None:
    event = an_event(stream, "stream.stopped")
    listening = await listen(pubsub)
    await pubsub.write([Announce(event)])
    await until(lambda: event in listening.heard)
    await listening.has(1)


async def test_a_late_reader_sees_all_where_the_adapter_says_replayable(
    pubsub: PubSub, stream: str, listen: Listen
) -> None:
    await pubsub.write(begun(stream, [audio(1), EndEntry(2, "stop")]))
    listening = await listen(pubsub, stream)
    if pubsub.replayable:
        await listening.ended()
        assert len(listening.heard) == 2
    else:
        await listening.has(0)
        assert listening.heard == []


async def test_a_reader_hears_an_entry_once_though_it_was_written_twice(
    pubsub: PubSub, stream: str, listen: Listen
) -> None:
    listening = await listen(pubsub, stream)
    for _ in range(2):
        await pubsub.write(begun(stream, [audio(1), audio(2)]))
    await pubsub.write(appends(stream, [EndEntry(3, "stop")]))
    await listening.ended()
    assert len(listening.heard) == 3


async def test_what_stands_is_known_by_content_not_by_id(pubsub: PubSub, stream: str) -> None:
    await pubsub.write(begun(stream, [audio(1), audio(2, b"other")]))
    asked = [Append(stream, START, n, audio(n), 1000) for n in (1, 2, 3)]
    standing = await pubsub.standing(stream, asked)
    if pubsub.replayable:
        assert standing.present == {1}
        assert (standing.last_ms, standing.last_n) == (START, 2)
    else:
        assert standing.present == frozenset()


async def test_a_stream_that_nobody_wrote_has_nothing_standing(pubsub: PubSub, stream: str) -> None:
    standing = await pubsub.standing(stream, [Append(stream, START, 1, audio(1), 1000)])
    assert (standing.present, standing.last_ms, standing.last_n) == (frozenset(), 0, 0)


async def test_a_broker_that_answers_passes_the_check(pubsub: PubSub) -> None:
    await pubsub.check()


@pytest.mark.parametrize("name", ["memory", "redis_streams"])
async def test_an_id_that_is_taken_is_a_conflict_and_changes_nothing(
    name: str, redis_url: str, stream: str
) -> None:
    pubsub = ADAPTERS[name](redis_url)
    await pubsub.write(begun(stream, [audio(1), audio(2)]))
    outcomes = await pubsub.write(appends(stream, [audio(2, b"other"), EndEntry(3, "stop")]))
    assert outcomes == [Outcome.CONFLICT, Outcome.WRITTEN]
    heard = [entry async for _, entry in pubsub.entries(stream)]
    assert heard == [audio(1), audio(2), EndEntry(3, "stop")]
    await pubsub.close()


@pytest.mark.parametrize("name", ["memory", "redis_streams"])
async def test_a_finished_id_that_starts_again_replaces_the_old_keys_whole(
    name: str, redis_url: str, stream: str
) -> None:
    pubsub = ADAPTERS[name](redis_url)
    assert isinstance(pubsub, RedisStreams | MemoryPubSub)
    await pubsub.write([OpenStream(stream, a_record(START), 60)])
    await pubsub.write(appends(stream, [audio(1), EndEntry(2, "stop")]))
    await pubsub.write([CloseStream(stream, START + 40, a_receipt(), 60, "business-1", START)])
    await pubsub.write([OpenStream(stream, a_record(START + 100), 60)])
    await pubsub.write(appends(stream, [EndEntry(1, "drain")], START + 100))
    heard = [entry async for _, entry in pubsub.entries(stream)]
    record = await pubsub.record(stream)
    assert heard == [EndEntry(1, "drain")]
    assert "receipt" not in record
    assert str(record["startedAt"]) == str(START + 100)
    await pubsub.close()


@pytest.mark.parametrize("name", ["redis_streams", "redis_pubsub"])
async def test_a_broker_that_is_not_there_refuses(name: str) -> None:
    pubsub = ADAPTERS[name]("redis://127.0.0.1:1")
    with pytest.raises(BrokerRefused, match="connection"):
        await pubsub.write([Announce(an_event("x"))])
    with pytest.raises(BrokerRefused):
        await pubsub.check()
    await pubsub.close()
