"""Texts that carriers and clients name, cut to their bound."""

import pytest

from app.carriers.texts import FORM_FIELDS, MAX_FIELD_CHARACTERS, cut, form_field
from app.wire.base import is_identifier


@pytest.mark.parametrize(
    ("text", "bounded"),
    [
        ("", ""),
        ("+12763659195", "+12763659195"),
        ("x" * 16, "x" * 16),
        ("x" * 17, "x" * 15 + "…"),
        ("ä" * 60_000, "ä" * 15 + "…"),
    ],
)
def test_cuts_and_marks_what_is_longer_than_its_bound(text: str, bounded: str) -> None:
    assert cut(text, 16) == bounded


@pytest.mark.parametrize("name", [*FORM_FIELDS, "CallSid", "StreamSid", "Another"])
def test_bounds_every_field_of_a_form(name: str) -> None:
    most = FORM_FIELDS.get(name, MAX_FIELD_CHARACTERS)
    assert form_field({name: "x" * most}, name) == "x" * most
    assert len(form_field({name: "x" * 60_000}, name)) == most


def test_no_id_that_was_cut_is_valid() -> None:
    assert is_identifier(form_field({"CallSid": "C" * 128}, "CallSid"))
    assert not is_identifier(form_field({"CallSid": "C" * 129}, "CallSid"))
    assert not is_identifier(form_field({"CallSid": "C" * 60_000}, "CallSid"))
