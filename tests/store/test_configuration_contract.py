"""What every configuration adapter promises, checked on each: memory, Redis, and a Cluster."""

import asyncio
import re
from collections.abc import Awaitable
from dataclasses import replace
from typing import Protocol

import pytest

from app.errors import (
    AdminError,
    AlreadyThere,
    BusinessDeleted,
    BusinessHasCalls,
    EditedMeanwhile,
    FieldsInvalid,
    NotThere,
    NumberTaken,
    PlanInUse,
    UnknownBusiness,
)
from app.plans import Business, Directory, Plan
from app.store.base import CallEnd, SlotAnswer, Store
from app.store.configuration import Configuration, Stored

LONG = 60.0
ONE, TWO, THREE = "+15005550001", "+15005550002", "+15005550003"
DIGEST, OTHER_DIGEST = "a" * 64, "b" * 64
GOLD = Plan("gold", max_concurrent_calls=7)
SHOP = Business("shop", "The Shop, Zoë's", "gold", (ONE, TWO), exotel_pairs=(DIGEST,))
BANK = Business("bank", "Bank", "gold", (THREE,), greeting="a,b")


class ConfiguredStore(Store, Configuration, Protocol):
    """A store, with all that is configured in it."""


@pytest.fixture
async def configured(store: ConfiguredStore) -> ConfiguredStore:
    """Give a store with a plan and two businesses."""
    await store.add_plan(GOLD)
    await store.add_business(SHOP)
    await store.add_business(BANK)
    return store


async def outcomes(*edits: Awaitable[object]) -> list[str]:
    """Make edits at once; name what came of each, in order of the alphabet."""
    answers = await asyncio.gather(*edits, return_exceptions=True)
    for answer in answers:
        assert not isinstance(answer, BaseException) or isinstance(answer, AdminError), answer
    return sorted(type(answer).__name__ for answer in answers)


# ------------------------------------------------------------------------- plans


async def test_what_is_added_is_read_and_listed_in_order(configured: ConfiguredStore) -> None:
    basic = Plan("basic", calls_per_month_hard=10)
    assert await configured.add_plan(basic) == Stored(basic, 1)
    assert await configured.stored_plans() == [Stored(basic, 1), Stored(GOLD, 1)]
    assert await configured.stored_businesses() == [Stored(BANK, 1), Stored(SHOP, 1)]
    assert await configured.stored_plan("basic") == Stored(basic, 1)
    assert await configured.stored_business("shop") == Stored(SHOP, 1)


@pytest.mark.parametrize("name", ["", "nobody", "a}b", "\x00", "\ud800", "x" * 5000])
async def test_a_name_that_nothing_bears_finds_nothing(
    configured: ConfiguredStore, name: str
) -> None:
    assert await configured.stored_plan(name) is None
    assert await configured.stored_business(name) is None


async def test_what_is_loaded_from_a_file_can_be_edited(store: ConfiguredStore) -> None:
    await store.load_if_empty(Directory((GOLD,), (SHOP,)))
    assert await store.stored_business("shop") == Stored(SHOP, 1)
    saved = await store.save_business(replace(SHOP, name="Corner Shop"), 1)
    assert saved.version == 2
    assert (await store.save_plan(replace(GOLD, frame_ms=100), 1)).version == 2


async def test_a_file_does_not_bring_back_what_was_deleted(store: ConfiguredStore) -> None:
    await store.load_if_empty(Directory((GOLD,), ()))
    await store.delete_plan("gold", 1)
    assert not await store.load_if_empty(Directory((GOLD,), ()))
    assert await store.stored_plans() == []


async def test_a_file_is_not_read_after_an_edit_was_made(store: ConfiguredStore) -> None:
    await store.add_plan(GOLD)
    await store.delete_plan("gold", 1)
    assert not await store.load_if_empty(Directory((GOLD,), (SHOP,)))
    assert await store.stored_businesses() == []


async def test_each_save_has_a_version_of_its_own(configured: ConfiguredStore) -> None:
    for version in (1, 2, 3):
        better = replace(GOLD, max_concurrent_calls=version)
        assert await configured.save_plan(better, version) == Stored(better, version + 1)
        assert await configured.stored_plan("gold") == Stored(better, version + 1)
    assert (await configured.save_plan(GOLD, None)).version == 5


@pytest.mark.parametrize("version", [0, 2, 99])
async def test_an_edit_of_another_version_changes_nothing(
    configured: ConfiguredStore, version: int
) -> None:
    with pytest.raises(EditedMeanwhile):
        await configured.save_plan(replace(GOLD, frame_ms=100), version)
    with pytest.raises(EditedMeanwhile):
        await configured.save_business(replace(SHOP, numbers=("+15005550009",)), version)
    with pytest.raises(EditedMeanwhile):
        await configured.delete_business("shop", version)
    await configured.add_plan(Plan("unused"))
    with pytest.raises(EditedMeanwhile):
        await configured.delete_plan("unused", version)
    assert await configured.stored_plan("gold") == Stored(GOLD, 1)
    assert await configured.stored_business("shop") == Stored(SHOP, 1)
    assert await configured.business_of_number("+15005550009") is None
    assert await configured.business_of_number(ONE) == SHOP


@pytest.mark.parametrize("version", [None, 0, 1])
async def test_what_is_not_there_is_not_edited(
    configured: ConfiguredStore, version: int | None
) -> None:
    for edit in (
        configured.save_plan(Plan("nothing"), version),
        configured.delete_plan("nothing", version),
        configured.save_business(Business("nobody", "N", "gold", ("+15005550009",)), version),
        configured.delete_business("nobody", version),
    ):
        with pytest.raises(EditedMeanwhile):
            await edit
    assert len(await configured.stored_plans()) == 1
    assert len(await configured.stored_businesses()) == 2
    assert await configured.business_of_number("+15005550009") is None


async def test_the_name_of_something_new_must_be_free(configured: ConfiguredStore) -> None:
    with pytest.raises(AlreadyThere):
        await configured.add_plan(Plan("gold"))
    with pytest.raises(AlreadyThere):
        await configured.add_business(Business("shop", "Other", "gold", ("+15005550009",)))
    assert await configured.stored_plan("gold") == Stored(GOLD, 1)
    assert await configured.stored_business("shop") == Stored(SHOP, 1)
    assert await configured.business_of_number("+15005550009") is None


async def test_a_plan_that_a_business_has_is_not_deleted(configured: ConfiguredStore) -> None:
    with pytest.raises(PlanInUse, match="bank, shop"):
        await configured.delete_plan("gold", 1)
    await configured.delete_business("shop", 1)
    with pytest.raises(PlanInUse, match="bank"):
        await configured.delete_plan("gold", None)
    await configured.delete_business("bank", None)
    await configured.delete_plan("gold", 1)
    assert await configured.stored_plans() == []
    assert await configured.plan("gold") is None


async def test_a_business_has_a_plan_that_is_there(configured: ConfiguredStore) -> None:
    for edit in (
        configured.add_business(Business("new", "New", "gone", ("+15005550009",))),
        configured.save_business(replace(SHOP, plan="gone"), 1),
    ):
        with pytest.raises(FieldsInvalid) as refused:
            await edit
        assert list(refused.value.problems) == ["plan"]
    assert await configured.stored_business("new") is None
    assert await configured.stored_business("shop") == Stored(SHOP, 1)
    assert await configured.business_of_number("+15005550009") is None


# ------------------------------------------------------------------------ numbers


async def test_a_business_is_found_by_what_it_was_saved_with(configured: ConfiguredStore) -> None:
    assert await configured.business_of_number(TWO) == SHOP
    assert await configured.business_of_pair(DIGEST) == SHOP
    moved = replace(SHOP, numbers=(TWO, "+918047112345"), country="IN", exotel_pairs=())
    await configured.save_business(moved, 1)
    assert await configured.business_of_number(ONE) is None
    assert await configured.business_of_pair(DIGEST) is None
    for dialled in (TWO, "+918047112345", "08047112345", "8047112345"):
        assert await configured.business_of_number(dialled) == moved


@pytest.mark.parametrize(
    ("wanted", "named"),
    [
        ({"numbers": ("+15005550009", ONE)}, ONE),
        ({"numbers": (), "exotel_pairs": (OTHER_DIGEST, DIGEST)}, "one of the Exotel pairs"),
    ],
)
async def test_what_is_another_businesss_is_refused_and_nothing_is_kept(
    configured: ConfiguredStore, wanted: dict[str, tuple[str, ...]], named: str
) -> None:
    for edit in (
        configured.save_business(replace(BANK, **wanted), 1),  # type: ignore[arg-type]
        configured.add_business(replace(Business("new", "N", "gold"), **wanted)),  # type: ignore[arg-type]
    ):
        with pytest.raises(NumberTaken, match=re.escape(named)) as refused:
            await edit
        assert "shop" not in str(refused.value)
    assert await configured.stored_business("bank") == Stored(BANK, 1)
    assert await configured.stored_business("new") is None
    assert await configured.business_of_number(ONE) == SHOP
    assert await configured.business_of_pair(OTHER_DIGEST) is None
    # What was to be had beside it is free for others.
    await configured.add_business(
        Business("free", "F", "gold", ("+15005550009",), exotel_pairs=(OTHER_DIGEST,))
    )


async def test_a_number_that_was_given_up_is_free_at_once(configured: ConfiguredStore) -> None:
    await configured.save_business(replace(SHOP, numbers=(TWO,)), 1)
    richer = replace(BANK, numbers=(THREE, ONE))
    await configured.save_business(richer, 1)
    assert await configured.business_of_number(ONE) == richer
    await configured.delete_business("shop", 2)
    await configured.add_business(Business("new", "N", "gold", (TWO,), exotel_pairs=(DIGEST,)))
    assert await configured.lookup("shop") is None


async def test_two_that_want_one_number_at_once_do_not_both_get_it(
    configured: ConfiguredStore,
) -> None:
    wanted = "+15005550009"
    names = [f"new-{n}" for n in range(8)]
    edits = [configured.add_business(Business(n, n, "gold", (wanted,))) for n in names]
    assert await outcomes(*edits) == ["NumberTaken"] * 7 + ["Stored"]
    (owner,) = [
        one.record for one in await configured.stored_businesses() if wanted in one.record.numbers
    ]
    assert await configured.business_of_number(wanted) == owner


async def test_two_that_swap_numbers_at_once_lose_none(configured: ConfiguredStore) -> None:
    for _ in range(3):
        shop, bank = [
            stored
            for name in ("shop", "bank")
            if (stored := await configured.stored_business(name)) is not None
        ]
        await outcomes(
            configured.save_business(replace(SHOP, numbers=bank.record.numbers), shop.version),
            configured.save_business(replace(BANK, numbers=shop.record.numbers), bank.version),
        )
        for one in await configured.stored_businesses():
            for number in one.record.numbers:
                assert await configured.business_of_number(number) == one.record


async def test_of_those_who_save_one_version_at_once_one_does(configured: ConfiguredStore) -> None:
    edits = [configured.save_plan(replace(GOLD, frame_ms=20 + n), 1) for n in range(8)]
    assert await outcomes(*edits) == ["EditedMeanwhile"] * 7 + ["Stored"]
    others = [configured.save_business(replace(SHOP, name=f"Shop {n}"), 1) for n in range(8)]
    assert await outcomes(*others) == ["EditedMeanwhile"] * 7 + ["Stored"]
    stands = await configured.stored_business("shop")
    assert stands is not None
    assert stands.version == 2
    assert await configured.business("shop") == stands.record


async def test_of_those_who_add_one_name_at_once_one_does(configured: ConfiguredStore) -> None:
    edits = [configured.add_plan(Plan("new", frame_ms=20 + n)) for n in range(8)]
    assert await outcomes(*edits) == ["AlreadyThere"] * 7 + ["Stored"]


async def test_a_plan_that_is_deleted_while_it_is_given_is_one_or_the_other(
    configured: ConfiguredStore,
) -> None:
    for n in range(5):
        await configured.add_plan(Plan(f"p{n}"))
        new = Business(f"b{n}", "B", f"p{n}")
        answers = await outcomes(configured.add_business(new), configured.delete_plan(new.plan, 1))
        assert answers in (["FieldsInvalid", "NoneType"], ["PlanInUse", "Stored"])
        there = await configured.stored_plan(new.plan) is not None
        assert (await configured.lookup(new.id) is not None) == there


# ---------------------------------------------------------------- deleting, secrets


async def test_a_business_with_live_calls_is_not_deleted(configured: ConfiguredStore) -> None:
    await configured.take_slot("shop", "CA1", 7, LONG)
    with pytest.raises(BusinessHasCalls):
        await configured.delete_business("shop", 1)
    assert await configured.business_of_number(ONE) == SHOP
    await configured.free_slot("shop", "CA1")
    await configured.delete_business("shop", 1)
    assert await configured.business("shop") is None
    assert [one.record.id for one in await configured.stored_businesses()] == ["bank"]


async def test_secrets_are_stored_beside_each_other_and_removed(
    configured: ConfiguredStore,
) -> None:
    await configured.save_secrets("shop", {"one": "sealed-1", "two": "sealed-2"})
    assert await configured.secrets_of("shop") == {"one": "sealed-1", "two": "sealed-2"}
    await configured.save_secrets("shop", {"one": "", "three": "sealed-3", "never": ""})
    expected = {"two": "sealed-2", "three": "sealed-3"}
    assert await configured.sealed_secrets("shop") == expected
    assert await configured.secrets_of("shop") == expected
    assert await configured.sealed_secrets("bank") == {}
    assert await configured.stored_business("shop") == Stored(SHOP, 1)


async def test_secrets_go_with_their_business(configured: ConfiguredStore) -> None:
    await configured.save_secrets("shop", {"one": "sealed"})
    await configured.delete_business("shop", None)
    assert await configured.sealed_secrets("shop") == {}
    with pytest.raises(NotThere):
        await configured.save_secrets("nobody", {"one": "sealed"})
    assert await configured.sealed_secrets("nobody") == {}


# ------------------------------------------------------------------- deletion


async def test_the_id_of_a_deleted_business_is_not_used_again(configured: ConfiguredStore) -> None:
    assert await configured.deletion_of("shop") is None
    assert await configured.deleted_since(0) == []
    await configured.delete_business("shop", None)
    for _ in range(2):
        with pytest.raises(BusinessDeleted):
            await configured.add_business(SHOP)
        with pytest.raises(EditedMeanwhile):
            await configured.save_business(SHOP, None)
    assert await configured.stored_business("shop") is None
    assert await configured.deleted_since(0) == ["shop"]
    assert not await configured.load_if_empty(Directory((GOLD,), (SHOP,)))


async def test_a_deleted_business_takes_no_slot(configured: ConfiguredStore) -> None:
    await configured.delete_business("shop", None)
    answer = await configured.take_slot("shop", "CA1", 10, 60.0)
    assert answer is SlotAnswer.BUSINESS_DELETED
    assert not answer
    assert await configured.slots_taken("shop") == 0


async def test_a_deleted_business_renews_no_slot_and_remembers_no_end(
    configured: ConfiguredStore,
) -> None:
    await configured.delete_business("shop", None)
    with pytest.raises(UnknownBusiness):
        await configured.renew_slots("shop", ["CA1"], LONG)
    await configured.free_slot("shop", "CA1", CallEnd.FINAL)
    assert await configured.slots_taken("shop") == 0
    assert await configured.renew_slots("bank", ["CA1"], LONG) == {"CA1"}


async def test_a_deletion_that_was_refused_leaves_no_trace(configured: ConfiguredStore) -> None:
    await configured.take_slot("shop", "CA1", 10, 60.0)
    with pytest.raises(BusinessHasCalls):
        await configured.delete_business("shop", None)
    assert await configured.deletion_of("shop") is None
    assert await configured.deleted_since(0) == []
    assert await configured.take_slot("shop", "CA2", 10, 60.0)


async def test_a_deletion_is_repeated_until_it_is_finished(configured: ConfiguredStore) -> None:
    await configured.delete_business("shop", None)
    begun = await configured.deletion_of("shop")
    await configured.delete_business("shop", 77)
    again = await configured.deletion_of("shop")
    assert begun is not None
    assert again is not None
    assert (again.at, again.finished) == (begun.at, False)
    await configured.finish_deletion("shop")
    finished = await configured.deletion_of("shop")
    assert finished is not None
    assert finished.finished
    with pytest.raises(BusinessDeleted):
        await configured.add_business(SHOP)
