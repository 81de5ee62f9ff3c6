"""What every reader of commands promises: memory, Redis, and a Redis Cluster."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster

from app.pubsub.base import OpenStream, control_key
from app.pubsub.control import BEGINNING, ControlEntry, ControlFeed
from app.pubsub.memory import MemoryPubSub
from app.pubsub.memory_control import MemoryControl
from app.pubsub.redis_control import RedisControl
from app.tools.embedded import HOST
from tests.redis_groups import Cluster, cluster
from tests.samples import a_record
from tests.waiting import WAIT_SECONDS, until

LONG = 60.0
Add = Callable[[str, Mapping[str, Any]], Awaitable[None]]


@dataclass
class Sides:
    """A feed, and what writes into it."""

    feed: ControlFeed
    add: Add
    length: Callable[[str], Awaitable[int]]


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("cluster")) as made:
        yield made


@asynccontextmanager
async def in_memory() -> AsyncIterator[Sides]:
    pubsub = MemoryPubSub(time.monotonic)

    async def add(stream: str, fields: Mapping[str, Any]) -> None:
        if pubsub.command(stream, dict(fields)) is None:
            await pubsub.write([OpenStream(stream, a_record(), 60)])
            pubsub.command(stream, dict(fields))

    async def length(stream: str) -> int:
        return len(pubsub.commands(stream, BEGINNING, 1000))

    yield Sides(MemoryControl(pubsub), add, length)


@asynccontextmanager
async def in_redis(url: str, client: Any) -> AsyncIterator[Sides]:
    async def add(stream: str, fields: Mapping[str, Any]) -> None:
        await client.xadd(control_key(stream), fields)

    async def length(stream: str) -> int:
        found: int = await client.xlen(control_key(stream))
        return found

    feed = RedisControl(url)
    await feed.open()
    try:
        yield Sides(feed, add, length)
    finally:
        await feed.close()
        await client.aclose()


@pytest.fixture(params=["memory", "redis", "cluster"])
async def sides(request: pytest.FixtureRequest, redis_url: str) -> AsyncIterator[Sides]:
    if request.param == "memory":
        made = in_memory()
    elif request.param == "redis":
        made = in_redis(redis_url, Redis.from_url(redis_url))
    else:
        nodes: Cluster = request.getfixturevalue("nodes")
        made = in_redis(nodes.url, RedisCluster(host=HOST, port=nodes.masters[0].port))
    async with made as sides:
        yield sides


def a_stream() -> str:
    return "MZ" + secrets.token_hex(8)


def named(entries: list[ControlEntry]) -> list[tuple[str, bytes]]:
    return [
        (entry.stream, value if isinstance(value, bytes) else str(value).encode())
        for entry in entries
        for value in [entry.fields["command"]]
    ]


async def read(sides: Sides, positions: dict[str, str], count: int) -> list[ControlEntry]:
    """Read until there are so many, keeping each stream's place."""
    found: list[ControlEntry] = []
    async with asyncio.timeout(WAIT_SECONDS):
        while len(found) < count:
            for entry in await sides.feed.read(dict(positions), LONG):
                positions[entry.stream] = entry.entry_id
                found.append(entry)
    return found


async def test_what_was_written_before_the_reading_is_read_in_order(sides: Sides) -> None:
    stream = a_stream()
    for number in range(20):
        await sides.add(stream, {"command": str(number), "audio": bytes(range(256))})
    found = await read(sides, {stream: BEGINNING}, 20)
    assert named(found) == [(stream, str(number).encode()) for number in range(20)]
    assert {entry.fields["audio"] for entry in found} == {bytes(range(256))}


async def test_what_is_written_meanwhile_is_read_and_nothing_twice(sides: Sides) -> None:
    streams = [a_stream() for _ in range(3)]
    positions = dict.fromkeys(streams, BEGINNING)
    reading = asyncio.create_task(read(sides, positions, 6))
    for turn in range(2):
        for stream in streams:
            await sides.add(stream, {"command": f"{turn}"})
            await asyncio.sleep(0.01)
    found = named(await reading)
    assert sorted(found) == sorted(
        (stream, str(turn).encode()) for stream in streams for turn in range(2)
    )
    for stream in streams:
        assert [value for name, value in found if name == stream] == [b"0", b"1"]


async def test_a_reader_that_waits_is_woken(sides: Sides) -> None:
    waiting = asyncio.create_task(_read_once(sides, {}))
    await asyncio.sleep(0.05)
    sides.feed.wake()
    assert await asyncio.wait_for(waiting, WAIT_SECONDS) == []


async def test_a_reader_that_was_woken_before_it_waits_does_not_wait(sides: Sides) -> None:
    stream = a_stream()
    sides.feed.wake()
    assert await asyncio.wait_for(_read_once(sides, {stream: BEGINNING}), WAIT_SECONDS) == []


async def test_a_wait_ends_by_itself(sides: Sides) -> None:
    assert await asyncio.wait_for(sides.feed.read({}, 0.05), WAIT_SECONDS) == []


async def test_what_was_read_is_forgotten_and_nothing_else(sides: Sides) -> None:
    stream = a_stream()
    for number in range(3):
        await sides.add(stream, {"command": str(number)})
    first, second, _ = await read(sides, {stream: BEGINNING}, 3)
    await sides.feed.drop(stream, second.entry_id)
    assert await sides.length(stream) == 1
    [left] = await read(sides, {stream: first.entry_id}, 1)
    assert left.fields["command"] in (b"2", "2")
    await sides.feed.drop("MZnowhere", second.entry_id)


async def _read_once(sides: Sides, positions: Mapping[str, str]) -> list[ControlEntry]:
    return list(await sides.feed.read(positions, LONG))


async def test_a_key_that_is_no_stream_silences_no_other(redis_url: str) -> None:
    bad, good = a_stream(), a_stream()
    async with Redis.from_url(redis_url) as redis, in_redis(redis_url, redis) as sides:
        await redis.set(control_key(bad), "a mistake")
        await sides.add(good, {"command": "x"})
        [found] = await read(sides, {bad: BEGINNING, good: BEGINNING}, 1)
        assert found.stream == good
        await redis.delete(control_key(bad))


async def test_one_connection_waits_for_all_streams(redis_url: str) -> None:
    async with Redis.from_url(redis_url) as redis, in_redis(redis_url, redis) as sides:
        positions = dict.fromkeys([a_stream() for _ in range(40)], BEGINNING)
        reading = asyncio.create_task(read(sides, positions, 1))

        async def blocked() -> list[Any]:
            clients: Any = await redis.client_list()
            return [one for one in clients if one["cmd"] == "xread" and "b" in one["flags"]]

        [_] = await until(blocked)
        await sides.add(next(iter(positions)), {"command": "x"})
        await reading


async def test_a_key_that_nobody_gave_a_time_expires(redis_url: str) -> None:
    stream = a_stream()
    async with Redis.from_url(redis_url) as redis, in_redis(redis_url, redis) as sides:
        await sides.add(stream, {"command": "x"})
        await sides.feed.drop(stream, "0-1")
        assert await redis.ttl(control_key(stream)) > 0
        await redis.expire(control_key(stream), 50)
        await sides.feed.drop(stream, "0-1")
        assert 0 < await redis.ttl(control_key(stream)) <= 50
