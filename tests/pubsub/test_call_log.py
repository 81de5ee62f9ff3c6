"""Each business's log of its calls, as every adapter keeps it."""

import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from app.events import CallIdentity, HeldStream, LifecycleEvent
from app.pubsub.base import ListCall, NoteCall, OpenStream, Outcome, PubSub
from app.pubsub.call_log import (
    CALL_INDEX_KEY,
    MAX_CALLS_OF_BUSINESS,
    MAX_EVENT_BYTES,
    call_key,
    calls_of_key,
    erased_key,
    is_logged,
    parse_logged,
)
from app.pubsub.memory import MemoryPubSub
from app.pubsub.redis_pubsub import RedisPubSub
from app.pubsub.redis_streams import RedisStreams
from tests.redis_groups import cluster
from tests.samples import CALL, a_record, an_event

KEPT = 3600
NOW = int(time.time() * 1000)
ADAPTERS: dict[str, Callable[[str], PubSub]] = {
    "memory": lambda url: MemoryPubSub(time.monotonic, KEPT),
    "redis_streams": lambda url: RedisStreams(url, KEPT),
    "redis_pubsub": lambda url: RedisPubSub(url, KEPT),
}


def event(
    event_id: str, name: str = "call.incoming", at: int = NOW, sid: str = "CA1", **data: Any
) -> LifecycleEvent:
    return LifecycleEvent(name, event_id, at, replace(CALL, call_sid=sid), data)


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    async with Redis.from_url(redis_url) as client:
        await client.flushall()
        yield client


@pytest.fixture(params=ADAPTERS)
async def pubsub(
    request: pytest.FixtureRequest, redis: Redis, redis_url: str
) -> AsyncIterator[PubSub]:
    adapter = ADAPTERS[request.param](redis_url)
    yield adapter
    await adapter.close()


async def note(pubsub: PubSub, *events: LifecycleEvent) -> None:
    outcomes = await pubsub.write([NoteCall(one) for one in events])
    assert list(outcomes) == [Outcome.WRITTEN] * len(events)


async def calls(pubsub: PubSub, redis: Redis, business: str = "business-1") -> dict[str, int]:
    if isinstance(pubsub, MemoryPubSub):
        logs = pubsub.log.calls.items()
        return {sid: at for (whose, sid), (at, _) in logs if whose == business}
    found: Any = await redis.zrange(calls_of_key(business), 0, -1, withscores=True)
    return {sid.decode(): int(at) for sid, at in found}


async def log_of(pubsub: PubSub, redis: Redis, sid: str = "CA1") -> list[bytes]:
    if isinstance(pubsub, MemoryPubSub):
        return pubsub.log.calls.get(("business-1", sid), (0, []))[1]
    lines: Any = await redis.lrange(call_key("business-1", sid), 0, -1)
    return list(lines)


async def test_a_call_is_listed_by_its_first_event_and_keeps_all_of_them(
    pubsub: PubSub, redis: Redis
) -> None:
    events = [
        event("1", caller="+15005550009"),
        event("2", "stream.started", NOW + 5),
        event("3", "call.status", NOW + 9, status="completed"),
    ]
    await note(pubsub, *events)
    assert await calls(pubsub, redis) == {"CA1": NOW}
    assert parse_logged(await log_of(pubsub, redis), "business-1", "CA1") == events


async def test_an_event_that_is_written_twice_is_read_once_and_in_its_place(
    pubsub: PubSub, redis: Redis
) -> None:
    first, second = event("1"), event("2", "stream.started", NOW + 5)
    await note(pubsub, second, first, second)
    assert parse_logged(await log_of(pubsub, redis), "business-1", "CA1") == [first, second]


async def test_the_digit_a_caller_pressed_is_not_kept(pubsub: PubSub, redis: Redis) -> None:
    await note(pubsub, event("1", "stream.dtmf", digit="7", seq=12))
    [said] = parse_logged(await log_of(pubsub, redis), "business-1", "CA1")
    assert said.data == {"seq": 12}


async def test_an_event_too_long_is_kept_without_what_it_says(pubsub: PubSub, redis: Redis) -> None:
    await note(pubsub, event("1", "stream.error", error="x" * MAX_EVENT_BYTES))
    [line] = await log_of(pubsub, redis)
    assert len(line) < MAX_EVENT_BYTES
    [said] = parse_logged([line], "business-1", "CA1")
    assert (said.name, said.data) == ("stream.error", {"omitted": "too long"})


async def test_of_very_many_events_the_first_and_the_latest_are_kept(
    pubsub: PubSub, redis: Redis
) -> None:
    await note(pubsub, *(event(str(number), "stream.mark") for number in range(700)))
    found = parse_logged(await log_of(pubsub, redis), "business-1", "CA1")
    assert [one.event_id for one in found] == [*map(str, range(100)), *map(str, range(300, 700))]


async def test_calls_older_than_the_history_go(pubsub: PubSub, redis: Redis) -> None:
    await note(pubsub, event("1", sid="CA-old"))
    await note(pubsub, event("2", at=NOW + KEPT * 1000 + 1, sid="CA-new"))
    assert list(await calls(pubsub, redis)) == ["CA-new"]


async def test_a_business_has_a_log_of_its_own(pubsub: PubSub, redis: Redis) -> None:
    other = CallIdentity("CA2", "", "business-2", "basic", "twilio")
    await note(pubsub, event("1"), LifecycleEvent("call.incoming", "2", NOW, other, {}))
    assert list(await calls(pubsub, redis)) == ["CA1"]
    assert list(await calls(pubsub, redis, "business-2")) == ["CA2"]


@pytest.mark.parametrize(
    ("call", "kept"),
    [
        (CALL, True),
        (replace(CALL, stream_sid=""), True),
        (replace(CALL, business_id=""), False),
        (replace(CALL, call_sid=""), False),
    ],
)
def test_what_is_nobodys_call_is_not_logged(call: CallIdentity, kept: bool) -> None:
    assert is_logged(replace(an_event("1"), call=call)) is kept


async def test_the_end_that_a_replica_writes_for_another_is_logged(
    pubsub: PubSub, redis: Redis
) -> None:
    await pubsub.write([OpenStream(CALL.stream_sid, a_record(NOW), 60)])
    assert await pubsub.end_lost(HeldStream(CALL, NOW, 60))
    [said] = parse_logged(await log_of(pubsub, redis), "business-1", "CA1")
    assert (said.name, said.data["provisional"]) == ("stream.stopped", True)


# ------------------------------------------------------------------------ in Redis


@pytest.fixture
async def streams(redis: Redis, redis_url: str) -> AsyncIterator[RedisStreams]:
    adapter = RedisStreams(redis_url, KEPT)
    yield adapter
    await adapter.close()


async def test_all_of_a_log_expires(streams: RedisStreams, redis: Redis) -> None:
    await streams.write([NoteCall(event("1")), ListCall(event("1"))])
    for key in (calls_of_key("business-1"), call_key("business-1", "CA1"), CALL_INDEX_KEY):
        assert 0 < await redis.ttl(key) <= KEPT


async def test_a_call_is_listed_once_among_those_of_all(
    streams: RedisStreams, redis: Redis
) -> None:
    await streams.write([ListCall(event("1")), ListCall(event("2", at=NOW + 9))])
    found: Any = await redis.zrange(CALL_INDEX_KEY, 0, -1, withscores=True)
    assert found == [(b"business-1 CA1", NOW)]


@pytest.mark.parametrize(
    ("name", "later_ms", "comes_back"),
    [
        ("call.status", 9, False),
        ("stream.stopped", 9, False),
        ("stream.started", -1, False),  # a repetition from before
        ("stream.started", 9, True),  # its CallSid is used again
    ],
)
async def test_what_is_said_late_of_a_call_that_was_erased_does_not_bring_it_back(
    pubsub: PubSub, redis: Redis, name: str, later_ms: int, comes_back: bool
) -> None:
    await note(pubsub, event("1"))
    if isinstance(pubsub, MemoryPubSub):
        pubsub.log.erase("business-1", "CA1", NOW)
    else:
        await redis.delete(calls_of_key("business-1"), call_key("business-1", "CA1"))
        await redis.set(erased_key("business-1", "CA1"), NOW)
    await note(pubsub, event("2", name, NOW + later_ms))
    assert list(await calls(pubsub, redis)) == (["CA1"] if comes_back else [])
    assert len(await log_of(pubsub, redis)) == comes_back


async def test_a_call_too_many_takes_the_oldest_with_its_events(
    streams: RedisStreams, redis: Redis
) -> None:
    await note(streams, event("1", at=NOW - 2, sid="CA1"), event("2", at=NOW - 1, sid="CA2"))
    fill = "for n = 3, ARGV[1] do redis.call('ZADD', KEYS[1], ARGV[2], 'CA' .. n) end"
    await redis.eval(fill, 1, calls_of_key("business-1"), MAX_CALLS_OF_BUSINESS, NOW)
    await note(streams, event("3", at=NOW + 1, sid="CA-new"))
    found = await calls(streams, redis)
    assert len(found) == MAX_CALLS_OF_BUSINESS
    assert "CA1" not in found
    assert "CA2" in found
    assert await log_of(streams, redis, "CA1") == []
    assert len(await log_of(streams, redis, "CA2")) == 1


@pytest.mark.parametrize("kind", [RedisStreams, RedisPubSub])
async def test_in_a_cluster_each_key_is_written_where_it_belongs(
    kind: type[RedisStreams] | type[RedisPubSub], tmp_path: Path
) -> None:
    with cluster(tmp_path, fsync=None) as nodes:
        adapter = kind(nodes.url, KEPT)
        by_lane: dict[int, list[NoteCall | ListCall]] = {}
        for write in (NoteCall(event("1")), ListCall(event("1"))):
            key = CALL_INDEX_KEY if isinstance(write, ListCall) else calls_of_key("business-1")
            by_lane.setdefault(adapter.lane_of(key), []).append(write)
        for batch in by_lane.values():
            outcomes = await adapter.write(batch)
            assert set(outcomes) == {Outcome.WRITTEN}
        assert await adapter._ways.ask("ZSCORE", CALL_INDEX_KEY, "business-1 CA1")
        assert await adapter._ways.ask("LLEN", call_key("business-1", "CA1")) == 1
        await adapter.close()
