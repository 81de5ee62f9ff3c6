"""What editing in Redis promises beyond the port: other replicas, and edits that break off."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from app.errors import (
    AlreadyThere,
    BusinessHasCalls,
    EditedMeanwhile,
    NumberTaken,
    StoreUnavailable,
)
from app.events import CallIdentity, HeldStream
from app.plans import Business, Plan
from app.store import redis_configuration
from app.store.redis import RedisStore
from tests.store.conftest import PATIENT, emptied

KEPT, OLD, NEW = "+15005550001", "+15005550002", "+15005550003"
GOLD = Plan("gold")
SHOP = Business("shop", "Shop", "gold", (KEPT, OLD))
MOVED = replace(SHOP, numbers=(KEPT, NEW))
BANK = Business("bank", "Bank", "gold")
# More commands than any edit here takes.
MOST_COMMANDS = 25


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class DyingRedis(Redis):
    """A client whose process dies after so many commands: none comes through any more."""

    commands_left = 10_000

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        self.commands_left -= 1
        if self.commands_left < 0:
            raise RedisConnectionError("the process is gone")
        return await super().execute_command(*args, **options)


@pytest.fixture
async def url(redis_url: str) -> str:
    return await emptied(redis_url)


@asynccontextmanager
async def opened(url: str, clock: Clock | None = None) -> AsyncIterator[RedisStore]:
    store = RedisStore.from_url(url, PATIENT, clock or Clock())
    try:
        yield store
    finally:
        await store.close()


async def test_what_one_replica_saves_another_sees_within_a_second(url: str) -> None:
    clock = Clock()
    async with opened(url) as one, opened(url, clock) as two:
        await one.add_plan(GOLD)
        await one.add_business(SHOP)
        await one.save_secrets("shop", {"token": "sealed"})
        await two.business_of_number(KEPT)
        clock.now += 0.3  # so that the parts of an answer are read at different times
        assert await two.business_of_number(OLD) == SHOP
        assert await two.lookup("shop") == (SHOP, GOLD)
        assert await two.secrets_of("shop") == {"token": "sealed"}

        better, richer = replace(GOLD, max_concurrent_calls=1), replace(MOVED, name="Corner Shop")
        await one.save_plan(better, 1)
        await one.save_business(richer, 1)
        await one.save_secrets("shop", {"token": ""})
        clock.now += 0.99
        assert await two.lookup("shop") == (richer, better)
        assert await two.business_of_number(NEW) == richer
        assert await two.business_of_number(OLD) is None
        assert await two.secrets_of("shop") == {}


async def test_the_replica_that_saves_sees_it_at_once(url: str) -> None:
    async with opened(url) as store:
        await store.add_plan(GOLD)
        await store.add_business(SHOP)
        assert await store.business_of_number(OLD) == SHOP
        assert await store.lookup("shop") == (SHOP, GOLD)
        await store.save_plan(replace(GOLD, frame_ms=60), 1)
        await store.save_business(MOVED, 1)
        assert await store.business_of_number(OLD) is None
        assert await store.business_of_number(NEW) == MOVED
        assert await store.lookup("shop") == (MOVED, replace(GOLD, frame_ms=60))


async def test_two_replicas_never_give_one_number_to_two(url: str) -> None:
    async with opened(url) as one, opened(url) as two:
        await one.add_plan(GOLD)
        for n in range(10):
            number = f"+1500555{n:04}"
            edits = [
                store.add_business(Business(f"{name}-{n}", "B", "gold", (number,)))
                for name, store in (("one", one), ("two", two))
            ]
            answers = await asyncio.gather(*edits, return_exceptions=True)
            assert sum(isinstance(answer, NumberTaken) for answer in answers) == 1
        owners = [number for b in await one.stored_businesses() for number in b.record.numbers]
        assert len(owners) == len(set(owners)) == 10


Edit = Callable[[RedisStore], Awaitable[object]]
EDITS: dict[str, Edit] = {
    "add": lambda store: store.add_business(replace(BANK, numbers=(NEW,))),
    "save": lambda store: store.save_business(MOVED, None),
    "delete": lambda store: store.delete_business("shop", None),
    "add a plan": lambda store: store.add_plan(Plan("new")),
    "delete a plan": lambda store: store.delete_plan("spare", None),
    "save secrets": lambda store: store.save_secrets("shop", {"token": "sealed"}),
}


@pytest.mark.parametrize("kind", EDITS)
async def test_an_edit_that_dies_at_any_point_leaves_nothing_to_stumble_over(
    url: str, kind: str
) -> None:
    for alive_for in range(MOST_COMMANDS):
        async with Redis.from_url(await emptied(url)) as admin, opened(url) as other:
            await other.add_plan(GOLD)
            await other.add_plan(Plan("spare"))
            await other.add_business(SHOP)
            dying = DyingRedis.from_url(url)
            dying.commands_left = alive_for
            try:
                await EDITS[kind](RedisStore(dying, timeout_seconds=PATIENT))
                was_whole = dying.commands_left >= 0
            except StoreUnavailable:
                was_whole = False
            finally:
                await dying.aclose()
            # The lease of a lock runs out.
            await admin.delete(redis_configuration.LOCK)
            await check_that_all_can_go_on(other, kind)
        if was_whole:
            return
    raise AssertionError("the edit never came to its end")


async def check_that_all_can_go_on(store: RedisStore, kind: str) -> None:
    """Look at what an edit left behind, make it again, and give its numbers to another."""
    listed = {one.record.id: one.record for one in await store.stored_businesses()}
    for number in (KEPT, OLD, NEW):
        owner = await store.business_of_number(number)
        assert owner is None or number in owner.numbers
        holders = [business for business in listed.values() if number in business.numbers]
        assert holders == ([owner] if owner else [])
    # It may have been made, with only its answer lost.
    with suppress(AlreadyThere, EditedMeanwhile):
        await EDITS[kind](store)
    for business_id in ("shop", "bank"):
        if await store.stored_business(business_id):
            await store.delete_business(business_id, None)
    heir = Business("heir", "Heir", "gold", (KEPT, OLD, NEW))
    await store.add_business(heir)
    for number in heir.numbers:
        assert await store.business_of_number(number) == heir
    assert [one.record.id for one in await store.stored_businesses()] == ["heir"]


async def test_a_claim_that_its_owner_does_not_list_leads_nobody_there(url: str) -> None:
    async with Redis.from_url(url) as redis, opened(url) as store:
        await store.add_plan(GOLD)
        await store.add_business(SHOP)
        await redis.set(f"number:{{{NEW}}}", "shop")
        assert await store.business_of_number(NEW) is None
        with pytest.raises(NumberTaken):
            await store.add_business(replace(BANK, numbers=(NEW, KEPT)))
        assert await store.business_of_number(KEPT) == SHOP
        await store.add_business(replace(BANK, numbers=(NEW,)))
        assert await store.business_of_number(NEW) == replace(BANK, numbers=(NEW,))


async def test_a_refused_edit_gives_its_claims_back(url: str) -> None:
    async with Redis.from_url(url, decode_responses=True) as redis, opened(url) as store:
        await store.add_plan(GOLD)
        await store.add_business(SHOP)
        with pytest.raises(NumberTaken):
            await store.add_business(replace(BANK, numbers=(NEW, KEPT)))
        assert set(await redis.keys("number:*")) == {f"number:{{{one}}}" for one in SHOP.numbers}


async def test_an_edit_waits_for_the_one_before_it(url: str) -> None:
    async with Redis.from_url(url) as redis, opened(url) as store:
        await redis.set(redis_configuration.LOCK, "another", px=200)
        await store.add_plan(GOLD)
        assert not await redis.exists(redis_configuration.LOCK)


async def test_an_edit_that_waits_too_long_gives_up_and_leaves_the_lock_alone(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_configuration, "EDIT_SECONDS", 0.1)
    async with Redis.from_url(url, decode_responses=True) as redis, opened(url) as store:
        await redis.set(redis_configuration.LOCK, "another")
        with pytest.raises(StoreUnavailable):
            await store.add_plan(GOLD)
        assert await redis.get(redis_configuration.LOCK) == "another"
        assert await store.stored_plans() == []


async def test_a_record_that_cannot_be_read_is_left_out_of_the_list(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with Redis.from_url(url) as redis, opened(url) as store:
        await store.add_plan(GOLD)
        await store.add_plan(Plan("spare"))
        await redis.hset("plan:{spare}", "frame_ms", "many")
        await redis.sadd("plans", "gone")
        assert [one.record.name for one in await store.stored_plans()] == ["gold"]
    assert "[plans.spare] frame_ms: must be a whole number" in caplog.text


async def test_a_save_keeps_the_fields_of_a_later_version(url: str) -> None:
    async with Redis.from_url(url, decode_responses=True) as redis, opened(url) as store:
        await store.add_plan(GOLD)
        await redis.hset("plan:{gold}", "colour", "yellow")
        await store.save_plan(replace(GOLD, frame_ms=60), 1)
        assert await redis.hget("plan:{gold}", "colour") == "yellow"


async def test_a_live_stream_keeps_its_business_from_being_deleted_without_a_slot(
    url: str,
) -> None:
    call = CallIdentity("CA1", "MZ1", "shop", "gold", "twilio")
    held = HeldStream(call, 1_700_000_000_000, 600)
    async with opened(url) as store, Redis.from_url(url) as redis:
        await store.add_plan(GOLD)
        await store.add_business(SHOP)
        await store.add_business(BANK)
        await store.hold_streams([held], 60.0)
        with pytest.raises(BusinessHasCalls):
            await store.delete_business("shop", None)
        await store.delete_business("bank", None)
        await redis.hset("stream:{MZ1}", mapping={"startedAt": held.started_at, "endedAt": 1})
        await store.delete_business("shop", None)
        # What a holder that was cut off holds since does not keep it from being finished.
        await redis.delete("stream:{MZ1}")
        await store.hold_streams([held], 60.0)
        await store.delete_business("shop", None)
        await store.finish_deletion("shop")
