"""Each store for the contract, and a database of its own for the one in Redis."""

import time
from collections.abc import AsyncIterator, Iterator

import pytest
from redis.asyncio import Redis

from app.store.base import Store
from app.store.memory import MemoryStore
from app.store.redis import RedisStore
from tests.redis_groups import Cluster, cluster

DATABASE = 9
# What is promised here is no figure of speed: a busy machine may be slow.
PATIENT = 20.0


async def emptied(redis_url: str) -> str:
    """Give the URL of an empty database on the server."""
    url = redis_url.rsplit("/", 1)[0] + f"/{DATABASE}"
    async with Redis.from_url(url) as client:
        await client.flushdb()
    return url


@pytest.fixture(scope="package")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Give a cluster of three nodes for all tests of this folder."""
    with cluster(tmp_path_factory.mktemp("cluster"), fsync=None) as running:
        yield running


@pytest.fixture(params=["memory", "redis", "cluster"])
async def store(request: pytest.FixtureRequest, redis_url: str) -> AsyncIterator[Store]:
    """Give an empty store, once of each kind."""
    adapter: Store
    if request.param == "memory":
        adapter = MemoryStore(time.monotonic)
    elif request.param == "redis":
        adapter = RedisStore.from_url(await emptied(redis_url), timeout_seconds=PATIENT)
    else:
        running: Cluster = request.getfixturevalue("nodes")
        for node in running.masters:
            node.command("FLUSHALL")
        adapter = RedisStore.from_url(running.url, timeout_seconds=PATIENT)
    await adapter.open()
    yield adapter
    await adapter.close()
