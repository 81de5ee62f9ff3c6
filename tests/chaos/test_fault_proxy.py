"""The proxy does to a connection what its faults say."""

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError, TimeoutError

from tests.chaos.fault_proxy import FaultProxy
from tests.redis_process import HOST, RedisProcess
from tests.waiting import WAIT_SECONDS, until


@pytest.fixture
async def proxy(tmp_path: Path) -> AsyncIterator[FaultProxy]:
    with RedisProcess(tmp_path, fsync=None) as server:
        async with FaultProxy(server.port, random.Random(1)) as running:
            yield running


@pytest.fixture
async def redis(proxy: FaultProxy) -> AsyncIterator[Redis]:
    async with a_client(proxy, WAIT_SECONDS) as client:
        yield client


def a_client(proxy: FaultProxy, seconds: float) -> Redis:
    """Make a client that waits so long for an answer, and never asks again."""
    retry = Retry(NoBackoff(), 0)
    return Redis(host=HOST, port=proxy.port, retry=retry, socket_timeout=seconds, protocol=2)


async def test_a_calm_proxy_changes_nothing(redis: Redis) -> None:
    value = random.Random(2).randbytes(1_000_000)
    await redis.set("key", value)
    assert await redis.get("key") == value


async def test_a_swallowed_reply_was_to_a_command_that_ran_once(
    proxy: FaultProxy, redis: Redis
) -> None:
    await redis.ping()
    proxy.swallows = 1
    with pytest.raises(ConnectionError):
        await redis.xadd("stream", {"a": "b"}, id="1-1")
    assert await redis.xlen("stream") == 1
    assert proxy.injected["swallow"] == 1
    await redis.xadd("stream", {"a": "b"}, id="1-2")


async def test_only_replies_to_what_is_asked_for_are_swallowed(
    proxy: FaultProxy, redis: Redis
) -> None:
    proxy.swallow_share = 1.0
    await redis.set("key", "value")
    assert await redis.get("key") == b"value"
    with pytest.raises(ConnectionError):
        await redis.xadd("stream", {"a": "b"})


async def test_a_reset_is_seen_by_the_client(proxy: FaultProxy, redis: Redis) -> None:
    waiting = asyncio.ensure_future(redis.blpop(["none"], timeout=WAIT_SECONDS / 2))
    await until(lambda: proxy.reset() == 1)
    with pytest.raises(ConnectionError):
        await waiting


async def test_a_blackhole_is_silent_until_it_ends(proxy: FaultProxy, redis: Redis) -> None:
    proxy.blackhole = True
    async with a_client(proxy, 0.3) as hasty:
        with pytest.raises(TimeoutError):
            await hasty.ping()
    proxy.blackhole = False
    assert await redis.ping()


@pytest.mark.parametrize(
    ("fault", "amount"), [("latency", 1.5), ("bytes_per_second", 20_000)], ids=lambda it: str(it)
)
async def test_a_slow_way_outlasts_a_short_patience(
    proxy: FaultProxy, redis: Redis, fault: str, amount: float
) -> None:
    await redis.set("key", bytes(100_000))
    setattr(proxy, fault, amount)
    async with a_client(proxy, 0.5) as hasty:
        with pytest.raises(TimeoutError):
            await hasty.get("key")
    proxy.calm()
    assert len(await redis.get("key") or b"") == 100_000


async def test_what_is_sliced_arrives_whole(proxy: FaultProxy, redis: Redis) -> None:
    proxy.slice_bytes = 7
    await redis.set("key", bytes(range(256)))
    assert await redis.get("key") == bytes(range(256))
