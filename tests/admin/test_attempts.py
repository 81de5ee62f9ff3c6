"""How often an address may present wrong credentials, on each way in."""

from contextlib import suppress

import pytest

from app.admin.attempts import (
    INGEST_LIMIT,
    MOST_ADDRESSES,
    WINDOW_SECONDS,
    AttemptLimiter,
    WayIn,
)
from app.credentials.addresses import ClientSource
from app.errors import StoreUnavailable, TooManyAttempts
from app.metrics import Metrics
from app.store.memory_access import MemoryAccess

GUESSER = ClientSource("192.0.2.1")
NEIGHBOUR = ClientSource("192.0.2.2")


class Clock:
    """A clock that moves only when a test moves it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class CountingAccess(MemoryAccess):
    """A store that counts its writes, and can be taken away."""

    away = False
    writes = 0

    async def note_attempt(self, address: str, seconds: float) -> int:
        self.writes += 1
        if self.away:
            raise StoreUnavailable("away")
        return await super().note_attempt(address, seconds)


class Bench:
    """A limiter with what it stands on."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.access = CountingAccess(self.clock)
        self.metrics = Metrics()
        self.limiter = self.another()

    def another(self) -> AttemptLimiter:
        return AttemptLimiter(self.access, self.clock, self.metrics)

    async def guess(self, number: int, source: ClientSource = GUESSER) -> str:
        """Try a wrong credential at /v1/ingest; return what came of it."""
        try:
            await self.limiter.note_failure(WayIn.INGEST, source, f"guess-{number}")
        except TooManyAttempts:
            return "limited"
        return "refused"

    def count(self, way: WayIn, outcome: str) -> float:
        labels = {"way": str(way), "outcome": outcome}
        name = "bridge_failed_credentials_total"
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


@pytest.fixture
def bench() -> Bench:
    return Bench()


async def test_limits_the_wrong_credentials_of_an_address_that_guesses(bench: Bench) -> None:
    outcomes = [await bench.guess(number) for number in range(400)]
    assert outcomes == ["refused"] * 20 + ["limited"] * 380
    assert bench.count(WayIn.INGEST, "refused") == 20
    assert bench.count(WayIn.INGEST, "limited") == 380


async def test_a_refusal_says_when_the_limit_ends(bench: Bench) -> None:
    for number in range(20):
        bench.clock.now += 1
        await bench.guess(number)
    with pytest.raises(TooManyAttempts) as caught:
        await bench.limiter.note_failure(WayIn.INGEST, GUESSER, "another")
    assert caught.value.retry_seconds == WINDOW_SECONDS - 18  # the second guess is the oldest


async def test_does_not_limit_an_address_that_did_not_fail(bench: Bench) -> None:
    for number in range(400):
        await bench.guess(number)
    assert await bench.guess(0, NEIGHBOUR) == "refused"


async def test_a_wrong_pair_that_is_repeated_counts_once(bench: Bench) -> None:
    outcomes = [await bench.guess(1) for _ in range(400)]
    assert outcomes == ["refused"] * 20 + ["limited"] * 380
    assert await bench.guess(2) == "refused"


async def test_the_form_refuses_before_a_comparison_unless_many_share_the_address(
    bench: Bench,
) -> None:
    for address in (GUESSER.address, "10.0.0.1"):
        for number in range(400):
            with suppress(TooManyAttempts):
                await bench.limiter.note_failure(WayIn.SIGN_IN, ClientSource(address), str(number))
    with pytest.raises(TooManyAttempts):
        await bench.limiter.check(WayIn.SIGN_IN, GUESSER)
    await bench.limiter.check(WayIn.SIGN_IN, ClientSource("10.0.0.1", is_shared=True))
    await bench.limiter.check(WayIn.SIGN_IN, NEIGHBOUR)


async def test_forgets_failures_after_their_time(bench: Bench) -> None:
    for number in range(400):
        await bench.guess(number)
    bench.clock.now += WINDOW_SECONDS
    assert [await bench.guess(number) for number in range(20)] == ["refused"] * 20


async def test_ways_in_are_counted_apart_but_for_those_of_one_group(bench: Bench) -> None:
    for number in range(400):
        await bench.guess(number)
    await bench.limiter.check(WayIn.SIGN_IN, GUESSER)
    for way in (WayIn.ADMIN_BEARER, WayIn.METRICS):
        await bench.limiter.note_failure(way, GUESSER, "wrong")
    with pytest.raises(TooManyAttempts):
        await bench.limiter.note_failure(WayIn.STREAM_URL, GUESSER, "wrong")


async def test_a_replica_hears_of_failures_at_another(bench: Bench) -> None:
    for number in range(INGEST_LIMIT.failures):
        await bench.guess(number)
    bench.limiter = bench.another()
    assert [await bench.guess(number) for number in range(100, 103)] == ["limited"] * 3


async def test_counts_alone_while_the_store_is_away(bench: Bench) -> None:
    bench.access.away = True
    outcomes = [await bench.guess(number) for number in range(22)]
    assert outcomes == ["refused"] * 20 + ["limited"] * 2


async def test_a_flood_writes_into_the_store_once_a_second(bench: Bench) -> None:
    for number in range(1000):
        await bench.guess(number, ClientSource("10.0.0.1", is_shared=True))
    assert bench.access.writes == INGEST_LIMIT.failures
    bench.clock.now += 1
    await bench.guess(1, ClientSource("10.0.0.1", is_shared=True))
    assert bench.access.writes == INGEST_LIMIT.failures + 1


async def test_remembers_a_bounded_number_of_addresses(bench: Bench) -> None:
    for number in range(MOST_ADDRESSES + 100):
        await bench.guess(0, ClientSource(f"address {number}"))
    assert len(bench.limiter._failures) == MOST_ADDRESSES
