"""Leases of live streams, as every store keeps them: memory, and a real Redis."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection

from app.events import CallIdentity, HeldStream
from app.store.base import Store, StreamClaim
from tests.waiting import until

LEASE = 0.2
LONG = 60.0
ALL = 1000


def held(number: int, started_at: int = 1_700_000_000_000) -> HeldStream:
    call = CallIdentity(f"CA{number}", f"MZ{number}", "shop", "premium", "twilio")
    return HeldStream(call, started_at, 600)


async def claim(
    store: Store, limit: int = ALL, claim_seconds: float = LONG
) -> Collection[HeldStream]:
    return await store.claim_lost_streams(limit, LEASE, claim_seconds)


async def claimed(ask: Callable[[], Awaitable[Collection[HeldStream]]]) -> list[HeldStream]:
    """Ask until something is claimed, as a replica does that never pauses."""
    return list(await until(ask))


async def nothing_claimed_for(seconds: float, store: Store, *renewed: HeldStream) -> bool:
    """Renew and ask over and over; tell whether nothing was ever given."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        await store.hold_streams(renewed, LEASE)
        if await claim(store):
            return False
        await asyncio.sleep(0.01)
    return True


async def run_out(store: Store) -> None:
    """Let every lease run out, while somebody reaches the store all along."""
    end = time.monotonic() + 2 * LEASE
    while time.monotonic() < end:
        await claim(store, limit=0)
        await asyncio.sleep(0.01)


async def test_a_stream_whose_lease_ran_out_is_claimed_with_all_that_was_said(
    store: Store,
) -> None:
    await store.hold_streams([held(1)], LEASE)
    assert await claimed(lambda: claim(store)) == [held(1)]


async def test_a_stream_that_is_renewed_is_never_claimed(store: Store) -> None:
    await store.hold_streams([held(1)], LEASE)
    assert await nothing_claimed_for(3 * LEASE, store, held(1))


async def test_a_stream_that_was_let_go_is_not_claimed(store: Store) -> None:
    await store.hold_streams([held(1), held(2)], LEASE)
    await store.let_go([held(2), held(3)])
    assert await claimed(lambda: claim(store)) == [held(1)]


async def test_a_claimed_stream_is_not_claimed_by_another(store: Store) -> None:
    await store.hold_streams([held(1)], LEASE)
    await claimed(lambda: claim(store))
    assert await nothing_claimed_for(2 * LEASE, store)


async def test_of_many_who_claim_at_once_one_gets_each_stream(store: Store) -> None:
    streams = [held(number) for number in range(10)]
    await store.hold_streams(streams, LEASE)

    found: list[HeldStream] = []

    async def ask() -> bool:
        for answer in await asyncio.gather(*(claim(store, limit=3) for _ in range(8))):
            found.extend(answer)
        return len(found) >= 10

    await until(ask)
    assert sorted(one.call.stream_sid for one in found) == [f"MZ{n}" for n in range(10)]


async def test_a_claim_that_is_not_followed_up_runs_out_too(store: Store) -> None:
    await store.hold_streams([held(1)], LEASE)
    for _ in range(2):
        assert await claimed(lambda: claim(store, claim_seconds=0.05)) == [held(1)]
    await store.let_go([held(1)])
    assert await nothing_claimed_for(LEASE, store)


async def test_a_holder_that_lives_has_its_claimed_stream_back(store: Store) -> None:
    await store.hold_streams([held(1)], LEASE)
    await claimed(lambda: claim(store, claim_seconds=0.05))
    await store.hold_streams([held(1)], LONG)
    assert await nothing_claimed_for(2 * LEASE, store)


async def test_no_more_are_claimed_than_asked_for(store: Store) -> None:
    await store.hold_streams([held(number) for number in range(5)], LEASE)
    await run_out(store)
    assert len(await claimed(lambda: claim(store, limit=2))) == 2
    assert len(await claimed(lambda: claim(store, limit=ALL))) == 3


async def test_many_streams_are_held_and_claimed_whole(store: Store) -> None:
    streams = {held(number) for number in range(450)}
    await store.hold_streams(streams, LEASE)
    found: set[HeldStream] = set()
    while len(found) < len(streams):  # they are held, and run out, some at a time
        some = await claimed(lambda: claim(store))
        assert found.isdisjoint(some)
        found.update(some)
    assert found == streams
    await store.let_go(streams)
    assert await nothing_claimed_for(LEASE, store)


async def test_an_id_that_starts_again_is_another_stream(store: Store) -> None:
    await store.hold_streams([held(1, 1), held(1, 2)], LEASE)
    await store.let_go([held(1, 2)])
    assert await claimed(lambda: claim(store)) == [held(1, 1)]


async def test_after_a_pause_of_all_nothing_is_claimed_before_a_whole_lease(
    store: Store,
) -> None:
    await store.hold_streams([held(1)], LONG)
    await nothing_claimed_for(2 * LEASE, store)  # time enough, to begin with
    await store.hold_streams([held(1)], LEASE)
    await asyncio.sleep(2 * LEASE)
    # A holder that comes back a moment after the others is in time.
    assert await claim(store) == []
    assert await nothing_claimed_for(2 * LEASE, store, held(1))
    assert await claimed(lambda: claim(store)) == [held(1)]


async def test_a_store_that_nobody_reached_before_gives_nothing_at_once(store: Store) -> None:
    await store.hold_streams([held(1)], 0.001)
    await asyncio.sleep(0.01)
    assert await claim(store) == []


# ------------------------------------------------------------------------- claims


def named(business_id: str, started_at: int, stream_sid: str = "MZ1") -> HeldStream:
    call = CallIdentity("CA1", stream_sid, business_id, "premium", "twilio")
    return HeldStream(call, started_at, 600)


async def reaped(store: Store, dead: HeldStream) -> None:
    """Let the lease of a stream run out, while somebody reaches the store all along."""
    assert dead in await claimed(lambda: claim(store, claim_seconds=0.001))


async def granted(store: Store, held: HeldStream) -> None:
    """Claim an id as a replica does that never pauses, until it is granted."""

    async def is_granted() -> bool:
        return await store.claim_stream(held, LEASE) is StreamClaim.GRANTED

    await until(is_granted)


async def test_of_many_replicas_that_claim_an_id_at_once_one_gets_it(store: Store) -> None:
    claims = [named("shop" if n % 2 else "bank", n) for n in range(1, 11)]
    answers = await asyncio.gather(*(store.claim_stream(one, LONG) for one in claims))
    [winner] = [
        one for one, answer in zip(claims, answers, strict=True) if answer is StreamClaim.GRANTED
    ]
    for one, answer in zip(claims, answers, strict=True):
        if one is winner:
            continue
        is_own = one.call.business_id == winner.call.business_id
        assert answer is (StreamClaim.LIVE_ELSEWHERE if is_own else StreamClaim.OTHER_BUSINESS)
    assert await store.held_streams() == [winner]


async def test_an_id_can_be_claimed_again_once_it_was_released_or_let_go(store: Store) -> None:
    first, second, third = (named("shop", n) for n in (1, 2, 3))
    await store.claim_stream(first, LONG)
    await store.release_claim(second)  # which never had it
    assert await store.claim_stream(second, LONG) is StreamClaim.LIVE_ELSEWHERE
    await store.release_claim(first)
    assert await store.claim_stream(second, LONG) is StreamClaim.GRANTED
    await store.let_go([first])
    assert await store.claim_stream(third, LONG) is StreamClaim.LIVE_ELSEWHERE
    await store.let_go([second])
    assert await store.claim_stream(third, LONG) is StreamClaim.GRANTED
    assert await store.held_streams() == [third]


async def test_the_id_of_a_replica_that_died_can_be_claimed_when_its_lease_has_run_out(
    store: Store,
) -> None:
    dead = named("shop", 1)
    await store.claim_stream(dead, LEASE)
    await reaped(store, dead)
    await granted(store, named("shop", 2))


async def test_a_holder_that_was_cut_off_learns_whose_its_id_is_now(store: Store) -> None:
    frozen, other = named("shop", 1), named("shop", 3, "MZ2")
    await store.claim_stream(frozen, LEASE)
    await store.claim_stream(other, LONG)
    await reaped(store, frozen)
    later = named("shop", 2)
    await granted(store, later)
    await store.hold_streams([later], LONG)
    refused = await store.hold_streams([frozen, other], LEASE)
    assert refused == [(frozen, StreamClaim.LIVE_ELSEWHERE)]
    assert later in await store.held_streams()


async def test_a_holder_that_was_cut_off_has_its_id_back_if_nobody_claimed_it(
    store: Store,
) -> None:
    frozen = named("shop", 1)
    await store.claim_stream(frozen, LEASE)
    await reaped(store, frozen)
    await store.let_go([frozen])
    assert await store.hold_streams([frozen], LONG) == []
    assert await store.claim_stream(named("shop", 2), LONG) is StreamClaim.LIVE_ELSEWHERE


async def test_after_a_pause_of_the_store_the_living_keep_their_ids(store: Store) -> None:
    """No replica could renew its lease meanwhile, so one that ran out proves nothing."""
    living = named("shop", 1)
    await store.claim_stream(living, LEASE)
    await asyncio.sleep(2 * LEASE)
    assert await store.claim_stream(named("bank", 2), LEASE) is StreamClaim.OTHER_BUSINESS
    assert await store.hold_streams([living], LEASE) == []


async def test_letting_go_leaves_the_lease_of_another_business_alone(store: Store) -> None:
    """Two streams of one id that began in the same millisecond have one name."""
    theirs, mine = named("bank", 1), named("shop", 1)
    await store.claim_stream(theirs, LONG)
    assert await store.claim_stream(mine, LONG) is StreamClaim.OTHER_BUSINESS
    await store.let_go([mine])
    assert await store.held_streams() == [theirs]
    assert await store.claim_stream(named("shop", 2), LONG) is StreamClaim.OTHER_BUSINESS
