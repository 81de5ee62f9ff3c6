"""Which spellings name a person, and which do not."""

import pytest

from app.errors import FieldsInvalid
from app.records.phone_match import Person, region_of

NUMBER = "+12763659195"
INDIAN = "+919876543210"


@pytest.mark.parametrize(
    "text",
    [
        "+12763659195",
        "12763659195",
        "0012763659195",
        "01112763659195",
        "+1 276-365-9195",
        "+1 (276) 365-9195",
        "+1.276.365.9195",
        "1 276 365 9195",
        "tel:+12763659195",
        "sip:+12763659195@carrier.example.com",
        "sip:12763659195@192.0.2.1:5060;user=phone",
        "client:12763659195",
        "whatsapp:+12763659195",
        "+1\u00a0276\u2011365\u20119195",
        "+\u0661\u0662\u0667\u0666\u0663\u0666\u0665\u0669\u0661\u0669\u0665",
        "call +12763659195 back, please",
        "+12763659195 15005550006",
        '{"number": "+12763659195"}',
    ],
)
def test_recognises_international_spellings(text: str) -> None:
    assert Person(NUMBER).is_in(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "anonymous",
        "+12763659196",
        "+127636591950",
        "+1276365919",
        "2763659195",
        "(276) 365-9195",
        "+442763659195",
        "CA12763659195",
        "12763659195ab",
        "MZ_12763659195",
        "9195",
        "client:alice",
    ],
)
def test_leaves_other_texts_alone(text: str) -> None:
    assert not Person(NUMBER).is_in(text)


@pytest.mark.parametrize(
    ("number", "text", "regions", "expected"),
    [
        (NUMBER, "2763659195", {"US"}, True),
        (NUMBER, "(276) 365-9195", {"US"}, True),
        (NUMBER, "2763659195", {"IN"}, False),
        (NUMBER, "2763659195", {"GB", "US"}, True),
        (INDIAN, "09876543210", {"IN"}, True),
        (INDIAN, "9876543210", {"IN"}, True),
        (INDIAN, "098765 43210", {"IN"}, True),
        (INDIAN, "9876543210", {"US"}, False),
        (INDIAN, "9876543210", set(), False),
        (INDIAN, "+9876543210", {"IN"}, False),
        (INDIAN, "09876543211", {"IN"}, False),
    ],
)
def test_national_spellings_need_their_country(
    number: str, text: str, regions: set[str], *, expected: bool
) -> None:
    assert Person(number).is_in(text, regions) is expected


@pytest.mark.parametrize(
    ("asked", "text", "expected"),
    [
        ("client:alice", "client:alice", True),
        ("client:alice", "client:Alice", True),
        ("sip:alice@example.com", "sip:alice@example.com", True),
        ("sip:alice@example.com", "sips:alice@EXAMPLE.com", True),
        ("sip:alice@example.com", "<sip:alice@example.com;tag=1>", True),
        ("sip:alice@example.com", "sip:alice@example.org", False),
        ("sip:alice", "sip:alice@example.com", True),
        ("client:alice", "alice", False),
        ("client:alice", "client:alice2", False),
    ],
)
def test_recognises_addresses(asked: str, text: str, *, expected: bool) -> None:
    assert Person(asked).is_in(text) is expected


@pytest.mark.parametrize(
    ("text", "identity"),
    [
        ("+12763659195", NUMBER),
        (" +1 (276) 365-9195 ", NUMBER),
        ("tel:+12763659195", NUMBER),
        ("0012763659195", NUMBER),
        ("00 1 276-365-9195", NUMBER),
        ("client:Alice", "alice"),
    ],
)
def test_one_person_has_one_identity(text: str, identity: str) -> None:
    assert Person(text).identity == identity


@pytest.mark.parametrize(
    "text", ["", "2763659195", "+12", "+1276365919512763659195", "alice", "client:", "x:y", "+abc"]
)
def test_refuses_what_names_nobody_in_particular(text: str) -> None:
    with pytest.raises(FieldsInvalid) as refused:
        Person(text)
    assert set(refused.value.problems) == {"number"}


@pytest.mark.parametrize(
    ("number", "region"), [(NUMBER, "US"), (INDIAN, "IN"), ("9876543210", ""), ("", "")]
)
def test_knows_the_country_of_an_international_number(number: str, region: str) -> None:
    assert region_of(number) == region
