"""The end of a stream whose holder died, where streams are kept: memory and Redis streams."""

import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis

from app.errors import BrokerError
from app.events import AudioEntry, EndEntry, HeldStream, LifecycleEvent
from app.media import Track
from app.pubsub.base import Append, CloseStream, OpenStream, Write
from app.pubsub.memory import MemoryPubSub
from app.pubsub.redis_pubsub import RedisPubSub
from app.pubsub.redis_streams import RedisStreams
from tests.pubsub.conftest import Listen
from tests.samples import CALL, a_receipt, a_record

START = 1_700_000_000_000
STREAM = CALL.stream_sid
HELD = HeldStream(CALL, START, 600)
COUNTS = "received published dropped rejected duplicates carrier_gaps seq_resets format_mismatch"
COUNTS += " bytes audio_ms wall_ms first_seq last_seq max_lag_ms"
LOST_RECEIPT = {**dict.fromkeys(COUNTS.split()), "end_reason": "lost", "provisional": True}


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    client = Redis.from_url(redis_url, decode_responses=True)
    await client.flushall()
    yield client
    await client.aclose()


@pytest.fixture(params=["memory", "redis_streams"])
async def pubsub(
    request: pytest.FixtureRequest, redis: Redis, redis_url: str
) -> AsyncIterator[MemoryPubSub | RedisStreams]:
    memory = request.param == "memory"
    adapter = MemoryPubSub(time.monotonic) if memory else RedisStreams(redis_url)
    yield adapter
    await adapter.close()


@pytest.fixture
async def streams(redis: Redis, redis_url: str) -> AsyncIterator[RedisStreams]:
    adapter = RedisStreams(redis_url)
    yield adapter
    await adapter.close()


Keeping = MemoryPubSub | RedisStreams


def opened() -> OpenStream:
    return OpenStream(STREAM, a_record(START), 7200)


def audio(*numbers: int, id_ms: int = START) -> list[Write]:
    return [
        Append(STREAM, id_ms, n, AudioEntry(n, n, 0, Track.INBOUND, b"ab"), 1000) for n in numbers
    ]


def end(n: int, reason: str, id_ms: int = START) -> Append:
    return Append(STREAM, id_ms, n, EndEntry(n, reason), 1000)


async def ids_and_ends(pubsub: Keeping) -> list[tuple[int, int, str]]:
    """Read the whole stream, past each end: ids, and the reason of what is an end."""
    if isinstance(pubsub, MemoryPubSub):
        stored = pubsub._streams[f"audio:{{{STREAM}}}"].entries
        return [(ms, n, str(fields.get("reason", ""))) for (ms, n), fields in stored]
    found: Any = await pubsub._ways.client.xrange(f"audio:{{{STREAM}}}")
    places = [(entry_id.decode().split("-"), fields) for entry_id, fields in found]
    return [(int(ms), int(n), fields.get(b"reason", b"").decode()) for (ms, n), fields in places]


async def announced(listen: Listen, pubsub: Keeping, count: int) -> list[LifecycleEvent]:
    listening = await listen(pubsub)
    await listening.has(count)
    return [event for event in listening.heard if isinstance(event, LifecycleEvent)]


async def receipt_in(pubsub: Keeping) -> object:
    return json.loads(str((await pubsub.record(STREAM))["receipt"]))


async def test_a_lost_stream_has_an_end_a_receipt_and_an_announcement(
    pubsub: Keeping, listen: Listen
) -> None:
    await pubsub.write([opened(), *audio(1, 2)])
    assert await pubsub.end_lost(HELD)
    *before, (ms, _, reason) = await ids_and_ends(pubsub)
    assert before == [(START, 1, ""), (START, 2, "")]
    assert (ms > START, reason) == (True, "lost")
    assert await receipt_in(pubsub) == LOST_RECEIPT
    [event] = await announced(listen, pubsub, 1)
    assert (event.name, event.call) == ("stream.stopped", CALL)
    assert event.data == {"receipt": LOST_RECEIPT, "provisional": True}
    assert event.at == int((await pubsub.record(STREAM))["endedAt"])


async def test_a_stream_that_its_holder_ended_is_left_alone(pubsub: Keeping) -> None:
    closing = CloseStream(STREAM, START + 60, a_receipt(), 3600, "business-1", START)
    await pubsub.write([opened(), *audio(1), end(2, "stop"), closing])
    assert not await pubsub.end_lost(HELD)
    assert await ids_and_ends(pubsub) == [(START, 1, ""), (START, 2, "stop")]
    assert await receipt_in(pubsub) == a_receipt().as_data()


async def test_a_stream_that_never_opened_is_not_made(pubsub: Keeping) -> None:
    assert not await pubsub.end_lost(HELD)
    assert await pubsub.record(STREAM) == {}


async def test_an_id_that_has_started_again_is_left_alone(pubsub: Keeping) -> None:
    await pubsub.write([OpenStream(STREAM, a_record(START + 5), 7200), *audio(1, id_ms=START + 5)])
    assert not await pubsub.end_lost(HELD)
    assert await ids_and_ends(pubsub) == [(START + 5, 1, "")]


async def test_ending_it_again_announces_it_again_and_writes_nothing_more(
    pubsub: Keeping, listen: Listen
) -> None:
    await pubsub.write([opened(), *audio(1)])
    assert await pubsub.end_lost(HELD)
    before = await ids_and_ends(pubsub), await pubsub.record(STREAM)
    assert await pubsub.end_lost(HELD)
    assert (await ids_and_ends(pubsub), await pubsub.record(STREAM)) == before
    first, second = await announced(listen, pubsub, 2)
    assert first == second


async def test_a_stream_of_which_only_the_receipt_is_missing_gets_no_second_end(
    pubsub: Keeping,
) -> None:
    await pubsub.write([opened(), *audio(1), end(2, "stop")])
    assert await pubsub.end_lost(HELD)
    assert await ids_and_ends(pubsub) == [(START, 1, ""), (START, 2, "stop")]
    assert await receipt_in(pubsub) == LOST_RECEIPT


async def test_a_holder_that_lived_on_and_then_died_is_ended_again(pubsub: Keeping) -> None:
    await pubsub.write([opened(), *audio(1)])
    await pubsub.end_lost(HELD)
    ms = (await ids_and_ends(pubsub))[-1][0]
    await pubsub.write(audio(2, 3, id_ms=ms))
    assert await pubsub.end_lost(HELD)
    assert [reason for _, _, reason in await ids_and_ends(pubsub)] == ["", "lost", "", "", "lost"]


async def test_a_true_receipt_replaces_the_provisional_one_for_good(pubsub: Keeping) -> None:
    await pubsub.write([opened(), *audio(1)])
    await pubsub.end_lost(HELD)
    await pubsub.write([CloseStream(STREAM, START + 60, a_receipt(), 3600, "business-1", START)])
    assert not await pubsub.end_lost(HELD)
    assert await receipt_in(pubsub) == a_receipt().as_data()


async def test_a_stream_without_an_entry_is_ended_above_its_start(pubsub: Keeping) -> None:
    await pubsub.write([opened()])
    assert await pubsub.end_lost(HELD)
    [(ms, _, reason)] = await ids_and_ends(pubsub)
    assert (ms > START, reason) == (True, "lost")


async def test_an_end_stands_above_a_holder_whose_clock_is_ahead(streams: RedisStreams) -> None:
    ahead = int(time.time() * 1000) + 3_600_000
    held = HeldStream(CALL, ahead, 600)
    await streams.write([OpenStream(STREAM, a_record(ahead), 7200), *audio(1, id_ms=ahead)])
    assert await streams.end_lost(held)
    assert await ids_and_ends(streams) == [(ahead, 1, ""), (ahead + 1, 1, "lost")]


async def test_a_lost_streams_keys_expire(redis: Redis, streams: RedisStreams) -> None:
    await streams.write([opened(), *audio(1)])
    await redis.xadd(f"control:{{{STREAM}}}", {"command": "clear"})
    await streams.end_lost(HELD)
    for kind in ("audio", "control", "stream"):
        assert 590 < await redis.ttl(f"{kind}:{{{STREAM}}}") <= 600


async def test_a_broker_that_is_away_is_told_so(unused_tcp_port: int) -> None:
    for adapter in (RedisStreams, RedisPubSub):
        pubsub = adapter(f"redis://127.0.0.1:{unused_tcp_port}/0")
        with pytest.raises(BrokerError):
            await pubsub.end_lost(HELD)
        await pubsub.close()


async def test_listeners_of_a_channel_hear_a_lost_streams_end(
    redis_url: str, listen: Listen
) -> None:
    pubsub = RedisPubSub(redis_url)
    entries, events = await listen(pubsub, STREAM), await listen(pubsub)
    await pubsub.write(audio(1))
    assert await pubsub.end_lost(HELD)
    await entries.ended()
    await events.has(1)
    last = entries.heard[-1]
    assert isinstance(last, tuple)
    assert last[1] == EndEntry(1, "lost")
    await pubsub.close()
