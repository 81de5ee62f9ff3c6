"""Who may edit which plans and businesses, with what, and what is written down of it."""

import asyncio
import math
from typing import Any

import pytest

from app.administration.businesses import OF_ITS_ADMIN, SECRET
from app.administration.principal import Permission, Principal
from app.errors import (
    AdminError,
    AlreadyThere,
    BusinessHasCalls,
    EditedMeanwhile,
    FieldsInvalid,
    Forbidden,
    NotThere,
    NumberTaken,
    PlanInUse,
)
from app.plans import BUSINESS_FIELDS, PLAN_FIELDS
from app.store.access import AccessKey
from tests.administration.conftest import ADMIN, BANK, OPERATOR, SHOP, Office

HTML = "<script>alert(1)</script>"
MARKED = "abc\u202edef"
CONTROL = "abc\x07def"
LONG = "x" * 501


def everything(office: Office) -> Any:
    """Give all that is configured, to see that nothing of it changed."""
    return asyncio.gather(office.store.stored_plans(), office.store.stored_businesses())


# ----------------------------------------------------------------------- plans


async def test_an_operator_sees_every_plan_and_an_admin_their_own(office: Office) -> None:
    plans = office.desk.plans
    names = [one.record.name for one in await plans.all(OPERATOR)]
    assert names == ["premium", "spare", "tiny"]
    assert [one.record.name for one in await plans.all(ADMIN)] == ["premium"]
    assert (await plans.get(ADMIN, "premium")).record.max_concurrent_calls == 7
    assert await plans.all(Principal("key:k9", "gone")) == []


@pytest.mark.parametrize("name", ["tiny", "nobody", "", "a}b", "x" * 5000, "\x00", "☎"])
async def test_a_plan_that_is_not_theirs_is_not_there(office: Office, name: str) -> None:
    with pytest.raises(NotThere):
        await office.desk.plans.get(ADMIN, name)


async def test_only_an_operator_edits_plans(office: Office) -> None:
    plans, before = office.desk.plans, await everything(office)
    for edit in (
        plans.create(ADMIN, "new", {}),
        plans.edit(ADMIN, "premium", {"frame_ms": 40}, None),
        plans.delete(ADMIN, "premium", None),
    ):
        with pytest.raises(Forbidden):
            await edit
    assert await everything(office) == before
    assert await office.actions() == []


async def test_a_new_plan_has_defaults_for_what_is_not_given(office: Office) -> None:
    stored = await office.desk.plans.create(
        OPERATOR, "new", {"frame_ms": 40, "max_calls_per_second": None, "calls_per_month_hard": 9}
    )
    assert (stored.record.frame_ms, stored.record.sample_rate) == (40, 8000)
    assert stored.record.max_calls_per_second == math.inf
    assert stored.record.calls_per_month_hard == 9
    with pytest.raises(AlreadyThere):
        await office.desk.plans.create(OPERATOR, "new", {})
    assert await office.actions() == ["plan.created"]


async def test_an_edit_of_a_plan_is_told_with_its_numbers(office: Office) -> None:
    changes = {"frame_ms": 40, "calls_per_month_hard": 100, "sample_rate": 8000}
    stored = await office.desk.plans.edit(OPERATOR, "premium", changes, 1)
    assert (stored.version, stored.record.max_concurrent_calls) == (2, 7)
    [entry] = await office.access.audit_log(None)
    assert (entry.actor, entry.action, entry.target) == ("operator", "plan.saved", "premium")
    assert entry.data == {
        "fields": "frame_ms, calls_per_month_hard",
        "frame_ms": "20 → 40",
        "calls_per_month_hard": "inf → 100",
    }


async def test_an_edit_that_changes_nothing_is_not_written_down(office: Office) -> None:
    stored = await office.desk.plans.edit(OPERATOR, "premium", {"frame_ms": 20}, 1)
    assert stored.version == 1
    with pytest.raises(EditedMeanwhile):
        await office.desk.plans.edit(OPERATOR, "premium", {"frame_ms": 20}, 7)
    assert await office.actions() == []


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ({"frame_ms": 19}, {"frame_ms"}),
        ({"frame_ms": "40"}, {"frame_ms"}),
        ({"frame_ms": None}, {"frame_ms"}),
        ({"frame_ms": True}, {"frame_ms"}),
        ({"frame_ms": 10**30}, {"frame_ms"}),
        ({"tracks": HTML}, {"tracks"}),
        ({"encoding": ["pcm16"]}, {"encoding"}),
        ({"max_calls_per_second": math.nan}, {"max_calls_per_second"}),
        ({"calls_per_month_soft": 1.5}, {"calls_per_month_soft"}),
        ({"calls_per_month_soft": 9, "calls_per_month_hard": 3}, {"calls_per_month_soft"}),
        ({"name": "other"}, {"name"}),
        ({"version": 2}, {"version"}),
        ({"frame_ms": 1, "sample_rate": 1, "nonsense": 1}, {"frame_ms", "sample_rate", "nonsense"}),
    ],
)
async def test_every_bad_field_of_a_plan_is_named_and_nothing_stored(
    office: Office, changes: dict[str, Any], fields: set[str]
) -> None:
    before = await everything(office)
    with pytest.raises(FieldsInvalid) as caught:
        await office.desk.plans.edit(OPERATOR, "premium", changes, 1)
    assert caught.value.problems.keys() == fields
    assert await everything(office) == before
    assert await office.actions() == []


@pytest.mark.parametrize("name", ["", " ", "a b", "x" * 65, HTML, MARKED, CONTROL, None, 7, ["a"]])
async def test_a_plan_is_not_named_like_this(office: Office, name: object) -> None:
    with pytest.raises(FieldsInvalid) as caught:
        await office.desk.plans.create(OPERATOR, name, {})
    assert caught.value.problems.keys() == {"name"}


async def test_of_two_who_edit_one_version_the_second_is_told(office: Office) -> None:
    plans = office.desk.plans
    await plans.edit(OPERATOR, "premium", {"frame_ms": 40}, 1)
    with pytest.raises(EditedMeanwhile):
        await plans.edit(OPERATOR, "premium", {"frame_ms": 60}, 1)
    with pytest.raises(EditedMeanwhile):
        await plans.delete(OPERATOR, "spare", 9)
    assert (await plans.get(OPERATOR, "premium")).record.frame_ms == 40
    assert (await plans.edit(OPERATOR, "premium", {"frame_ms": 60}, None)).version == 3


async def test_a_plan_that_is_had_stays_and_another_goes(office: Office) -> None:
    with pytest.raises(PlanInUse, match="shop"):
        await office.desk.plans.delete(OPERATOR, "premium", None)
    await office.desk.plans.delete(OPERATOR, "spare", 1)
    with pytest.raises(NotThere):
        await office.desk.plans.get(OPERATOR, "spare")
    assert await office.actions() == ["plan.deleted"]


# ------------------------------------------------------------------ businesses


async def test_an_operator_sees_every_business_and_an_admin_their_own(office: Office) -> None:
    businesses = office.desk.businesses
    assert [one.record for one in await businesses.all(OPERATOR)] == [BANK, SHOP]
    assert [one.record for one in await businesses.all(ADMIN)] == [SHOP]


def test_each_field_of_a_business_is_somebodys() -> None:
    assert BUSINESS_FIELDS.keys() >= OF_ITS_ADMIN | SECRET
    assert BUSINESS_FIELDS.keys() - OF_ITS_ADMIN - SECRET == {"plan", "numbers", "country"}


GOOD = {
    "name": "Zoë's <b>Shop</b>",
    "forward_to": "sip:desk@example.com",
    "greeting": "Welcome.",
    "consent_notice": "You are listened to.",
    "busy_message": "Later, please.",
    "not_answered": "Nobody is here.",
    "after_stream": "Goodbye.",
    "usage_webhook_url": "https://shop.example.com/usage",
    "twilio_account_sid": "AC" + "0" * 32,
}


@pytest.mark.parametrize("field", sorted(OF_ITS_ADMIN))
async def test_an_admin_edits_what_is_theirs(office: Office, field: str) -> None:
    stored = await office.desk.businesses.edit(ADMIN, "shop", {field: GOOD[field]}, 1)
    assert getattr(stored.record, field) == GOOD[field]
    [entry] = await office.access.audit_log("shop")
    assert (entry.actor, entry.data["fields"]) == ("key:k1", field)
    # Nor does the log hold what somebody wrote, or whom they are called on.
    shown = field == "twilio_account_sid"
    assert (field in entry.data) is shown


@pytest.mark.parametrize(
    ("field", "value"), [("plan", "tiny"), ("numbers", ["+12763650000"]), ("country", "US")]
)
async def test_what_is_an_operators_an_admin_may_send_back_but_not_change(
    office: Office, field: str, value: object
) -> None:
    businesses, before = office.desk.businesses, await everything(office)
    with pytest.raises(Forbidden, match=field):
        await businesses.edit(ADMIN, "shop", {field: value, "greeting": "Hello."}, 1)
    assert await everything(office) == before
    same = getattr(SHOP, field)
    sent = {field: list(same) if isinstance(same, tuple) else same, "greeting": "Hello."}
    assert (await businesses.edit(ADMIN, "shop", sent, 1)).record.greeting == "Hello."
    assert (await businesses.edit(OPERATOR, "shop", {field: value}, 2)).version == 3


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ({"name": ""}, {"name"}),
        ({"name": "  "}, {"name"}),
        ({"name": 7}, {"name"}),
        ({"name": None}, {"name"}),
        ({"name": LONG}, {"name"}),
        ({"name": MARKED}, {"name"}),
        ({"name": CONTROL}, {"name"}),
        ({"greeting": ["x"]}, {"greeting"}),
        ({"greeting": MARKED, "busy_message": CONTROL}, {"greeting", "busy_message"}),
        ({"greeting": "a\nb"}, {"greeting"}),
        ({"greeting": "\ud800"}, {"greeting"}),
        ({"forward_to": HTML}, {"forward_to"}),
        ({"forward_to": "12"}, {"forward_to"}),
        ({"usage_webhook_url": "javascript:alert(1)"}, {"usage_webhook_url"}),
        ({"usage_webhook_url": "http://a.example.com"}, {"usage_webhook_url"}),
        ({"twilio_account_sid": "AC1"}, {"twilio_account_sid"}),
        ({"numbers": []} | {"numbers": "+12763659195"}, {"numbers"}),
        ({"numbers": ["12763659195"]}, {"numbers"}),
        ({"numbers": ["+12763659195", "+12763659195"]}, {"numbers"}),
        ({"numbers": [HTML]}, {"numbers"}),
        ({"plan": HTML}, {"plan"}),
        ({"plan": "nobodys"}, {"plan"}),
        ({"country": "XX"}, {"country"}),
        ({"id": "bank"}, {"id"}),
        ({"exotel_pairs": ["KEY:TOKEN"]}, {"exotel_pairs"}),
        ({"greting": "x"}, {"greting"}),
    ],
)
async def test_every_bad_field_of_a_business_is_named_and_nothing_stored(
    office: Office, changes: dict[str, Any], fields: set[str]
) -> None:
    before = await everything(office)
    with pytest.raises(FieldsInvalid) as caught:
        await office.desk.businesses.edit(OPERATOR, "shop", changes, 1)
    assert caught.value.problems.keys() == fields
    assert all(caught.value.problems.values())
    assert await everything(office) == before
    assert await office.actions() == []


async def test_a_business_is_created_by_an_operator_alone(office: Office) -> None:
    businesses = office.desk.businesses
    table = {"name": "New", "plan": "tiny", "numbers": ["+15005550001"]}
    with pytest.raises(Forbidden):
        await businesses.create(ADMIN, "new", table)
    stored = await businesses.create(OPERATOR, "new", table)
    assert stored.record.numbers == ("+15005550001",)
    assert (await businesses.create(OPERATOR, "bare", {"name": "B", "plan": "tiny"})).version == 1
    with pytest.raises(AlreadyThere):
        await businesses.create(OPERATOR, "new", {**table, "numbers": []})
    with pytest.raises(NumberTaken):
        await businesses.create(OPERATOR, "other", table)
    with pytest.raises(FieldsInvalid) as caught:
        await businesses.create(OPERATOR, HTML, {"numbers": "x"})
    assert caught.value.problems.keys() == {"id", "name", "plan", "numbers"}
    assert await office.actions() == ["business.created", "business.created"]


async def test_numbers_are_set_by_an_operator_and_free_at_once(office: Office) -> None:
    businesses = office.desk.businesses
    for who, refusal in ((ADMIN, Forbidden), (Principal("key:k2", "bank"), NotThere)):
        with pytest.raises(refusal):
            await businesses.set_numbers(who, "shop", {"numbers": "nonsense"}, 1)
    with pytest.raises(NumberTaken):
        await businesses.set_numbers(OPERATOR, "shop", {"numbers": list(BANK.numbers)}, 1)
    for table in ({}, {"numbers": None}, {"numbers": [], "greeting": "x"}):
        with pytest.raises(FieldsInvalid):
            await businesses.set_numbers(OPERATOR, "shop", table, 1)
    await businesses.set_numbers(OPERATOR, "shop", {"numbers": []}, 1)
    moved = {"numbers": [*BANK.numbers, *SHOP.numbers]}
    await businesses.set_numbers(OPERATOR, "bank", moved, 1)
    owner = await office.store.business_of_number(SHOP.numbers[0])
    assert owner is not None
    assert owner.id == "bank"


async def test_a_deleted_business_leaves_nothing_to_one_of_its_name(office: Office) -> None:
    businesses = office.desk.businesses
    await office.access.add_key(AccessKey("k1", "shop", "till", "d" * 64, 1))
    await businesses.edit(ADMIN, "shop", {"greeting": "Hello."}, 1)
    with pytest.raises(Forbidden):
        await businesses.delete(ADMIN, "shop", None)
    with pytest.raises(EditedMeanwhile):
        await businesses.delete(OPERATOR, "shop", 1)
    await businesses.delete(OPERATOR, "shop", 2)
    with pytest.raises(NotThere):
        await businesses.delete(OPERATOR, "shop", 2)
    assert await office.access.key_of("d" * 64) is None
    await businesses.create(OPERATOR, "shop", {"name": "Other", "plan": "tiny"})
    assert await office.actions("shop") == ["business.created"]
    assert "business.deleted" in await office.actions()


async def test_a_business_with_live_calls_is_not_deleted(office: Office) -> None:
    assert await office.store.take_slot("shop", "CA1", 9, 60.0)
    with pytest.raises(BusinessHasCalls):
        await office.desk.businesses.delete(OPERATOR, "shop", None)
    assert await office.desk.businesses.get(OPERATOR, "shop")


async def test_another_business_is_not_there_for_any_edit(office: Office) -> None:
    desk, before = office.desk, await everything(office)
    for id_ in ("bank", "nobody", "", "a}b", "shop\n", "x" * 5000):
        for edit in (
            desk.businesses.get(ADMIN, id_),
            desk.businesses.edit(ADMIN, id_, {"name": "Mine"}, None),
            desk.businesses.delete(ADMIN, id_, None),
            desk.keys.all(ADMIN, id_),
            desk.keys.issue(ADMIN, id_, {"label": "x"}),
            desk.keys.revoke(ADMIN, id_, "0" * 12),
            desk.secrets.states(ADMIN, id_),
            desk.secrets.save(ADMIN, id_, {"twilio_auth_tokens": ["x"]}),
            desk.audit.page(ADMIN, id_ or "bank"),
        ):
            with pytest.raises(NotThere):
                await edit
    assert await everything(office) == before
    assert await office.actions() == []


def test_a_plan_is_read_with_what_a_business_may_read() -> None:
    assert ADMIN.may(Permission.READ_PLANS)
    assert PLAN_FIELDS.keys().isdisjoint(BUSINESS_FIELDS.keys() - {"name"})
    assert issubclass(NotThere, AdminError)
