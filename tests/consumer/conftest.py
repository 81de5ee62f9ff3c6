"""A bridge that writes calls, on a real Redis server that is empty at first."""

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from tests.consumer.bridge import Bridge


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    """Give a client of an empty server."""
    async with Redis.from_url(redis_url) as client:
        await client.flushall()
        yield client


@pytest.fixture
async def bridge(redis: Redis, redis_url: str) -> AsyncIterator[Bridge]:
    """Give what writes calls."""
    made = Bridge.at(redis_url)
    yield made
    await made.close()
