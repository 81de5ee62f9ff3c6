"""How workers share streams: the contract, in process, in Redis, in a cluster."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass

import pytest
from redis.asyncio import Redis

from app.consumer import memory, redis
from app.consumer.memory import GroupState, MemorySharing
from app.consumer.redis import RedisSharing
from app.consumer.sharing import MAX_FAILURES, Claim, Sharing, StreamName
from app.errors import StoreUnavailable
from tests.redis_groups import Cluster, cluster
from tests.waiting import until

LEASE_SECONDS = 0.4
ONE, TWO, THREE = (StreamName(f"MZ{n}", 1_800_000_000_00 + n) for n in (1, 2, 3))


@dataclass(frozen=True)
class Group:
    """A group: `worker` makes one more of its workers."""

    worker: Callable[[], Sharing]


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("cluster"), fsync=None) as running:
        yield running


@pytest.fixture(params=["memory", "redis", "cluster"])
async def group(
    request: pytest.FixtureRequest, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Group]:
    made: list[Sharing] = []
    monkeypatch.setattr(memory, "FAILED_SECONDS", 0.05)
    monkeypatch.setattr(redis, "FAILED_SECONDS", 0.05)
    if request.param == "memory":
        state = GroupState()
        yield Group(lambda: MemorySharing(time.monotonic, state, LEASE_SECONDS))
        return
    url = redis_url
    if request.param == "cluster":
        running: Cluster = request.getfixturevalue("nodes")
        url = running.url
        for node in running.masters:
            node.command("FLUSHALL")
    else:
        async with Redis.from_url(url) as client:
            await client.flushall()

    def worker() -> Sharing:
        made.append(RedisSharing(url, "test", LEASE_SECONDS))
        return made[-1]

    yield Group(worker)
    for one in made:
        await one.close()


async def founded(group: Group, *names: StreamName) -> Sharing:
    worker = group.worker()
    assert await worker.begin("5-0", names) == "5-0"
    return worker


def in_one(number: int) -> str:
    """Return an id of an entry of stream ONE."""
    return f"{ONE.started_at}-{number}"


def fresh(*names: StreamName) -> list[Claim]:
    return [Claim(name, name.beginning) for name in names]


async def claimed(worker: Sharing) -> list[Claim]:
    """Claim again and again, until there is something."""
    found: list[Claim] = await until(lambda: worker.claim(9))
    return found


async def test_a_group_has_no_cursor_until_it_is_founded(group: Group) -> None:
    assert await group.worker().cursor() is None
    await founded(group, ONE)
    assert await group.worker().cursor() == "5-0"


async def test_a_group_is_founded_once(group: Group) -> None:
    await founded(group, ONE)
    assert await group.worker().begin("9-0", [TWO]) == "5-0"
    assert await group.worker().claim(9) == fresh(ONE)


async def test_each_stream_is_given_to_one_worker_the_oldest_first(group: Group) -> None:
    await founded(group, THREE, ONE, TWO)
    assert await group.worker().claim(2) == fresh(ONE, TWO)
    assert await group.worker().claim(2) == fresh(THREE)
    assert await group.worker().claim(2) == []


async def test_what_begins_is_enlisted_once_by_whoever_reads_on_first(group: Group) -> None:
    worker, other = await founded(group), group.worker()
    assert await worker.enlist("5-0", "7-0", [ONE], []) == "7-0"
    assert await other.enlist("5-0", "6-0", [ONE, TWO], []) == "7-0"
    assert await other.claim(9) == fresh(ONE)


async def test_a_start_that_is_announced_again_is_known(group: Group) -> None:
    worker = await founded(group, ONE, TWO)
    await worker.claim(1)
    await worker.finish(ONE, "8-1")
    await worker.enlist("5-0", "6-0", [ONE, TWO], [])
    assert await worker.claim(9) == fresh(TWO)


async def test_a_stream_whose_worker_died_goes_on_behind_what_was_acknowledged(
    group: Group,
) -> None:
    dead, heir = await founded(group, ONE), group.worker()
    await dead.claim(1)
    assert await dead.hold({ONE: in_one(17)}) == frozenset()
    # Others show that workers reach the state; the dead one does not.
    await asyncio.gather(*(heir.hold({}) for _ in range(2)))
    found: list[Claim] = await until(lambda: heir.claim(1))
    assert found == [Claim(ONE, in_one(17))]
    assert await dead.hold({ONE: in_one(99)}) == {ONE}
    assert await heir.hold({ONE: in_one(18)}) == frozenset()


@pytest.mark.parametrize("late", [in_one(0), in_one(9), f"{ONE.started_at - 1}-99"])
async def test_a_renewal_that_arrives_late_takes_no_acknowledgement_back(
    group: Group, late: str
) -> None:
    worker, heir = await founded(group, ONE), group.worker()
    await worker.claim(1)
    assert await worker.hold({ONE: in_one(17)}) == frozenset()
    assert await worker.hold({ONE: late}) == frozenset()
    await asyncio.gather(*(heir.hold({}) for _ in range(2)))
    found: list[Claim] = await until(lambda: heir.claim(1))
    assert found == [Claim(ONE, in_one(17))]


async def test_what_a_worker_does_with_anothers_stream_has_no_effect(group: Group) -> None:
    slow, heir = await founded(group, ONE), group.worker()
    await slow.claim(1)
    await claimed(heir)
    await slow.finish(ONE, "8-1")
    assert await slow.release(ONE, "8-1")
    await heir.release(ONE, "8-5")
    assert await heir.claim(1) == [Claim(ONE, "8-5")]


async def test_a_lease_that_is_renewed_is_nobody_elses(group: Group) -> None:
    worker, other = await founded(group, ONE), group.worker()
    await worker.claim(1)
    deadline = time.monotonic() + 2 * LEASE_SECONDS
    while time.monotonic() < deadline:
        if await worker.hold({ONE: "8-1"}):
            pytest.skip("this machine stood still for longer than a lease")
        assert await other.claim(1) == []
        await asyncio.sleep(LEASE_SECONDS / 20)


async def test_what_is_released_goes_to_whoever_asks_next(group: Group) -> None:
    worker, other = await founded(group, ONE), group.worker()
    await worker.claim(1)
    assert await worker.release(ONE, "8-3")
    assert await other.claim(1) == [Claim(ONE, "8-3")]


async def test_what_fails_is_given_again_until_it_has_failed_too_often(group: Group) -> None:
    worker = await founded(group, ONE)
    for failures in range(1, MAX_FAILURES + 1):
        assert len(await claimed(worker)) == 1
        is_given_again = await worker.release(ONE, "8-3", has_failed=True)
        assert is_given_again == (failures < MAX_FAILURES)
    await worker.enlist("5-0", "6-0", [ONE, TWO], [])
    assert await worker.claim(9) == fresh(TWO)


async def test_a_lost_stream_that_lives_is_given_again_from_where_it_was_read(
    group: Group,
) -> None:
    worker = await founded(group, ONE, TWO)
    await worker.claim(2)
    await worker.finish(ONE, "8-3", is_lost=True)
    await worker.finish(TWO, "8-4")
    await worker.enlist("5-0", "6-0", [], [ONE.stream_sid, TWO.stream_sid, "MZ9"])
    assert await worker.claim(9) == [Claim(ONE, "8-3")]
    await worker.finish(ONE, "9-3")
    await worker.enlist("6-0", "7-0", [], [ONE.stream_sid])
    assert await worker.claim(9) == []


# --------------------------------------------------------------------- in Redis alone


@pytest.fixture
async def one(redis: Redis, redis_url: str) -> AsyncIterator[RedisSharing]:
    worker = RedisSharing(redis_url, "test", LEASE_SECONDS)
    yield worker
    await worker.close()


async def test_after_a_time_without_workers_nobody_is_taken_for_dead_at_once(
    one: RedisSharing, redis: Redis
) -> None:
    await one.begin("5-0", [ONE])
    await one.claim(1)
    # As after an outage: no worker was seen for long, and every lease has run out.
    await redis.hset("consumer:{test}", "last", 1)
    await redis.zadd("consumer:{test}:calls", {str(ONE): 1})
    assert await one.claim(1) == []
    assert await one.hold({ONE: "8-1"}) == frozenset()


async def test_a_broker_that_has_forgotten_the_group_is_told_again_who_holds_what(
    one: RedisSharing, redis: Redis
) -> None:
    await one.begin("5-0", [ONE])
    await one.claim(1)
    await redis.flushall()
    assert await one.hold({ONE: "8-1"}) == frozenset()
    assert await one.claim(1) == []
    assert await one.enlist("7-0", "8-0", [TWO], []) == "8-0"
    assert await one.claim(1) == fresh(TWO)


async def test_a_worker_without_calls_shows_that_workers_reach_redis(
    one: RedisSharing, redis: Redis
) -> None:
    await one.begin("5-0", [])
    await one.hold({})
    assert await redis.hexists("consumer:{test}", "last")


async def test_every_key_of_a_group_expires(one: RedisSharing, redis: Redis) -> None:
    await one.begin("5-0", [ONE, TWO, THREE])
    await one.claim(3)
    await one.finish(ONE, "8-1", is_lost=True)
    await one.release(TWO, "8-1", has_failed=True)
    keys = sorted(await redis.keys())
    more = ["at", "by", "calls", "done", "failed", "lost"]
    assert keys == [b"consumer:{test}", *(f"consumer:{{test}}:{one}".encode() for one in more)]
    assert all([await redis.ttl(key) > 0 for key in keys])


async def test_a_redis_that_is_not_there_is_named(unused_tcp_port: int) -> None:
    worker = RedisSharing(f"redis://127.0.0.1:{unused_tcp_port}/0", "test")
    with pytest.raises(StoreUnavailable, match="Redis failed"):
        await worker.cursor()
    await worker.close()
