"""Ids and numbers, as every wire protocol reads them."""

import pytest

from app.wire.base import int_of, is_identifier


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        *((0, 0), (7, 7), (-7, -7), ("7", 7), ("-7", -7), ("0", 0), ("-0", 0)),
        *((7.0, 7), ("7.0", 7), ("1e3", 1000), (-0.0, 0)),
        *((2**63 - 1, 2**63 - 1), (-(2**63), -(2**63)), (str(2**63 - 1), 2**63 - 1)),
    ],
)
def test_an_integer_is_read_as_number_or_as_text(value: object, expected: int) -> None:
    number = int_of(value)
    assert number == expected
    assert type(number) is int


@pytest.mark.parametrize(
    "value",
    [
        *(None, True, False, [], [7], {}, b"7", object()),
        *(7.5, "7.5", float("nan"), float("inf"), 1e300, "NaN", "1e400"),
        *("", "-", "+7", " 7", "7 ", "007", "1_0", "0x7", "٣", "７", "\ud800", "7\0", "seven"),
        *(2**63, -(2**63) - 1, 2**70, str(2**63), str(2**70), "9" * 5000),
        "2025-06-01T12:00:00Z",
    ],
)
def test_anything_else_is_no_integer(value: object) -> None:
    assert int_of(value) is None


@pytest.mark.parametrize("text", ["a", "MZ0123", "business-1.call_2", "..a", "a" * 128])
def test_an_identifier_is_letters_digits_dots_dashes_and_underscores(text: str) -> None:
    assert is_identifier(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "..",
        "." * 128,
        "a b",
        "a\n",
        "a/b",
        "a:b",
        "{a}",
        "é",
        "a\0",
        "a" * 129,
        None,
        7,
        ["a"],
        b"a",
    ],
)
def test_anything_else_is_no_identifier(text: object) -> None:
    assert not is_identifier(text)
