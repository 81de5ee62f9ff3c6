"""Each store for the contract, and a database of its own for the one in Redis."""

import time
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from app.store.base import Store
from app.store.memory import MemoryStore
from app.store.redis import RedisStore

DATABASE = 9
# What is promised here is no figure of speed: a busy machine may be slow.
PATIENT = 5.0


async def emptied(redis_url: str) -> str:
    """Give the URL of an empty database on the server."""
    url = redis_url.rsplit("/", 1)[0] + f"/{DATABASE}"
    async with Redis.from_url(url) as client:
        await client.flushdb()
    return url


@pytest.fixture(params=["memory", "redis"])
async def store(request: pytest.FixtureRequest, redis_url: str) -> AsyncIterator[Store]:
    """Give an empty store, once of each kind."""
    adapter: Store
    if request.param == "memory":
        adapter = MemoryStore(time.monotonic)
    else:
        adapter = RedisStore.from_url(await emptied(redis_url), timeout_seconds=PATIENT)
    await adapter.open()
    yield adapter
    await adapter.close()
