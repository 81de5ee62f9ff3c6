"""Secrets at rest: opened with the key and in the place they were sealed for, and nowhere else."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.credentials.sealing import Sealing
from app.errors import SecretUnreadable

KEY = "k" * 32
SECRET = "0123456789abcdef0123456789abcdef"
SEALED = Sealing((KEY,)).seal("shop", "twilio_auth_tokens", SECRET)


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_what_is_sealed_is_opened_again(text: str) -> None:
    sealed = Sealing((KEY,)).seal("shop", "twilio_auth_tokens", text)
    assert sealed.isascii()
    assert Sealing((KEY,)).unseal("shop", "twilio_auth_tokens", sealed) == text


def test_a_sealed_secret_shows_nothing_and_is_never_the_same_twice() -> None:
    again = Sealing((KEY,)).seal("shop", "twilio_auth_tokens", SECRET)
    assert again != SEALED
    raw = base64.urlsafe_b64decode(SEALED.removeprefix("v1."))
    assert SECRET.encode() not in raw
    assert SECRET not in SEALED


@pytest.mark.parametrize(
    ("key", "business_id", "name"),
    [
        ("K" * 32, "shop", "twilio_auth_tokens"),
        (KEY, "bank", "twilio_auth_tokens"),
        (KEY, "shop", "usage_webhook_secret"),
        (KEY, "", "shop/twilio_auth_tokens"),
    ],
)
def test_a_secret_is_opened_by_its_key_and_in_its_place_alone(
    key: str, business_id: str, name: str
) -> None:
    with pytest.raises(SecretUnreadable) as refused:
        Sealing((key,)).unseal(business_id, name, SEALED)
    assert "SECRET_KEY" in str(refused.value)
    for hidden in (SECRET, SEALED, key):
        assert hidden not in str(refused.value)


@pytest.mark.parametrize(
    "sealed",
    [
        "",
        "v1.",
        "v1.AAAA",
        "v2." + SEALED[3:],
        SEALED[3:],
        SEALED[:-4],
        SEALED + "AAAA",
        SEALED[:40] + ("A" if SEALED[40] != "A" else "B") + SEALED[41:],
        "v1.☎",
        "v1.!" + SEALED[3:],
        SECRET,
    ],
    # What is sealed is another text each time, and two processes must name a test alike.
    ids=str.__len__,
)
def test_what_was_tampered_with_is_not_opened(sealed: str) -> None:
    with pytest.raises(SecretUnreadable):
        Sealing((KEY,)).unseal("shop", "twilio_auth_tokens", sealed)


NEW, OLD = "n" * 32, "o" * 32


def test_the_first_key_seals_and_the_others_still_open() -> None:
    rotating = Sealing((NEW, OLD))
    place = ("shop", "twilio_auth_tokens")
    assert rotating.unseal(*place, Sealing((OLD,)).seal(*place, SECRET)) == SECRET
    assert Sealing((NEW,)).unseal(*place, rotating.seal(*place, SECRET)) == SECRET
    with pytest.raises(SecretUnreadable):
        rotating.unseal(*place, SEALED)


def test_resealing_moves_a_secret_to_the_first_key_and_leaves_others_alone() -> None:
    rotating = Sealing((NEW, OLD))
    place = ("shop", "twilio_auth_tokens")
    moved = rotating.resealed(*place, Sealing((OLD,)).seal(*place, SECRET))
    assert Sealing((NEW,)).unseal(*place, moved) == SECRET
    assert rotating.resealed(*place, moved) == moved
    with pytest.raises(SecretUnreadable):
        rotating.resealed(*place, SEALED)


def test_a_sealing_without_a_key_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one key"):
        Sealing(())
