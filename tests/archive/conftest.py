"""Each archive for the contract: in process, in Redis, in a cluster."""

import time
from collections.abc import AsyncIterator, Iterator

import pytest
from redis.asyncio import Redis

from app.archive.memory import MemoryArchive
from app.archive.redis import RedisArchive
from app.pubsub.memory import MemoryPubSub
from app.pubsub.redis_streams import RedisStreams
from tests.archive.kept import NOW_MS, Kept
from tests.redis_groups import Cluster, cluster

# What is promised here is no figure of speed: a busy machine may be slow.
PATIENT = 20.0


@pytest.fixture(scope="package")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Give a cluster of three nodes for all tests of this folder."""
    with cluster(tmp_path_factory.mktemp("cluster"), fsync=None) as running:
        yield running


def wall_clock() -> float:
    """Tell the time: a minute after the calls of `tests.archive.kept`."""
    return NOW_MS / 1000 + 60


@pytest.fixture(params=["memory", "redis", "cluster"])
async def kept(request: pytest.FixtureRequest, redis_url: str) -> AsyncIterator[Kept]:
    """Give an empty archive, once of each kind."""
    if request.param == "memory":
        memory = MemoryPubSub(time.monotonic)
        yield Kept(memory, MemoryArchive(memory, wall_clock=wall_clock))
        return
    if request.param == "cluster":
        running: Cluster = request.getfixturevalue("nodes")
        for node in running.masters:
            node.command("FLUSHALL")
        url = running.url
    else:
        url = redis_url
        async with Redis.from_url(url) as client:
            await client.flushall()
    streams = RedisStreams(url)
    archive = RedisArchive(url, wall_clock=wall_clock, seconds=PATIENT)
    await archive.open()
    yield Kept(streams, archive)
    await archive.close()
    await streams.close()
