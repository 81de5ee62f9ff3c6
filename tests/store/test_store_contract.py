"""What every store promises, checked on each: memory, and a real Redis."""

import asyncio
import time

import pytest

from app.events import CallIdentity, HeldStream
from app.plans import Business, Directory, Plan
from app.store.base import CallEnd, SlotAnswer, Store
from app.store.usage import Counting
from tests.waiting import until

LONG = 60.0
SHORT = 0.05
PREMIUM = Plan("premium", max_concurrent_calls=7)
SHOP = Business("shop", "The Shop, Zoë's", "premium", ("+12763659195", "+442079460000"), "sip:a@b")
ORPHAN = Business("orphan", "Orphan", "gone")
DIRECTORY = Directory((PREMIUM,), (SHOP, ORPHAN))


# ---------------------------------------------------------------- configuration


async def test_an_empty_store_takes_the_directory_over_once(store: Store) -> None:
    assert await store.load_if_empty(DIRECTORY)
    other = Directory((Plan("premium", max_concurrent_calls=1),), ())
    assert not await store.load_if_empty(other)
    assert await store.plan("premium") == PREMIUM


async def test_an_empty_directory_leaves_the_store_empty(store: Store) -> None:
    assert not await store.load_if_empty(Directory())
    assert await store.load_if_empty(DIRECTORY)


async def test_a_large_directory_is_taken_over_whole(store: Store) -> None:
    businesses = tuple(
        Business(f"b{n}", f"Number {n}", "premium", (f"+1555{n:07}",)) for n in range(1200)
    )
    assert await store.load_if_empty(Directory((PREMIUM,), businesses))
    for n in (0, 499, 500, 1199):
        assert await store.business_of_number(f"+1555{n:07}") == businesses[n]


async def test_what_was_loaded_is_found_by_id_name_and_number(store: Store) -> None:
    await store.load_if_empty(DIRECTORY)
    assert await store.business("shop") == SHOP
    assert await store.business_of_number("+12763659195") == SHOP
    assert await store.business_of_number("+442079460000") == SHOP
    assert await store.lookup("shop") == (SHOP, PREMIUM)


async def test_a_business_without_its_plan_is_not_looked_up(store: Store) -> None:
    await store.load_if_empty(DIRECTORY)
    assert await store.business("orphan") == ORPHAN
    assert await store.lookup("orphan") is None


@pytest.mark.parametrize(
    "name",
    ["", "nobody", "a}b", "x" * 5000, "\x00", "\ud800", "☎"],
    ids=["empty", "unknown", "brace", "long", "nul", "surrogate", "emoji"],
)
async def test_a_name_that_nothing_bears_finds_nothing(store: Store, name: str) -> None:
    await store.load_if_empty(DIRECTORY)
    assert await store.plan(name) is None
    assert await store.business(name) is None
    assert await store.business_of_number(name) is None
    assert await store.lookup(name) is None


async def test_a_store_that_can_be_reached_passes_its_check(store: Store) -> None:
    await store.check()


# ---------------------------------------------------------------------- tickets


async def test_a_ticket_is_spent_once(store: Store) -> None:
    assert await store.spend_ticket("n1", LONG)
    assert not await store.spend_ticket("n1", LONG)
    assert await store.spend_ticket("n2", LONG)


async def test_of_many_who_spend_a_ticket_at_once_one_succeeds(store: Store) -> None:
    spent = await asyncio.gather(*(store.spend_ticket("n", LONG) for _ in range(20)))
    assert sum(spent) == 1


async def test_a_spent_ticket_is_forgotten_after_its_time(store: Store) -> None:
    assert await store.spend_ticket("n", SHORT)
    await until(lambda: store.spend_ticket("n", LONG))


async def test_a_spent_ticket_is_forgotten_while_an_earlier_one_is_remembered(
    store: Store,
) -> None:
    assert await store.spend_ticket("earlier", LONG)
    assert await store.spend_ticket("n", SHORT)
    await until(lambda: store.spend_ticket("n", LONG))
    assert not await store.spend_ticket("earlier", LONG)


async def test_whether_a_ticket_is_spent_can_be_asked_without_spending_it(store: Store) -> None:
    assert not await store.ticket_is_spent("n")
    assert await store.spend_ticket("n", LONG)
    assert await store.ticket_is_spent("n")
    assert not await store.ticket_is_spent("other")


async def test_a_call_is_seen_for_the_first_time_once(store: Store) -> None:
    assert await store.first_seen("CA1", LONG)
    assert not await store.first_seen("CA1", LONG)
    assert await store.first_seen("CA2", LONG)


async def test_a_call_and_a_ticket_of_one_name_have_nothing_in_common(store: Store) -> None:
    assert await store.first_seen("same", LONG)
    assert await store.spend_ticket("same", LONG)


# ------------------------------------------------------------------------ slots


async def test_slots_are_given_up_to_the_limit(store: Store) -> None:
    taken = [await store.take_slot("shop", f"CA{n}", 2, LONG) for n in range(3)]
    assert taken == [SlotAnswer.TAKEN, SlotAnswer.TAKEN, SlotAnswer.ALL_TAKEN]
    assert await store.slots_taken("shop") == 2


async def test_of_many_calls_at_once_as_many_get_a_slot_as_there_are(store: Store) -> None:
    taken = await asyncio.gather(*(store.take_slot("shop", f"CA{n}", 7, LONG) for n in range(200)))
    assert taken.count(SlotAnswer.TAKEN) == 7
    assert await store.slots_taken("shop") == 7


async def test_a_call_that_asks_again_keeps_its_one_slot(store: Store) -> None:
    for _ in range(3):
        assert await store.take_slot("shop", "CA1", 1, LONG)
    assert await store.slots_taken("shop") == 1


async def test_a_call_keeps_its_slot_under_a_limit_that_was_lowered(store: Store) -> None:
    assert await store.take_slot("shop", "CA1", 2, LONG)
    assert await store.take_slot("shop", "CA2", 2, LONG)
    assert await store.take_slot("shop", "CA1", 1, LONG)
    assert not await store.take_slot("shop", "CA3", 1, LONG)


async def test_businesses_do_not_share_slots(store: Store) -> None:
    assert await store.take_slot("shop", "CA1", 1, LONG)
    assert await store.take_slot("bank", "CA2", 1, LONG)
    assert await store.slots_taken("shop") == 1


async def test_a_freed_slot_serves_another_call(store: Store) -> None:
    assert await store.take_slot("shop", "CA1", 1, LONG)
    await store.free_slot("shop", "CA1")
    assert await store.slots_taken("shop") == 0
    assert await store.take_slot("shop", "CA2", 1, LONG)


@pytest.mark.parametrize("ended", [None, CallEnd.STREAM, CallEnd.FINAL])
async def test_the_slot_of_a_live_stream_is_freed_by_its_end_alone(
    store: Store, ended: CallEnd | None
) -> None:
    assert await store.take_slot("shop", "CA1", 1, LONG)
    await store.mark_live("shop", "CA1", "MZ1", LONG)
    await store.free_slot("shop", "CA1", ended)
    assert await store.slots_taken("shop") == 1
    await store.unmark_live("shop", "CA1", "MZ1")
    await store.free_slot("shop", "CA1", CallEnd.STREAM)
    assert await store.slots_taken("shop") == 0
    refused = await store.take_slot("shop", "CA1", 1, LONG, refused_after=CallEnd.FINAL)
    assert (refused is SlotAnswer.ENDED) is (ended is CallEnd.FINAL)


@pytest.mark.parametrize(
    ("ended", "refused_after", "answer"),
    [
        ([], CallEnd.STREAM, SlotAnswer.TAKEN),
        ([CallEnd.STREAM], None, SlotAnswer.TAKEN),
        ([CallEnd.STREAM], CallEnd.FINAL, SlotAnswer.TAKEN),
        ([CallEnd.STREAM], CallEnd.STREAM, SlotAnswer.ENDED),
        ([CallEnd.FINAL], None, SlotAnswer.TAKEN),
        ([CallEnd.FINAL], CallEnd.FINAL, SlotAnswer.ENDED),
        ([CallEnd.FINAL], CallEnd.STREAM, SlotAnswer.ENDED),
        ([CallEnd.STREAM, CallEnd.FINAL], CallEnd.FINAL, SlotAnswer.ENDED),
        ([CallEnd.FINAL, CallEnd.STREAM], CallEnd.FINAL, SlotAnswer.ENDED),
    ],
)
async def test_an_ended_call_is_refused_as_asked(
    store: Store, ended: list[CallEnd], refused_after: CallEnd | None, answer: SlotAnswer
) -> None:
    for how in ended:
        await store.free_slot("shop", "CA1", how)
    taken = await store.take_slot("shop", "CA1", 9, LONG, refused_after=refused_after)
    assert taken is answer
    assert await store.slots_taken("shop") == (1 if taken else 0)
    # Neither another business's call of this id nor another call has ended.
    assert await store.take_slot("bank", "CA1", 9, LONG, refused_after=CallEnd.STREAM)
    assert await store.take_slot("shop", "CA2", 9, LONG, refused_after=CallEnd.STREAM)


async def test_a_call_takes_over_the_slot_of_its_made_up_id(store: Store) -> None:
    assert await store.take_slot("shop", "url-1", 1, LONG)
    counting = Counting(0, takes_over="url-1")
    assert await store.take_slot("shop", "call-1", 1, LONG, counting=counting)
    assert await store.renew_slots("shop", ["call-1"], LONG) == set()
    assert await store.slots_taken("shop") == 1


async def test_a_made_up_id_is_taken_over_once(store: Store) -> None:
    assert await store.take_slot("shop", "url-1", 2, LONG)
    assert await store.take_slot("shop", "other", 2, LONG)
    taken = await asyncio.gather(
        *(
            store.take_slot("shop", f"call-{n}", 2, LONG, counting=Counting(0, takes_over="url-1"))
            for n in range(10)
        )
    )
    assert taken.count(SlotAnswer.TAKEN) == 1
    assert await store.slots_taken("shop") == 2


async def test_a_call_that_holds_a_slot_takes_over_no_other(store: Store) -> None:
    assert await store.take_slot("shop", "url-1", 9, LONG)
    assert await store.take_slot("shop", "live", 9, LONG)
    counting = Counting(0, takes_over="url-1")
    taken = await store.take_slot("shop", "live", 9, LONG, counting=counting)
    assert taken is SlotAnswer.HELD_BEFORE
    assert await store.slots_taken("shop") == 2


async def test_freeing_a_slot_that_is_not_held_has_no_effect(store: Store) -> None:
    assert await store.take_slot("shop", "CA1", 1, LONG)
    await store.free_slot("shop", "CA2")
    await store.free_slot("bank", "CA1")
    assert await store.slots_taken("shop") == 1


async def test_a_slot_whose_lease_ran_out_serves_another_call(store: Store) -> None:
    assert await store.take_slot("shop", "CA1", 1, SHORT)
    await until(lambda: store.take_slot("shop", "CA2", 1, LONG))
    assert await store.slots_taken("shop") == 1
    assert not await store.take_slot("shop", "CA1", 1, LONG)


async def test_a_lease_that_ran_out_is_not_counted(store: Store) -> None:
    assert await store.take_slot("shop", "CA1", 9, SHORT)
    assert await store.take_slot("shop", "CA2", 9, LONG)

    async def one_is_left() -> bool:
        return await store.slots_taken("shop") == 1

    await until(one_is_left)


async def test_asking_again_never_shortens_a_lease(store: Store) -> None:
    assert await store.take_slot("shop", "CA1", 1, LONG)
    assert await store.take_slot("shop", "CA1", 1, SHORT)
    assert await store.renew_slots("shop", ["CA1"], SHORT) == set()
    await asyncio.sleep(3 * SHORT)
    assert await store.slots_taken("shop") == 1


async def test_asking_again_lengthens_a_lease(store: Store) -> None:
    assert await store.take_slot("shop", "CA1", 1, 0.5)
    assert await store.take_slot("shop", "CA1", 1, LONG)
    await asyncio.sleep(0.6)
    assert await store.slots_taken("shop") == 1


async def test_renewing_lengthens_leases_and_loses_none(store: Store) -> None:
    for call in ("CA1", "CA2"):
        assert await store.take_slot("shop", call, 2, 0.5)
    assert await store.renew_slots("shop", ["CA1", "CA2"], LONG) == set()
    await asyncio.sleep(0.6)
    assert await store.slots_taken("shop") == 2


async def test_a_call_that_lives_gets_a_lost_slot_back_and_is_named(store: Store) -> None:
    assert await store.take_slot("shop", "CA1", 1, LONG)
    assert await store.renew_slots("shop", ["CA1", "CA2"], LONG) == {"CA2"}
    assert await store.slots_taken("shop") == 2
    assert not await store.take_slot("shop", "CA3", 2, LONG)


async def test_renewing_no_calls_changes_nothing(store: Store) -> None:
    assert await store.renew_slots("shop", [], LONG) == set()
    assert await store.slots_taken("shop") == 0


# ------------------------------------------------------------------------- pace


async def test_calls_are_taken_as_fast_as_the_pace_and_no_faster(store: Store) -> None:
    answers = [await store.take_slot("shop", f"CA{n}", 9, LONG, 3 / LONG) for n in range(2)]
    assert answers == [SlotAnswer.TAKEN, SlotAnswer.TOO_FAST]
    began, taken = time.monotonic(), 0
    while await store.take_slot("bank", f"CA{taken}", 999, LONG, 3) is SlotAnswer.TAKEN:
        taken += 1
    seconds = time.monotonic() - began
    assert 3 <= taken <= 3 * (1 + seconds)


async def test_a_call_that_came_too_fast_holds_nothing(store: Store) -> None:
    assert await store.take_slot("shop", "CA1", 9, LONG, 1 / LONG)
    assert not await store.take_slot("shop", "CA2", 9, LONG, 1 / LONG)
    assert await store.slots_taken("shop") == 1


async def test_a_call_that_asks_again_is_not_counted_again(store: Store) -> None:
    for _ in range(3):
        assert await store.take_slot("shop", "CA1", 9, LONG, 1 / LONG)


async def test_a_call_that_found_no_slot_is_not_counted(store: Store) -> None:
    assert await store.take_slot("shop", "CA1", 1, LONG)
    assert await store.take_slot("shop", "CA2", 1, LONG, 1 / LONG) is SlotAnswer.ALL_TAKEN
    await store.free_slot("shop", "CA1")
    assert await store.take_slot("shop", "CA2", 1, LONG, 1 / LONG)


async def test_a_moment_later_the_next_call_keeps_the_pace(store: Store) -> None:
    assert await store.take_slot("shop", "CA1", 9, LONG, 4)
    for number in (2, 3, 4):
        await store.take_slot("shop", f"CA{number}", 9, LONG, 4)
    await until(lambda: store.take_slot("shop", "CA5", 9, LONG, 4))


async def test_businesses_have_a_pace_each(store: Store) -> None:
    assert await store.take_slot("shop", "CA1", 9, LONG, 1 / LONG)
    assert await store.take_slot("bank", "CA2", 9, LONG, 1 / LONG)
    assert await store.take_slot("shop", "CA3", 9, LONG)


# ----------------------------------------------------------------- live streams


async def test_a_marked_stream_is_live_until_it_is_unmarked(store: Store) -> None:
    assert await store.live_stream("shop", "CA1") is None
    await store.mark_live("shop", "CA1", "MZ1", LONG)
    assert await store.live_stream("shop", "CA1") == "MZ1"
    assert await store.live_stream("shop", "CA2") is None
    assert await store.live_stream("bank", "CA1") is None
    await store.unmark_live("shop", "CA1", "MZ1")
    assert await store.live_stream("shop", "CA1") is None


async def test_a_call_has_two_live_streams_at_the_most(store: Store) -> None:
    streams = [f"MZ{number}" for number in range(50)]
    answers = await asyncio.gather(
        *(store.take_slot("shop", "CA1", 1, LONG, stream_sid=one) for one in streams)
    )
    assert answers.count(SlotAnswer.TAKEN) == 2
    assert answers.count(SlotAnswer.STREAMS_TAKEN) == 48
    taken = [one for one, answer in zip(streams, answers, strict=True) if answer]
    assert await store.take_slot("shop", "CA1", 1, LONG, stream_sid=taken[0])  # asked again
    assert await store.take_slot("shop", "CA1", 1, LONG)  # the webhook of the call
    assert await store.take_slot("bank", "CA1", 1, LONG, stream_sid="MZ51")
    await store.unmark_live("shop", "CA1", taken[0])
    assert await store.take_slot("shop", "CA1", 1, LONG, stream_sid="MZ52")
    answer = await store.take_slot("shop", "CA1", 1, LONG, stream_sid="MZ53")
    assert answer is SlotAnswer.STREAMS_TAKEN


async def test_a_stream_whose_lease_ran_out_is_not_counted(store: Store) -> None:
    assert await store.take_slot("shop", "CA1", 1, LONG, stream_sid="MZ0")
    await store.mark_live("shop", "CA1", "MZ0", LONG)
    await store.mark_live("shop", "CA1", "MZ1", SHORT)  # of a replica that died
    await until(lambda: store.take_slot("shop", "CA1", 1, LONG, stream_sid="MZ2"))
    answer = await store.take_slot("shop", "CA1", 1, LONG, stream_sid="MZ3")
    assert answer is SlotAnswer.STREAMS_TAKEN


async def test_a_call_that_takes_over_a_slot_brings_its_stream(store: Store) -> None:
    counting = Counting(0, takes_over="url-1")
    assert await store.take_slot("shop", "url-1", 1, LONG)
    assert await store.take_slot("shop", "CA1", 1, LONG, counting=counting, stream_sid="MZ1")
    for number, answer in ((2, SlotAnswer.TAKEN), (3, SlotAnswer.STREAMS_TAKEN)):
        asked = await store.take_slot("shop", "CA1", 1, LONG, stream_sid=f"MZ{number}")
        assert asked is answer


async def test_the_end_of_an_earlier_stream_leaves_the_later_one_live(store: Store) -> None:
    await store.mark_live("shop", "CA1", "MZ1", LONG)
    await store.mark_live("shop", "CA1", "MZ2", LONG)
    await store.unmark_live("shop", "CA1", "MZ1")
    assert await store.live_stream("shop", "CA1") == "MZ2"


async def test_a_stream_whose_lease_ran_out_is_not_live(store: Store) -> None:
    await store.mark_live("shop", "CA1", "MZ1", SHORT)

    async def is_gone() -> bool:
        return await store.live_stream("shop", "CA1") is None

    await until(is_gone)


async def test_marking_again_lengthens_a_streams_lease(store: Store) -> None:
    await store.mark_live("shop", "CA1", "MZ1", 0.5)
    await store.mark_live("shop", "CA1", "MZ1", LONG)
    await asyncio.sleep(0.6)
    assert await store.live_stream("shop", "CA1") == "MZ1"


# ----------------------------------------------------------------- whose a call is


async def test_a_call_stays_the_business_that_it_was_answered_for_first(store: Store) -> None:
    assert await store.answered_by("CA1") is None
    assert await store.note_answered("CA1", "shop", LONG)
    assert not await store.note_answered("CA1", "bank", LONG)
    assert await store.answered_by("CA1") == "shop"
    assert await store.answered_by("CA2") is None


async def test_who_answered_a_call_is_forgotten_in_time(store: Store) -> None:
    await store.note_answered("CA1", "shop", SHORT)

    async def is_forgotten() -> bool:
        return await store.answered_by("CA1") is None

    await until(is_forgotten)
    assert await store.note_answered("CA1", "bank", LONG)
    assert await store.answered_by("CA1") == "bank"


async def test_a_stream_that_is_claimed_has_a_business(store: Store) -> None:
    assert await store.call_of_stream("MZ1") is None
    call = CallIdentity("CA1", "MZ1", "shop", "premium", "twilio")
    await store.claim_stream(HeldStream(call, 1_700_000_000_000, 600), LONG)
    found = await store.call_of_stream("MZ1")
    assert found is not None
    assert found.business_id == "shop"
    assert found.call_sid in ("", "CA1")


async def test_an_edit_changes_the_version_of_the_configuration(store: Store) -> None:
    assert await store.confirm_configuration() == ""
    await store.load_if_empty(DIRECTORY)
    assert await store.confirm_configuration()
    assert not store.answers_from_memory
