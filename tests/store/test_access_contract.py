"""What is promised of keys, sessions and attempts, on each adapter."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from redis.asyncio import Redis

from app.errors import StoreUnavailable
from app.store.access import MOST_ATTEMPTS, Access, AccessKey, Session
from app.store.memory_access import MemoryAccess
from app.store.redis_access import RedisAccess
from tests.redis_groups import Cluster
from tests.store.conftest import PATIENT, emptied
from tests.waiting import until

LONG = 60.0
SHORT = 0.05
KEY = AccessKey("k1", "shop", "The till, Zoë's", "d" * 64, created_at=1_000)
OTHER = AccessKey("k2", "bank", "Other", "e" * 64, created_at=1_000)
SESSION = Session("f" * 64, "key:k1", "shop", "k1")


@pytest.fixture(params=["memory", "redis", "cluster"])
async def access(request: pytest.FixtureRequest, redis_url: str) -> AsyncIterator[Access]:
    """Give an empty adapter, once of each kind."""
    adapter: Access
    if request.param == "memory":
        adapter = MemoryAccess(time.monotonic)
    elif request.param == "redis":
        adapter = RedisAccess.from_url(await emptied(redis_url), timeout_seconds=PATIENT)
    else:
        running: Cluster = request.getfixturevalue("nodes")
        for node in running.masters:
            node.command("FLUSHALL")
        adapter = RedisAccess.from_url(running.url, timeout_seconds=PATIENT)
    await adapter.open()
    yield adapter
    await adapter.close()


# ------------------------------------------------------------------------- keys


async def test_a_key_is_found_by_its_digest_and_by_its_id(access: Access) -> None:
    await access.add_key(KEY)
    await access.add_key(OTHER)
    assert await access.key_of(KEY.digest) == KEY
    assert await access.key("shop", "k1") == KEY
    assert await access.keys_of("shop") == [KEY]


@pytest.mark.parametrize("digest", ["", "x", "d" * 63, "D" * 64, "\x00", "☎"])
async def test_a_digest_that_no_key_has_finds_none(access: Access, digest: str) -> None:
    await access.add_key(KEY)
    assert await access.key_of(digest) is None


@pytest.mark.parametrize(
    ("business_id", "key_id"), [("bank", "k1"), ("shop", "k2"), ("shop", ""), ("shop", "k1:used")]
)
async def test_a_key_is_its_own_business_s_alone(
    access: Access, business_id: str, key_id: str
) -> None:
    await access.add_key(KEY)
    await access.note_use(KEY, 5)
    assert await access.key(business_id, key_id) is None
    assert not await access.revoke_key(business_id, key_id)
    assert await access.key_of(KEY.digest) is not None


async def test_keys_are_listed_the_oldest_first(access: Access) -> None:
    keys = [replace(KEY, id=f"k{n}", digest=str(n) * 64, created_at=n) for n in (3, 1, 2)]
    for key in keys:
        await access.add_key(key)
    assert [key.created_at for key in await access.keys_of("shop")] == [1, 2, 3]
    assert await access.keys_of("bank") == []


async def test_a_revoked_key_is_gone(access: Access) -> None:
    await access.add_key(KEY)
    assert await access.revoke_key("shop", "k1")
    assert not await access.revoke_key("shop", "k1")
    assert await access.key_of(KEY.digest) is None
    assert await access.key("shop", "k1") is None
    assert await access.keys_of("shop") == []


async def test_the_use_of_a_key_is_remembered(access: Access) -> None:
    await access.add_key(KEY)
    await access.note_use(KEY, 1_700_000_000_000)
    used = replace(KEY, last_used_at=1_700_000_000_000)
    assert await access.key_of(KEY.digest) == used
    assert await access.keys_of("shop") == [used]


async def test_the_use_of_a_revoked_key_does_not_bring_it_back(access: Access) -> None:
    await access.add_key(KEY)
    await access.revoke_key("shop", "k1")
    await access.note_use(KEY, 5)
    assert await access.key_of(KEY.digest) is None
    assert await access.keys_of("shop") == []


async def test_a_business_that_is_forgotten_has_no_keys(access: Access) -> None:
    for key in (KEY, OTHER):
        await access.add_key(key)
    await access.forget("shop")
    assert await access.key_of(KEY.digest) is None
    assert await access.key("shop", "k1") is None
    assert await access.key_of(OTHER.digest) == OTHER


# --------------------------------------------------------------------- sessions


async def test_a_session_lasts_until_it_is_ended(access: Access) -> None:
    await access.begin_session(SESSION, LONG)
    assert await access.session_of(SESSION.digest, LONG) == SESSION
    assert await access.session_of("0" * 64, LONG) is None
    await access.end_session(SESSION.digest)
    assert await access.session_of(SESSION.digest, LONG) is None
    await access.end_session(SESSION.digest)


async def test_a_session_that_is_not_used_runs_out(access: Access) -> None:
    await access.begin_session(SESSION, SHORT)
    await asyncio.sleep(2 * SHORT)
    assert await access.session_of(SESSION.digest, LONG) is None


async def test_a_session_that_is_used_is_kept_for_so_long_again(access: Access) -> None:
    await access.begin_session(SESSION, 0.5)
    assert await access.session_of(SESSION.digest, LONG) == SESSION
    await asyncio.sleep(0.6)
    assert await access.session_of(SESSION.digest, LONG) == SESSION


# --------------------------------------------------------------------- attempts


async def test_attempts_are_counted_for_each_address(access: Access) -> None:
    assert await access.attempts_of("192.0.2.1") == 0
    assert [await access.note_attempt("192.0.2.1", LONG) for _ in range(3)] == [1, 2, 3]
    assert await access.note_attempt("2001:db8::/64", LONG) == 1
    assert await access.attempts_of("192.0.2.1") == 3


async def test_an_attempt_counts_for_its_time_and_no_longer(access: Access) -> None:
    await access.note_attempt("192.0.2.1", SHORT)
    await access.note_attempt("192.0.2.1", LONG)

    async def one_is_left() -> bool:
        return await access.attempts_of("192.0.2.1") == 1

    await until(one_is_left)


async def test_no_more_attempts_are_remembered_than_may_be(access: Access) -> None:
    for _ in range(MOST_ATTEMPTS + 5):
        counted = await access.note_attempt("192.0.2.1", LONG)
    assert counted == MOST_ATTEMPTS


# ----------------------------------------------------------------- Redis alone


async def test_a_key_itself_stands_nowhere_in_redis_but_by_its_digest(redis_url: str) -> None:
    url = await emptied(redis_url)
    access = RedisAccess.from_url(url, timeout_seconds=PATIENT)
    await access.add_key(KEY)
    await access.begin_session(SESSION, LONG)
    await access.note_attempt("192.0.2.1", LONG)
    async with Redis.from_url(url) as redis:
        names = {name.decode() for name in await redis.keys()}
        assert names == {
            "keys:{shop}",
            f"key:{{{KEY.digest}}}",
            f"session:{{{SESSION.digest}}}",
            "attempts:{192.0.2.1}",
        }
        for name in names - {"keys:{shop}", f"key:{{{KEY.digest}}}"}:
            assert 0 < await redis.pttl(name) <= LONG * 1000
        await redis.hset("keys:{shop}", "k1", b"broken")
    with pytest.raises(StoreUnavailable):
        await access.key_of(KEY.digest)
    await access.close()


async def test_of_a_revoked_key_nothing_is_left_in_redis(redis_url: str) -> None:
    url = await emptied(redis_url)
    access = RedisAccess.from_url(url, timeout_seconds=PATIENT)
    await access.add_key(KEY)
    await access.note_use(KEY, 5)
    await access.revoke_key("shop", "k1")
    await access.note_use(KEY, 6)
    async with Redis.from_url(url) as redis:
        assert await redis.keys() == []
    await access.close()


async def test_what_one_replica_revokes_another_refuses_at_once(redis_url: str) -> None:
    url = await emptied(redis_url)
    one, two = (RedisAccess.from_url(url, timeout_seconds=PATIENT) for _ in range(2))
    await one.add_key(KEY)
    assert await two.key_of(KEY.digest) == KEY
    await one.revoke_key("shop", "k1")
    assert await two.key_of(KEY.digest) is None
    await one.close()
    await two.close()
