"""What every store promises of a month's calls and minutes: memory, a real Redis, a cluster."""

import asyncio

import pytest

from app.store.base import SlotAnswer, Store
from app.store.redis import RedisStore
from app.store.usage import (
    Counting,
    Crossing,
    Limit,
    MonthOfUse,
    by_month,
    month_of,
    months_until,
)
from tests.store.conftest import PATIENT, emptied

LONG = 60.0
MINUTE = 60_000
# 2026-11-30 23:59:59 UTC and a second later.
NOVEMBER, DECEMBER = 1_796_083_199_000, 1_796_083_200_000


async def take(
    store: Store,
    call_sid: str,
    *,
    at: int = NOVEMBER,
    slots: int = 9,
    takes_over: str = "",
    **limits: float,
) -> SlotAnswer:
    known = {Limit(f"{name.replace('_', '_per_month_')}"): value for name, value in limits.items()}
    return await store.take_slot(
        "shop", call_sid, slots, LONG, counting=Counting(at, known, takes_over)
    )


async def month(store: Store, name: str = "2026-11") -> MonthOfUse:
    [use] = await store.usage_of("shop", [name])
    return use


# ------------------------------------------------------------------------ calls


async def test_a_month_without_a_call_is_empty(store: Store) -> None:
    assert await store.usage_of("shop", ["2026-11", "2025-01"]) == [
        MonthOfUse("2026-11"),
        MonthOfUse("2025-01"),
    ]
    assert await store.usage_of("shop", []) == []


async def test_a_call_counts_when_it_takes_its_slot_and_never_again(store: Store) -> None:
    await take(store, "CA1", at=NOVEMBER - 5)
    await take(store, "CA1")
    await store.free_slot("shop", "CA1")
    await take(store, "CA1", at=DECEMBER)
    assert await month(store) == MonthOfUse("2026-11", 1, 0, NOVEMBER - 5, NOVEMBER - 5)
    assert (await month(store, "2026-12")).calls == 0


async def test_a_call_counts_in_the_month_in_which_it_came(store: Store) -> None:
    await take(store, "CA1", at=NOVEMBER)
    await take(store, "CA2", at=DECEMBER)
    assert [use.calls for use in await store.usage_of("shop", ["2026-12", "2026-11"])] == [1, 1]


async def test_a_call_that_got_no_slot_does_not_count(store: Store) -> None:
    await take(store, "CA1", slots=1)
    assert await take(store, "CA2", slots=1) is SlotAnswer.ALL_TAKEN
    assert (await month(store)).calls == 1


async def test_a_slot_that_does_not_count_counts_nothing(store: Store) -> None:
    await store.take_slot("shop", "CA1", 1, LONG)
    assert (await month(store)).calls == 0


async def test_a_call_under_a_made_up_id_counts_once_with_the_real_one(store: Store) -> None:
    await take(store, "url-1", calls_hard=1)
    await store.free_slot("shop", "url-1")
    assert await take(store, "CA1", takes_over="url-1", calls_hard=1)
    assert await take(store, "CA1", calls_hard=1)
    assert (await month(store)).calls == 1
    assert not await take(store, "CA2", takes_over="url-unheard-of", calls_hard=1)


async def test_businesses_have_a_month_each(store: Store) -> None:
    await take(store, "CA1", calls_hard=1)
    counting = Counting(NOVEMBER, {Limit.CALLS_HARD: 1})
    assert await store.take_slot("bank", "CA1", 9, LONG, counting=counting)
    assert (await month(store)).calls == 1


# -------------------------------------------------------------------- hard limits


async def test_calls_beyond_the_hard_limit_are_refused_until_the_next_month(store: Store) -> None:
    answers = [await take(store, f"CA{n}", calls_hard=2) for n in range(3)]
    assert answers == [SlotAnswer.TAKEN, SlotAnswer.TAKEN, SlotAnswer.MONTH_USED_UP]
    assert await store.slots_taken("shop") == 2
    assert await take(store, "CA9", at=DECEMBER, calls_hard=2)
    assert (await month(store)).calls == 2


async def test_of_many_calls_at_once_as_many_count_as_the_month_allows(store: Store) -> None:
    answers = await asyncio.gather(
        *(take(store, f"CA{n}", slots=999, calls_hard=7) for n in range(50))
    )
    assert answers.count(SlotAnswer.TAKEN) == 7
    assert (await month(store)).calls == 7


async def test_a_call_that_has_counted_is_let_in_again_at_the_limit(store: Store) -> None:
    await take(store, "CA1", calls_hard=1)
    assert await take(store, "CA1", calls_hard=1)
    await store.free_slot("shop", "CA1")
    assert await take(store, "CA1", calls_hard=1)


async def test_a_call_that_holds_a_slot_keeps_it_whatever_the_month_says(store: Store) -> None:
    await take(store, "CA1", calls_hard=1)
    await store.renew_slots("shop", ["CA2"], LONG)
    assert await take(store, "CA2", calls_hard=1)
    assert (await month(store)).calls == 2


async def test_minutes_at_the_hard_limit_refuse_the_next_call(store: Store) -> None:
    assert await take(store, "CA1", minutes_hard=2)
    await store.note_usage("shop", "2026-11", NOVEMBER, streams={"MZ1@1": 2 * MINUTE - 1})
    assert await take(store, "CA2", minutes_hard=2)
    await store.note_usage("shop", "2026-11", NOVEMBER, streams={"MZ1@1": 2 * MINUTE})
    assert await take(store, "CA3", minutes_hard=2) is SlotAnswer.MONTH_USED_UP
    assert await take(store, "CA1", minutes_hard=2)


async def test_a_limit_of_none_at_all_refuses_the_first_call(store: Store) -> None:
    assert await take(store, "CA1", calls_hard=0) is SlotAnswer.MONTH_USED_UP
    assert await take(store, "CA1", minutes_hard=0) is SlotAnswer.MONTH_USED_UP


# ------------------------------------------------------------------------- notes


async def test_what_is_told_again_adds_only_what_is_new(store: Store) -> None:
    for ms in (6_000, 12_000, 12_000, 9_000):
        use, _ = await store.note_usage("shop", "2026-11", NOVEMBER, streams={"MZ1@1": ms})
    assert use.ms == 12_000
    use, _ = await store.note_usage(
        "shop", "2026-11", NOVEMBER, streams={"MZ1@1": 12_500, "MZ1@2": 1, "MZ2@1": 10}
    )
    assert use.ms == 12_511
    assert await month(store) == use


async def test_a_stream_counts_in_each_of_its_months(store: Store) -> None:
    await store.note_usage("shop", "2026-11", NOVEMBER, streams={"MZ1@1": 1_000})
    await store.note_usage("shop", "2026-12", DECEMBER, streams={"MZ1@1": 5_000})
    assert [use.ms for use in await store.usage_of("shop", ["2026-11", "2026-12"])] == [1000, 5000]


async def test_a_call_that_is_noted_later_counts_once(store: Store) -> None:
    await take(store, "CA1")
    for _ in range(2):
        use, _ = await store.note_usage("shop", "2026-11", NOVEMBER, calls=["CA1", "CA2"])
    assert use.calls == 2
    assert await take(store, "CA2", calls_hard=2)
    assert (await month(store)).calls == 2


async def test_a_limit_is_crossed_once(store: Store) -> None:
    limits = {Limit.CALLS_SOFT: 2.0, Limit.MINUTES_SOFT: 1.0, Limit.CALLS_HARD: 9.0}
    crossed = []
    for call in ("CA1", "CA2", "CA3"):
        _, found = await store.note_usage("shop", "2026-11", NOVEMBER, calls=[call], limits=limits)
        crossed.append(found)
    assert crossed == [[], [Crossing(Limit.CALLS_SOFT, 2, NOVEMBER)], []]
    _, found = await store.note_usage(
        "shop", "2026-11", NOVEMBER, streams={"MZ1@1": MINUTE}, limits=limits
    )
    assert found == [Crossing(Limit.MINUTES_SOFT, 1, NOVEMBER)]
    assert {crossing.limit for crossing in (await month(store)).crossed} == {
        Limit.CALLS_SOFT,
        Limit.MINUTES_SOFT,
    }


async def test_a_limit_that_was_raised_can_be_crossed_again(store: Store) -> None:
    found = []
    for n, allowed in enumerate((1.0, 3.0, 3.0, 3.0), 1):
        _, crossed = await store.note_usage(
            *("shop", "2026-11", NOVEMBER), calls=[f"CA{n}"], limits={Limit.CALLS_SOFT: allowed}
        )
        found.append([crossing.allowed for crossing in crossed])
    assert found == [[1.0], [], [3.0], []]
    assert (await month(store)).crossed == (Crossing(Limit.CALLS_SOFT, 3.0, NOVEMBER),)


async def test_of_two_replicas_one_hears_of_a_crossing(redis_url: str) -> None:
    url = await emptied(redis_url)
    one, two = (RedisStore.from_url(url, timeout_seconds=PATIENT) for _ in range(2))
    try:
        answers = await asyncio.gather(
            *(
                (one, two)[n % 2].note_usage(
                    *("shop", "2026-11", NOVEMBER),
                    calls=[f"CA{n}"],
                    streams={"MZ1@1": n},
                    limits={Limit.CALLS_SOFT: 5.0},
                )
                for n in range(40)
            )
        )
        assert sum(len(crossed) for _, crossed in answers) == 1
        assert await month(one) == await month(two)
        assert (await month(one)).calls == 40
        assert (await month(one)).ms == 39
    finally:
        await one.close()
        await two.close()


# ------------------------------------------------------------------------ months


@pytest.mark.parametrize(
    ("at", "name"),
    [(NOVEMBER, "2026-11"), (NOVEMBER + 999, "2026-11"), (DECEMBER, "2026-12"), (0, "1970-01")],
)
def test_a_month_is_one_of_utc(at: int, name: str) -> None:
    assert month_of(at) == name


@pytest.mark.parametrize(
    ("started_at", "ms", "shares"),
    [
        (NOVEMBER, 0, {}),
        (NOVEMBER, 1_000, {"2026-11": 1_000}),
        (NOVEMBER, 1_001, {"2026-11": 1_000, "2026-12": 1}),
        (DECEMBER, 7, {"2026-12": 7}),
        (
            NOVEMBER,
            1_000 + 31 * 86_400_000 + 5,
            {"2026-11": 1_000, "2026-12": 31 * 86_400_000, "2027-01": 5},
        ),
    ],
    ids=["nothing", "to the border", "beyond it", "from it", "a whole month"],
)
def test_time_is_shared_out_among_its_months(
    started_at: int, ms: int, shares: dict[str, int]
) -> None:
    assert by_month(started_at, ms) == shares


def test_the_last_months_are_named_from_the_newest() -> None:
    assert months_until(DECEMBER, 2) == ["2026-12", "2026-11"]
    assert months_until(1_767_225_600_000, 3) == ["2026-01", "2025-12", "2025-11"]
    assert len(set(months_until(DECEMBER, 24))) == 24
