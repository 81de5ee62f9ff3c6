"""Who calls in a simulation: drawn by a seed, in kinds and shares that are asked for."""

from collections import Counter

import pytest

from app.tools.simulate.asked import Asked, Fault, callers_of


def test_the_same_seed_draws_the_same_callers_and_another_others() -> None:
    asked = Asked(7, calls=20, seconds=(1, 9), drop=0.2, faults=(Fault.GAPS,))
    assert callers_of(asked) == callers_of(asked)
    other = Asked(8, calls=20, seconds=(1, 9), drop=0.2, faults=(Fault.GAPS,))
    assert callers_of(asked) != callers_of(other)


@pytest.mark.parametrize(("drop", "cut"), [(0, 0), (0.1, 1), (0.25, 2), (0.5, 5), (1, 10)])
def test_that_share_of_calls_is_cut_in_their_midst(drop: float, cut: int) -> None:
    callers = callers_of(Asked(1, calls=10, seconds=(2, 4), drop=drop))
    cut_ones = [one for one in callers if one.cut_at is not None]
    assert len(cut_ones) == cut
    assert all(0 < (one.cut_at or 0) < one.seconds for one in cut_ones)
    assert Counter(one.kind for one in callers) == Counter({"good": 10 - cut, "cut mid-call": cut})


def test_bad_callers_come_beside_the_good_and_are_not_cut() -> None:
    faults = (Fault.SILENT, Fault.SILENT, Fault.HUGE)
    callers = callers_of(Asked(1, calls=3, drop=1, faults=faults))
    assert len(callers) == 6
    assert Counter(one.fault for one in callers if one.fault) == Counter(faults)
    assert all(one.cut_at is None for one in callers if one.fault)


def test_callers_ring_at_the_rate_and_last_as_long_as_they_may() -> None:
    callers = callers_of(Asked(1, calls=40, seconds=(2, 5), rate=4))
    assert [one.starts_at for one in callers] == [place / 4 for place in range(40)]
    assert all(2 <= one.seconds <= 5 for one in callers)
    assert len({one.seconds for one in callers}) > 30


def test_callers_differ_in_what_they_say_and_by_whom() -> None:
    callers = callers_of(Asked(1, calls=40))
    assert len({one.begins_at for one in callers}) == 40
    assert {one.voice for one in callers} == {0, 1, 2}
    assert all(one.voice != one.other_voice for one in callers)
    assert len({one.from_number for one in callers}) > 30
