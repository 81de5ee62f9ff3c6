"""Whether what is stored of businesses works, asked of a real Redis."""

import time
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from app.diagnosis.business_checks import BusinessChecks
from app.diagnosis.findings import Finding, Level, well
from app.diagnosis.steps import Step, examine
from app.plans import Business, Directory, Plan
from app.store.redis import RedisStore

SHARED = "a" * 64
PLAN = Plan("premium")
GOOD = Business("good", "Good", "premium", ("+12763659195",), "+14155550100")
ABROAD = Business("abroad", "Abroad", "premium", ("+12763659196",), "+18765550199")
PAIRED = Business("paired", "Paired", "premium", exotel_pairs=("b" * 64, SHARED))


@pytest.fixture
async def store(redis_url: str) -> AsyncIterator[RedisStore]:
    url = redis_url.rsplit("/", 1)[0] + "/7"
    async with Redis.from_url(url) as client:
        await client.flushdb()
    store = RedisStore.from_url(url)
    yield store
    await store.close()


async def examined(store: RedisStore) -> dict[str, Finding]:
    async def reached() -> list[Finding]:
        return [well("redis", "It answers.")]

    first = Step("redis", reached, well("redis", ""))
    steps = [first, *BusinessChecks(store, {SHARED}).steps()]
    found = await examine(steps, lambda finding: None, time.monotonic)
    return {one.check: one for one in found}


async def test_names_businesses_whose_calls_are_not_forwarded(store: RedisStore) -> None:
    await store.load_if_empty(Directory((PLAN,), (GOOD, ABROAD, PAIRED)))
    found = await examined(store)
    assert found["forwarding"].cause == "forwarding_not_allowed"
    assert "abroad (plan premium): forward_to is in JM" in found["forwarding"].found
    assert "good" not in found["forwarding"].found
    assert found["exotel_pairs"].cause == "exotel_pair_shared"
    assert found["exotel_pairs"].found.endswith("pair: paired.")
    assert SHARED not in str(found)


async def test_businesses_that_work_are_well(store: RedisStore) -> None:
    await store.load_if_empty(Directory((PLAN,), (GOOD,)))
    found = await examined(store)
    assert found["forwarding"].level is found["exotel_pairs"].level is Level.OK
