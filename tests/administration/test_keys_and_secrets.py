"""Keys are shown once, secrets never; both are written down without what they are."""

import hashlib
from dataclasses import replace
from typing import Any

import pytest

from app.administration.keys import MOST_KEYS
from app.administration.secret_fields import NAMES, NoSealer, Secrets
from app.errors import FieldsInvalid, Forbidden, NotThere, NumberTaken
from tests.administration.conftest import ADMIN, NOW, OPERATOR, Office

TOKENS = ["the-current-token", "the-older-token"]


async def test_a_key_is_shown_once_and_stored_as_its_digest(office: Office) -> None:
    issued = await office.desk.keys.issue(OPERATOR, "shop", {"label": " The till "})
    assert issued.key.digest == hashlib.sha256(issued.text.encode()).hexdigest()
    assert issued.text not in repr(issued)
    assert await office.desk.keys.all(ADMIN, "shop") == [issued.key]
    assert (issued.key.label, issued.key.created_at) == ("The till", int(NOW * 1000))
    [entry] = await office.access.audit_log("shop")
    assert (entry.action, entry.target) == ("key.issued", issued.key.id)
    assert issued.text not in str(entry)


@pytest.mark.parametrize(
    "table",
    [
        {},
        {"label": ""},
        {"label": "  "},
        {"label": 7},
        {"label": None},
        {"label": "x" * 81},
        {"label": "a\u202eb"},
        {"label": "a\nb"},
        {"label": "\ud800"},
    ],
)
async def test_a_label_says_something_in_a_line(office: Office, table: dict[str, Any]) -> None:
    with pytest.raises(FieldsInvalid) as caught:
        await office.desk.keys.issue(OPERATOR, "shop", table)
    assert caught.value.problems.keys() == {"label"}
    assert await office.desk.keys.all(OPERATOR, "shop") == []


async def test_what_a_key_does_not_have_is_named(office: Office) -> None:
    with pytest.raises(FieldsInvalid) as caught:
        await office.desk.keys.issue(OPERATOR, "shop", {"label": "x", "business_id": "bank"})
    assert caught.value.problems.keys() == {"business_id"}


async def test_an_admin_lists_keys_and_neither_issues_nor_revokes_them(office: Office) -> None:
    issued = await office.desk.keys.issue(OPERATOR, "shop", {"label": "x"})
    with pytest.raises(Forbidden):
        await office.desk.keys.issue(ADMIN, "shop", {"label": "x"})
    with pytest.raises(Forbidden):
        await office.desk.keys.revoke(ADMIN, "shop", issued.key.id)
    assert await office.desk.keys.all(ADMIN, "shop") == [issued.key]


async def test_a_revoked_key_is_gone_and_is_not_revoked_again(office: Office) -> None:
    issued = await office.desk.keys.issue(OPERATOR, "shop", {"label": "x"})
    with pytest.raises(NotThere):
        await office.desk.keys.revoke(OPERATOR, "bank", issued.key.id)
    await office.desk.keys.revoke(OPERATOR, "shop", issued.key.id)
    for key_id in (issued.key.id, "", "x", "0" * 12, f"{issued.key.id}:used"):
        with pytest.raises(NotThere):
            await office.desk.keys.revoke(OPERATOR, "shop", key_id)
    assert await office.actions() == ["key.issued", "key.revoked"]


async def test_a_business_has_so_many_keys_and_no_more(office: Office) -> None:
    for _ in range(MOST_KEYS):
        await office.desk.keys.issue(OPERATOR, "shop", {"label": "x"})
    with pytest.raises(FieldsInvalid, match="revoke"):
        await office.desk.keys.issue(OPERATOR, "shop", {"label": "x"})
    assert await office.desk.keys.issue(OPERATOR, "bank", {"label": "x"})


# --------------------------------------------------------------------- secrets


async def test_no_secret_is_set_at_first(office: Office) -> None:
    states = await office.desk.secrets.states(ADMIN, "shop")
    assert [(one.name, one.count, one.set_at) for one in states] == [(n, 0, 0) for n in NAMES]
    assert all(one.effect for one in states)


async def test_secrets_are_sealed_counted_and_never_given(office: Office) -> None:
    given = {
        "twilio_auth_tokens": TOKENS,
        "usage_webhook_secret": "a-secret-for-signing",
        "exotel_pairs": ["own-key:own-token"],
    }
    states = await office.desk.secrets.save(ADMIN, "shop", given)
    now_ms = int(NOW * 1000)
    assert {one.name: (one.count, one.set_at) for one in states} == {
        "twilio_auth_tokens": (2, now_ms),
        "usage_webhook_secret": (1, now_ms),
        "exotel_pairs": (1, now_ms),
    }
    stored = await office.store.sealed_secrets("shop")
    business = (await office.desk.businesses.get(ADMIN, "shop")).record
    everything = f"{stored} {states} {business} {await office.access.audit_log(None)}"
    for secret in ("the-current-token", "the-older-token", "a-secret-for-signing", "own-token"):
        assert secret not in everything
    name = "twilio_auth_tokens"
    assert office.sealing.unseal("shop", name, stored[name]) == ",".join(TOKENS)
    name = "usage_webhook_secret"
    assert office.sealing.unseal("shop", name, stored[name]) == "a-secret-for-signing"
    [entry] = [one for one in await office.access.audit_log("shop") if "secrets" in one.action]
    assert entry.data == {"fields": "twilio_auth_tokens, usage_webhook_secret, exotel_pairs"}


@pytest.mark.parametrize("nothing", [None, []])
async def test_what_is_not_named_stays_and_nothing_removes(office: Office, nothing: object) -> None:
    secrets = office.desk.secrets
    await secrets.save(ADMIN, "shop", {"twilio_auth_tokens": TOKENS, "exotel_pairs": ["a:b"]})
    states = await secrets.save(ADMIN, "shop", {"exotel_pairs": nothing})
    assert [one.count for one in states] == [2, 0, 0]
    states = await secrets.save(ADMIN, "shop", {"twilio_auth_tokens": nothing})
    assert [(one.count, one.set_at) for one in states] == [(0, 0)] * 3
    assert set((await office.store.sealed_secrets("shop")).values()) <= {""}


@pytest.mark.parametrize(
    ("given", "fields"),
    [
        ({"twilio_auth_tokens": "one"}, {"twilio_auth_tokens"}),
        ({"twilio_auth_tokens": ["a", "b", "c"]}, {"twilio_auth_tokens"}),
        ({"twilio_auth_tokens": ["a", "a"]}, {"twilio_auth_tokens"}),
        ({"twilio_auth_tokens": [""]}, {"twilio_auth_tokens"}),
        ({"twilio_auth_tokens": ["with space"]}, {"twilio_auth_tokens"}),
        ({"twilio_auth_tokens": ["with,comma"]}, {"twilio_auth_tokens"}),
        ({"twilio_auth_tokens": ["ünicode"]}, {"twilio_auth_tokens"}),
        ({"twilio_auth_tokens": ["x" * 257]}, {"twilio_auth_tokens"}),
        ({"twilio_auth_tokens": [7]}, {"twilio_auth_tokens"}),
        ({"twilio_auth_tokens": [["a"]]}, {"twilio_auth_tokens"}),
        ({"usage_webhook_secret": "short"}, {"usage_webhook_secret"}),
        ({"usage_webhook_secret": 7}, {"usage_webhook_secret"}),
        ({"exotel_pairs": ["no-colon"]}, {"exotel_pairs"}),
        ({"twilio_auth_token": ["a"]}, {"twilio_auth_token"}),
        ({"twilio_auth_tokens": [""], "exotel_pairs": 1}, {"twilio_auth_tokens", "exotel_pairs"}),
    ],
)
async def test_every_bad_secret_is_named_without_what_it_is(
    office: Office, given: dict[str, Any], fields: set[str]
) -> None:
    with pytest.raises(FieldsInvalid) as caught:
        await office.desk.secrets.save(OPERATOR, "shop", {"exotel_pairs": ["a:b"], **given})
    assert caught.value.problems.keys() == fields
    assert not await office.store.sealed_secrets("shop")
    assert (await office.desk.businesses.get(OPERATOR, "shop")).record.exotel_pairs == ()
    assert await office.actions() == []


async def test_another_business_s_pair_is_not_taken(office: Office) -> None:
    await office.desk.secrets.save(OPERATOR, "bank", {"exotel_pairs": ["key:token"]})
    with pytest.raises(NumberTaken):
        await office.desk.secrets.save(ADMIN, "shop", {"exotel_pairs": ["key:token"]})
    assert not await office.store.sealed_secrets("shop")


async def test_without_a_key_to_seal_with_no_secret_is_stored(office: Office) -> None:
    desk = office.desk
    unsealed = Secrets(office.store, desk.businesses, NoSealer(), desk.audit, lambda: NOW)
    given = {"exotel_pairs": ["key:token"], "twilio_auth_tokens": TOKENS}
    with pytest.raises(FieldsInvalid, match="SECRET_KEY"):
        await unsealed.save(OPERATOR, "shop", given)
    before = (await desk.businesses.get(OPERATOR, "shop")).record
    assert before == replace(before, exotel_pairs=())
    states = await unsealed.save(OPERATOR, "shop", {"exotel_pairs": ["key:token"]})
    assert [one.count for one in states] == [0, 0, 1]
