"""What a replica remembers of the configuration decides without Redis only when confirmed."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from app.errors import AlreadyThere, StoreUnavailable
from app.plans import Business, Directory, Plan
from app.store.directory import CONFIGURED, EDITING
from app.store.redis import RedisStore
from app.store.redis_configuration import LOCK
from app.store.remembered import SERVED_SECONDS
from tests.store.conftest import PATIENT, emptied
from tests.store.test_redis_configuration import Clock

NUMBER, OTHER_NUMBER = "+15005550001", "+15005550002"
PAIR = "a" * 64
GOLD = Plan("gold")
SHOP = Business("shop", "Shop", "gold", (NUMBER,), exotel_pairs=(PAIR,))
BANK = Business("bank", "Bank", "gold", (OTHER_NUMBER,))

Editor = Callable[[RedisStore], Awaitable[Any]]
Reading = Callable[[RedisStore], Awaitable[Any]]


class SeveredRedis(Redis):
    """A client whose network may be cut."""

    is_cut = False

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        if self.is_cut:
            raise RedisConnectionError("the network is cut")
        return await super().execute_command(*args, **options)


@dataclass
class Replicas:
    """One that edits, and one that remembers and loses Redis."""

    editor: RedisStore
    store: RedisStore
    client: SeveredRedis
    redis: "Redis"
    clock: Clock


@asynccontextmanager
async def replicas_on(url: str) -> AsyncIterator[Replicas]:
    clock = Clock()
    async with SeveredRedis.from_url(url) as client, Redis.from_url(url) as redis:
        editor = RedisStore.from_url(url, PATIENT)
        store = RedisStore(client, timeout_seconds=PATIENT, clock=clock)
        yield Replicas(editor, store, client, redis, clock)
        await editor.close()


@pytest.fixture
async def replicas(redis_url: str) -> AsyncIterator[Replicas]:
    """Return both with a configuration, of which one remembers all."""
    async with replicas_on(await emptied(redis_url)) as made:
        await made.editor.add_plan(GOLD)
        await made.editor.add_business(SHOP)
        await made.editor.add_business(BANK)
        await made.editor.save_secrets("shop", {"token": "sealed"})
        await made.store.confirm_configuration()
        for reading in READINGS.values():
            assert await reading(made.store)
        yield made


READINGS: dict[str, Reading] = {
    "the number's owner": lambda store: store.business_of_number(NUMBER),
    "the pair's owner": lambda store: store.business_of_pair(PAIR),
    "the business": lambda store: store.business("shop"),
    "the secrets": lambda store: store.secrets_of("shop"),
    "the plan": lambda store: store.plan("gold"),
}


async def move_number(store: RedisStore) -> None:
    await store.save_business(replace(SHOP, numbers=()), None)
    await store.save_business(replace(BANK, numbers=(OTHER_NUMBER, NUMBER)), None)


EDITS: dict[str, tuple[Editor, str, Any]] = {
    "a number that moves": (
        move_number,
        "the number's owner",
        replace(BANK, numbers=(OTHER_NUMBER, NUMBER)),
    ),
    "a number that is removed": (
        lambda store: store.save_business(replace(SHOP, numbers=()), None),
        "the number's owner",
        StoreUnavailable,
    ),
    "a pair that is removed": (
        lambda store: store.save_business(replace(SHOP, exotel_pairs=()), None),
        "the pair's owner",
        StoreUnavailable,
    ),
    "a token that is removed": (
        lambda store: store.save_secrets("shop", {"token": ""}),
        "the secrets",
        StoreUnavailable,
    ),
    "a token that is replaced": (
        lambda store: store.save_secrets("shop", {"token": "another"}),
        "the secrets",
        {"token": "another"},
    ),
    "a business that is deleted": (
        lambda store: store.delete_business("shop", None),
        "the business",
        StoreUnavailable,
    ),
    "the number of a business that is deleted": (
        lambda store: store.delete_business("shop", None),
        "the number's owner",
        StoreUnavailable,
    ),
    "a plan that is changed": (
        lambda store: store.save_plan(replace(GOLD, frame_ms=60), None),
        "the plan",
        replace(GOLD, frame_ms=60),
    ),
}


async def outcome(reading: Awaitable[Any]) -> Any:
    """Return what is read, or the class of the error."""
    try:
        return await reading
    except StoreUnavailable:
        return StoreUnavailable


@pytest.mark.parametrize("reading", READINGS.values(), ids=READINGS)
async def test_serves_what_is_confirmed_while_redis_is_away(
    replicas: Replicas, reading: Reading
) -> None:
    before = await reading(replicas.store)
    replicas.clock.now += 3600  # nobody asked for an hour
    await replicas.store.confirm_configuration()
    replicas.client.is_cut = True
    replicas.clock.now += SERVED_SECONDS
    assert await reading(replicas.store) == before
    assert replicas.store.answers_from_memory


@pytest.mark.parametrize("reading", READINGS.values(), ids=READINGS)
async def test_serves_nothing_once_redis_was_away_for_too_long(
    replicas: Replicas, reading: Reading
) -> None:
    replicas.client.is_cut = True
    replicas.clock.now += SERVED_SECONDS + 1
    assert await outcome(reading(replicas.store)) is StoreUnavailable
    replicas.client.is_cut = False
    replicas.clock.now += 2
    assert await reading(replicas.store)


@pytest.mark.parametrize(("edit", "name", "after"), EDITS.values(), ids=EDITS)
async def test_serves_nothing_that_was_edited_since_it_was_read(
    replicas: Replicas, edit: Editor, name: str, after: Any
) -> None:
    await edit(replicas.editor)
    await replicas.store.confirm_configuration()
    replicas.client.is_cut = True
    replicas.clock.now += 5
    assert await outcome(READINGS[name](replicas.store)) == after


async def test_reads_the_rest_again_after_an_edit(replicas: Replicas) -> None:
    await replicas.editor.save_plan(replace(GOLD, frame_ms=60), None)
    await replicas.store.confirm_configuration()
    replicas.client.is_cut = True
    replicas.clock.now += 5
    for name, reading in READINGS.items():
        assert await reading(replicas.store), name


@pytest.mark.parametrize(("edit", "name", "after"), EDITS.values(), ids=EDITS)
async def test_the_replica_that_edits_serves_nothing_older(
    replicas: Replicas, edit: Editor, name: str, after: Any
) -> None:
    """It knows its own edit before it looks at the version again."""
    await edit(replicas.store)
    replicas.client.is_cut = True
    replicas.clock.now += 5
    assert await outcome(READINGS[name](replicas.store)) in (after, StoreUnavailable)


async def test_serves_nothing_that_was_never_confirmed(redis_url: str) -> None:
    async with replicas_on(await emptied(redis_url)) as replicas:
        await replicas.editor.load_if_empty(Directory((GOLD,), (SHOP,)))
        assert await replicas.store.business_of_number(NUMBER) == SHOP
        replicas.client.is_cut = True
        replicas.clock.now += 1
        assert await outcome(replicas.store.business_of_number(NUMBER)) is StoreUnavailable
        replicas.client.is_cut = False
        assert await replicas.store.confirm_configuration()
        replicas.client.is_cut = True
        assert await replicas.store.business_of_number(NUMBER) == SHOP


async def test_serves_nothing_while_an_edit_is_under_way(replicas: Replicas) -> None:
    await replicas.redis.set(LOCK, "another's edit")
    await replicas.redis.set(CONFIGURED, EDITING)
    assert await replicas.store.confirm_configuration() is None
    replicas.client.is_cut = True
    replicas.clock.now += 1
    assert await outcome(replicas.store.business_of_number(NUMBER)) is StoreUnavailable


async def test_what_is_read_during_an_edit_is_read_again_after_it(replicas: Replicas) -> None:
    await replicas.redis.set(LOCK, "another's edit")
    await replicas.redis.set(CONFIGURED, EDITING)
    await replicas.store.confirm_configuration()
    replicas.clock.now += 1
    assert await replicas.store.business_of_number(NUMBER) == SHOP
    await replicas.redis.hset("business:{shop}", "numbers", "")  # the edit's next step
    await replicas.redis.delete(LOCK)
    await replicas.redis.set(CONFIGURED, "after")
    assert await replicas.store.confirm_configuration() == "after"
    replicas.client.is_cut = True
    assert await outcome(replicas.store.business_of_number(NUMBER)) is StoreUnavailable


async def test_an_edit_of_version_0_1_is_seen_too(replicas: Replicas) -> None:
    """It writes `1` before each edit, and nothing after it."""
    before = await replicas.store.confirm_configuration()
    for name in ("One", "Two"):
        await replicas.redis.set(CONFIGURED, "1")
        await replicas.redis.hset("business:{shop}", "name", name)
        version = await replicas.store.confirm_configuration()
        assert version not in (None, "1", before)
        before = version
        replicas.client.is_cut = True
        replicas.clock.now += 1
        assert await replicas.store.business("shop") == replace(SHOP, name=name)
        replicas.client.is_cut = False
    assert not await replicas.redis.exists(LOCK)


async def test_every_edit_changes_the_version_also_one_that_is_refused(
    replicas: Replicas,
) -> None:
    versions = [await replicas.store.confirm_configuration()]
    for title, (edit, _, _) in EDITS.items():
        if not any(word in title for word in ("deleted", "moves")):
            await edit(replicas.editor)
            versions.append(await replicas.store.confirm_configuration())
    await replicas.editor.delete_business("shop", None)
    versions.append(await replicas.store.confirm_configuration())
    with pytest.raises(AlreadyThere):
        await replicas.editor.add_plan(GOLD)
    versions.append(await replicas.store.confirm_configuration())
    assert len(set(versions)) == len(versions)
    assert versions[-1] == await replicas.store.confirm_configuration()


async def test_what_cannot_be_read_any_more_is_not_served(replicas: Replicas) -> None:
    await replicas.redis.hset("plan:{gold}", "frame_ms", "many")
    await replicas.redis.set(CONFIGURED, "after")
    assert await replicas.store.confirm_configuration() == "after"
    replicas.client.is_cut = True
    replicas.clock.now += 1
    assert await outcome(replicas.store.plan("gold")) is StoreUnavailable
    assert await replicas.store.business("shop") == SHOP
