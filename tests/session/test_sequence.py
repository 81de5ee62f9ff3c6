"""Sequence numbers: what they prove to be missing, repeated, or a new numbering."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.session.sequence import Place, Sequence


def placed(*carried: int | None, payloads: bool = True) -> tuple[list[Place], Sequence]:
    sequence = Sequence()
    return [
        sequence.place(number, str(at).encode() if payloads else None)
        for at, number in enumerate(carried)
    ], sequence


@pytest.mark.parametrize(
    ("carried", "seqs", "missing", "resets"),
    [
        pytest.param([1, 2, 3], [1, 2, 3], 0, 0, id="in order"),
        pytest.param([7, 8], [7, 8], 0, 0, id="a first number of any size"),
        pytest.param([1, 4, 5], [1, 4, 5], 2, 0, id="a jump is a gap"),
        pytest.param([1, 1001], [1, 1001], 999, 0, id="a step of 1,000 is a gap"),
        pytest.param([1, 1002], [1, 2], 0, 1, id="a longer one is a new numbering"),
        pytest.param([5, 6, 3, 4], [5, 6, 7, 8], 0, 1, id="a step back is a new numbering"),
        pytest.param([5, 5], [5, 6], 0, 1, id="the same number with other audio"),
        pytest.param([1, -4, -3], [1, 2, 3], 0, 1, id="a negative number"),
        pytest.param([-4, -3], [1, 2], 0, 1, id="a negative first number"),
        pytest.param([1, 2**63 - 1, 3], [1, 2, 3], 0, 2, id="a huge number"),
        pytest.param([None, None], [1, 2], 0, 0, id="no numbers at all"),
        pytest.param([4, None, 6], [4, 5, 6], 0, 0, id="one without a number takes the next"),
        pytest.param([None, None, 1, 2], [1, 2, 3, 4], 0, 0, id="numbers that begin late"),
    ],
)
def test_messages_are_placed_by_rule(
    carried: list[int | None], seqs: list[int], missing: int, resets: int
) -> None:
    places, sequence = placed(*carried)
    assert [place.seq for place in places] == seqs
    assert (sequence.missing, sequence.resets) == (missing, resets)


def test_the_last_number_again_with_the_same_payload_is_a_duplicate() -> None:
    sequence = Sequence()
    sequence.place(1, b"a")
    assert sequence.place(1, b"a").duplicate
    assert sequence.place(2, b"a") == Place(2)
    assert (sequence.missing, sequence.resets) == (0, 0)


def test_an_older_number_with_an_old_payload_is_no_duplicate() -> None:
    sequence = Sequence()
    for number in (1, 2):
        sequence.place(number, b"a")
    assert not sequence.place(1, b"a").duplicate
    assert sequence.resets == 1


def test_after_a_new_numbering_gaps_are_still_found() -> None:
    places, sequence = placed(100, 5, 8)
    assert places[-1] == Place(104, missing=2)
    assert sequence.missing == 2


def test_an_unreadable_message_explains_one_missing_number() -> None:
    sequence = Sequence()
    sequence.place(1, b"")
    sequence.note_unreadable()
    assert sequence.place(4, b"") == Place(4, unreadable=1, missing=1)
    assert sequence.missing == 1


def test_an_unreadable_message_without_a_missing_number_changes_nothing() -> None:
    sequence = Sequence()
    sequence.place(1, b"")
    sequence.note_unreadable()
    assert sequence.place(2, b"") == Place(2)
    assert sequence.place(4, b"") == Place(4, missing=1)


@given(st.lists(st.none() | st.integers(-(2**63), 2**63 - 1) | st.integers(-5, 1100)))
def test_published_numbers_always_rise(carried: list[int | None]) -> None:
    places, _ = placed(*carried)
    seqs = [place.seq for place in places]
    assert all(after > before for before, after in zip(seqs, seqs[1:], strict=False))
