"""What is promised of keys, sessions and attempts, on each adapter."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from redis.asyncio import Redis

from app.errors import NotThere, StoreUnavailable
from app.store.access import MOST_ATTEMPTS, MOST_SESSIONS, Access, AccessKey, Session
from app.store.memory_access import MemoryAccess
from app.store.redis_access import LISTED_SECONDS, RedisAccess
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


LIMITED = [
    replace(KEY, role="viewer"),
    replace(KEY, role="agent", expires_at=5_000),
    replace(KEY, expires_at=5_000),
]


@pytest.mark.parametrize("key", LIMITED)
async def test_key_with_role_or_expiry_is_found_used_and_revoked(
    access: Access, key: AccessKey
) -> None:
    await access.add_key(key)
    assert await access.key_of(key.digest) == await access.key("shop", "k1") == key
    assert await access.keys_of("shop") == [key]
    await access.note_use(key, 7)
    assert await access.key("shop", "k1") == replace(key, last_used_at=7)
    assert await access.keys_of("shop") == [replace(key, last_used_at=7)]
    assert await access.key("shop", "k1:limited") is None
    assert await access.revoke_key("shop", "k1")
    await access.note_use(key, 8)
    assert await access.key_of(key.digest) is None
    assert await access.keys_of("shop") == []


# --------------------------------------------------------------------- sessions


async def test_a_session_lasts_until_it_is_ended(access: Access) -> None:
    await access.begin_session(SESSION, LONG)
    assert await access.session_of(SESSION.digest, LONG) == SESSION
    assert await access.session_of("0" * 64, LONG) is None
    await access.end_session(SESSION)
    assert await access.session_of(SESSION.digest, LONG) is None
    await access.end_session(SESSION)


async def test_sessions_of_a_key_are_listed_the_newest_first(access: Access) -> None:
    begun = [replace(SESSION, digest=str(n) * 64, began_at=n, browser="Firefox") for n in (1, 3, 2)]
    for session in begun:
        await access.begin_session(session, LONG)
    await access.begin_session(replace(SESSION, digest="9" * 64, key_id="k2", began_at=9), LONG)
    found = await access.sessions_of("k1")
    assert found == sorted(begun, key=lambda one: -one.began_at)
    await access.end_session(found[0])
    assert await access.sessions_of("k1") == found[1:]
    assert await access.sessions_of("k3") == []


async def test_session_that_ran_out_is_not_listed(access: Access) -> None:
    await access.begin_session(SESSION, SHORT)
    await asyncio.sleep(2 * SHORT)
    assert await access.sessions_of("k1") == []


async def test_what_changes_of_a_session_is_stored_unless_it_has_ended(access: Access) -> None:
    await access.begin_session(SESSION, LONG)
    used = replace(SESSION, began_at=5, last_used_at=9, address="192.0.2.1")
    await access.save_session(used)
    assert await access.session_of(SESSION.digest, LONG) == used
    assert await access.sessions_of("k1") == [used]
    await access.end_session(used)
    await access.save_session(used)
    assert await access.session_of(SESSION.digest, LONG) is None
    assert await access.sessions_of("k1") == []


async def test_oldest_of_too_many_sessions_of_a_key_end(access: Access) -> None:
    other = replace(SESSION, digest="0" * 64, key_id="k2")
    await access.begin_session(other, LONG)
    begun = [replace(SESSION, digest=f"{n:064x}", began_at=n) for n in range(1, MOST_SESSIONS + 3)]
    for session in begun:
        await access.begin_session(session, LONG)
    assert await access.sessions_of("k1") == begun[:1:-1]
    for session in begun[:3]:
        found = await access.session_of(session.digest, LONG)
        assert (found is None) is (session in begun[:2])
    assert await access.sessions_of("k2") == [other]


@pytest.mark.parametrize("how", ["revoke", "forget"])
async def test_sessions_end_with_their_key(access: Access, how: str) -> None:
    for key in (KEY, replace(LIMITED[0], id="k3", digest="3" * 64), OTHER):
        await access.add_key(key)
        session = replace(SESSION, digest=key.digest, key_id=key.id, business_id=key.business_id)
        await access.begin_session(session, LONG)
    if how == "revoke":
        await access.revoke_key("shop", "k1")
    else:
        await access.forget("shop")
    assert await access.session_of(KEY.digest, LONG) is None
    assert await access.sessions_of("k1") == []
    assert (await access.session_of("3" * 64, LONG) is None) is (how == "forget")
    assert await access.session_of(OTHER.digest, LONG) is not None


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
            "sessions:{k1}",
            "attempts:{192.0.2.1}",
        }
        for name in names - {"keys:{shop}", f"key:{{{KEY.digest}}}"}:
            longest = LISTED_SECONDS if name == "sessions:{k1}" else LONG
            assert 0 < await redis.pttl(name) <= longest * 1000

        await redis.hset("keys:{shop}", "k1", b"broken")
    with pytest.raises(StoreUnavailable):
        await access.key_of(KEY.digest)
    await access.close()


OLD_KEY = b'{"id":"k1","business_id":"shop","label":"Till","digest":"%s","created_at":1}'
OLD_SESSION = b'{"digest":"%s","actor":"key:k1","business_id":"shop","key_id":"k1"}'


async def test_reads_what_version_0_1_stored(redis_url: str) -> None:
    url = await emptied(redis_url)
    access = RedisAccess.from_url(url, timeout_seconds=PATIENT)
    async with Redis.from_url(url) as redis:
        await redis.set(f"key:{{{KEY.digest}}}", "k1 shop")
        await redis.hset("keys:{shop}", "k1", OLD_KEY % KEY.digest.encode())
        await redis.set(f"session:{{{SESSION.digest}}}", OLD_SESSION % SESSION.digest.encode())
    found = await access.key_of(KEY.digest)
    session = await access.session_of(SESSION.digest, LONG)
    await access.close()
    assert found is not None
    assert (found.role, found.expires_at) == ("admin", 0)
    assert session == SESSION


@pytest.mark.parametrize("key", [KEY, *LIMITED])
async def test_version_0_1_finds_only_keys_that_may_do_all_it_would_let_them(
    redis_url: str, key: AccessKey
) -> None:
    """It reads the field ID, passes over fields with a colon, and knows no roles."""
    url = await emptied(redis_url)
    access = RedisAccess.from_url(url, timeout_seconds=PATIENT)
    await access.add_key(key)
    await access.close()
    async with Redis.from_url(url) as redis:
        fields = [name.decode() for name in await redis.hkeys("keys:{shop}")]
        assert (":" not in fields[0]) is (key == KEY)
        assert (await redis.hget("keys:{shop}", "k1") is not None) is (key == KEY)


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


async def test_no_key_is_added_to_a_deleted_business(redis_url: str) -> None:
    url = await emptied(redis_url)
    access = RedisAccess.from_url(url, timeout_seconds=PATIENT)
    async with Redis.from_url(url) as redis:
        await redis.set("live:{shop}:deleted", "{}")
        with pytest.raises(NotThere):
            await access.add_key(KEY)
        await access.add_key(OTHER)
        assert sorted(map(bytes.decode, await redis.keys())) == [
            f"key:{{{OTHER.digest}}}",
            "keys:{bank}",
            "live:{shop}:deleted",
        ]
    await access.close()


async def test_memory_adds_no_key_to_a_deleted_business() -> None:
    access = MemoryAccess(time.monotonic)
    await access.add_key(KEY)
    await access.forget("shop")
    with pytest.raises(NotThere):
        await access.add_key(KEY)
    await access.add_key(OTHER)
    assert (await access.keys_of("shop"), await access.keys_of("bank")) == ([], [OTHER])
