"""One batch at a time to a real cluster: what each part of it is answered."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from app.errors import BrokerError, BrokerRefused, BrokerReplaced
from app.events import EndEntry
from app.pubsub.base import Append, OpenStream, Outcome, audio_key
from app.pubsub.redis_streams import RedisStreams
from app.topology import slot_of
from tests.redis_groups import Cluster, cluster
from tests.redis_process import HOST, RedisProcess, eventually
from tests.samples import a_record

START = 1_700_000_000_000


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Cluster]:
    with cluster(tmp_path, masters=3, replicas_each=1) as running:
        yield running


@pytest.fixture
async def streams(nodes: Cluster) -> AsyncIterator[RedisStreams]:
    adapter = RedisStreams(nodes.url)
    yield adapter
    await adapter.close()


def named(holds: Callable[[str], bool]) -> str:
    return next(name for name in map("MZ{}".format, count()) if holds(name))


def end_of(stream: str, n: int = 1) -> Append:
    return Append(stream, START, n, EndEntry(n, "stop"), 100)


def opening_of(stream: str) -> OpenStream:
    return OpenStream(stream, a_record(START), 600)


def on(nodes: Cluster, streams: RedisStreams, master: RedisProcess, lane: int) -> str:
    """Find a stream that a lane writes to this node."""
    first, last = next(
        (first, last)
        for first, last, owner, *_ in nodes.nodes[0].command("CLUSTER", "SLOTS")
        if owner[1] == master.port
    )

    def fits(name: str) -> bool:
        key = audio_key(name)
        return first <= slot_of(key) <= last and streams.lane_of(key) == lane

    return named(fits)


async def test_of_a_batch_for_two_nodes_the_part_of_a_dead_one_is_to_be_tried_again(
    nodes: Cluster, streams: RedisStreams
) -> None:
    lane = streams.lane_of(audio_key(named(lambda name: slot_of(audio_key(name)) == 5461)))
    one, other = (on(nodes, streams, master, lane) for master in nodes.masters[:2])
    await streams.write([opening_of(one), opening_of(other)])
    assert list(await streams.write([end_of(one), end_of(other)])) == [Outcome.WRITTEN] * 2
    nodes.masters[1].kill()
    outcomes = await streams.write([end_of(one, 2), end_of(other, 2), end_of(one, 3)])
    assert list(outcomes) == [Outcome.WRITTEN, Outcome.RETRY, Outcome.WRITTEN]


async def test_a_write_follows_a_key_that_has_left_ahead_of_its_slot(
    nodes: Cluster, streams: RedisStreams
) -> None:
    await streams.write([opening_of("MZ1")])
    assert list(await streams.write([end_of("MZ1")])) == [Outcome.WRITTEN]
    key = audio_key("MZ1")
    slot = slot_of(key)
    source = nodes.owner(slot)
    target = next(node for node in nodes.masters if node is not source)
    ids = [node.command("CLUSTER", "MYID").decode() for node in (source, target)]
    target.command("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[0])
    source.command("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[1])
    source.command("MIGRATE", HOST, target.port, key, 0, 5000)
    # The slot is still the source's; it says ASK.
    assert list(await streams.write([end_of("MZ1", 2)])) == [Outcome.WRITTEN]
    assert list(await streams.write([end_of("MZ1", 2)])) == [Outcome.CONFLICT]


async def test_a_node_that_takes_anothers_place_is_noticed_before_anything_is_written(
    nodes: Cluster, streams: RedisStreams
) -> None:
    await streams.write([opening_of("MZ1"), end_of("MZ1")])
    dead = nodes.owner(slot_of(audio_key("MZ1")))
    dead.kill()
    nodes.wait_for_failover(dead)
    assert await first_answer(streams) is BrokerReplaced
    assert list(await streams.write([end_of("MZ1", 2)])) == [Outcome.WRITTEN]


async def first_answer(streams: RedisStreams) -> type[BrokerError] | None:
    """Write until the cluster has noticed that a node died; tell how that was answered."""
    async with asyncio.timeout(30):
        while True:
            try:
                await streams.write([end_of("MZ1", 2)])
            except BrokerReplaced:
                return BrokerReplaced
            except BrokerError:
                continue
            return None


async def test_a_cluster_that_is_down_refuses(nodes: Cluster, streams: RedisStreams) -> None:
    for node in nodes.nodes:
        node.kill()
    with pytest.raises(BrokerRefused):
        await streams.write([end_of("MZ1")])
    nodes.masters[0].start()
    eventually(lambda: nodes.masters[0].command("PING"), "a node is back")
    with pytest.raises(BrokerRefused, match="clusterdown"):
        await streams.write([end_of(on(nodes, streams, nodes.masters[0], 0))])
