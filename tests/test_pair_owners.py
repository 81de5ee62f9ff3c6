"""Look-ups of Exotel pairs: bounded, and none refused because of others."""

import asyncio
from dataclasses import replace

import pytest

from app.businesses.pair_owners import MOST_AT_ONCE, MOST_REMEMBERED, WRONG_SECONDS, PairOwners
from app.errors import StoreUnavailable
from app.plans import Business
from tests.waiting import WAIT_SECONDS, until

OWNER = Business(id="biz-a", name="A", plan="basic")


class SlowStore:
    """A store whose look-ups end when a test lets them, and which counts them."""

    def __init__(self) -> None:
        self.pairs = {"right": OWNER}
        self.answers = asyncio.Event()
        self.answers.set()
        self.is_away = False
        self.asked: list[str] = []
        self.at_once = self.most_at_once = 0

    async def find(self, digest: str) -> Business | None:
        self.asked.append(digest)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await self.answers.wait()
        finally:
            self.at_once -= 1
        if self.is_away:
            raise StoreUnavailable("away")
        return self.pairs.get(digest)


class Clock:
    """A clock that moves only when a test moves it."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def store() -> SlowStore:
    return SlowStore()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def owners(store: SlowStore, clock: Clock) -> PairOwners:
    return PairOwners(store.find, clock, wait_seconds=WAIT_SECONDS)


async def test_finds_the_owner_of_a_right_pair_and_none_of_a_wrong_one(owners: PairOwners) -> None:
    assert await owners.owner_of("right") == "biz-a"
    assert await owners.owner_of("wrong") == ""


async def test_a_right_pair_that_was_never_seen_waits_its_turn_among_guesses(
    owners: PairOwners, store: SlowStore
) -> None:
    store.answers.clear()
    guesses = [asyncio.create_task(owners.owner_of(f"guess-{n}")) for n in range(500)]
    right = asyncio.create_task(owners.owner_of("right"))
    await until(lambda: store.at_once == MOST_AT_ONCE)
    store.answers.set()
    assert await right == "biz-a"
    assert await asyncio.gather(*guesses) == [""] * 500
    assert store.most_at_once == MOST_AT_ONCE


async def test_a_pair_that_was_right_before_does_not_wait(
    owners: PairOwners, store: SlowStore
) -> None:
    await owners.owner_of("right")
    store.answers.clear()
    guesses = [asyncio.create_task(owners.owner_of(f"guess-{n}")) for n in range(50)]
    await until(lambda: store.at_once == MOST_AT_ONCE)
    right = asyncio.create_task(owners.owner_of("right"))
    await until(lambda: store.asked[-1] == "right")
    store.answers.set()
    assert await right == "biz-a"
    await asyncio.gather(*guesses)


async def test_one_look_up_serves_all_who_show_a_pair_at_once(
    owners: PairOwners, store: SlowStore
) -> None:
    store.answers.clear()
    all_of_it = [asyncio.create_task(owners.owner_of("right")) for _ in range(100)]
    await until(lambda: store.at_once == 1)
    all_of_it.pop(0).cancel()  # its peer has gone
    store.answers.set()
    assert await asyncio.gather(*all_of_it) == ["biz-a"] * 99
    assert store.asked == ["right"]


async def test_a_wrong_pair_costs_no_look_up_for_a_moment_and_is_good_soon_after_it_is_stored(
    owners: PairOwners, store: SlowStore, clock: Clock
) -> None:
    assert [await owners.owner_of("new") for _ in range(100)] == [""] * 100
    assert store.asked == ["new"]
    store.pairs["new"] = replace(OWNER, id="biz-b")
    clock.now += WRONG_SECONDS
    assert await owners.owner_of("new") == "biz-b"


async def test_a_pair_that_is_taken_away_is_wrong_at_once(
    owners: PairOwners, store: SlowStore
) -> None:
    assert await owners.owner_of("right") == "biz-a"
    store.pairs.clear()
    assert await owners.owner_of("right") == ""


async def test_a_store_that_is_away_is_an_error_and_no_wrong_pair(
    owners: PairOwners, store: SlowStore
) -> None:
    store.is_away = True
    with pytest.raises(StoreUnavailable):
        await owners.owner_of("right")
    store.is_away = False
    assert await owners.owner_of("right") == "biz-a"


async def test_a_wait_is_bounded(store: SlowStore, clock: Clock) -> None:
    owners = PairOwners(store.find, clock, wait_seconds=0.01)
    store.answers.clear()
    guesses = [asyncio.create_task(owners.owner_of(f"guess-{n}")) for n in range(MOST_AT_ONCE)]
    await until(lambda: store.at_once == MOST_AT_ONCE)
    with pytest.raises(StoreUnavailable, match="try again"):
        await owners.owner_of("right")
    store.answers.set()
    await asyncio.gather(*guesses)


async def test_remembers_a_bounded_number_of_pairs(owners: PairOwners, store: SlowStore) -> None:
    for number in range(MOST_REMEMBERED + 10):
        await owners.owner_of(f"guess-{number}")
    asked = len(store.asked)
    await owners.owner_of("guess-0")  # forgotten
    await owners.owner_of(f"guess-{MOST_REMEMBERED + 9}")
    assert len(store.asked) == asked + 1
