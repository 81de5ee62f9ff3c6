"""What a simulation says at its end: sums by kind, who is at fault, and a running line."""

import io
import re
from typing import Any

import pytest

from app.tools.caller import new_call
from app.tools.simulate.asked import Asked, Fault, callers_of
from app.tools.simulate.placing import Outcome, Placed
from app.tools.simulate.report import Board, is_whole, lateness, rows_of, table, troubles

OUTCOMES = ("callers", "calls", "heard", "cut", "ended", "refused", "unreached")


def placed(
    outcome: Outcome, sent: int = 0, *, drop: float = 0, fault: Fault | None = None, **more: Any
) -> Placed:
    callers = callers_of(Asked(1, drop=drop, faults=(fault,) if fault else ()))
    caller = next(one for one in callers if one.fault is fault)
    return Placed(caller, new_call("+15005550006"), outcome, sent=sent, **more)


def receipt(received: int | None, published: int | None = None) -> dict[str, int | None]:
    return {"received": received, "published": received if published is None else published}


@pytest.mark.parametrize(
    ("call", "its_receipt", "expected"),
    [
        (placed(Outcome.HEARD, 50), receipt(50), True),
        (placed(Outcome.HEARD, 50), receipt(49), False),
        (placed(Outcome.HEARD, 50), receipt(51), False),
        (placed(Outcome.HEARD, 50), receipt(50, 49), False),
        (placed(Outcome.HEARD, 50), None, False),
        (placed(Outcome.HEARD, 50), receipt(None, 0), False),
        (placed(Outcome.ENDED, 50), receipt(40), False),
        (placed(Outcome.CUT, 50, drop=1), receipt(50), True),
        (placed(Outcome.CUT, 50, drop=1), receipt(48), True),
        (placed(Outcome.CUT, 50, drop=1), receipt(51), False),
        (placed(Outcome.CUT, 50, drop=1), receipt(48, 47), False),
        (placed(Outcome.CUT, 50, drop=1), None, False),
        (placed(Outcome.REFUSED), None, True),
        (placed(Outcome.UNREACHED), None, True),
        (placed(Outcome.ENDED, 50, fault=Fault.HUGE), None, True),
        (placed(Outcome.HEARD, 50, fault=Fault.REPEATS), receipt(50, 45), True),
    ],
)
def test_a_call_is_whole_when_all_that_was_sent_was_published(
    call: Placed, its_receipt: dict[str, int] | None, expected: bool
) -> None:
    assert is_whole(call, its_receipt) is expected


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (placed(Outcome.HEARD), True),
        (placed(Outcome.CUT, drop=1), True),
        (placed(Outcome.HEARD, drop=1), False),
        (placed(Outcome.ENDED), False),
        (placed(Outcome.REFUSED), False),
        (placed(Outcome.UNREACHED, drop=1), False),
        (placed(Outcome.REFUSED, fault=Fault.SILENT), True),
    ],
)
def test_a_call_went_as_it_should_by_its_kind(call: Placed, expected: bool) -> None:
    assert call.is_as_it_should is expected


def test_the_table_sums_up_by_kind_the_good_first() -> None:
    calls = [
        placed(Outcome.ENDED, 30, fault=Fault.HUGE),
        placed(Outcome.CUT, 20, drop=1),
        placed(Outcome.HEARD, 1500),
        placed(Outcome.REFUSED),
    ]
    receipts = {
        one.call.call_sid: receipt(one.sent) for one in calls if one.outcome is not Outcome.REFUSED
    }
    lines = table(rows_of(calls, receipts)).splitlines()
    assert len({len(line) for line in lines}) == 1, "it is no table"
    assert [re.split(r"\s{2,}", line) for line in lines] == [
        [*OUTCOMES, "frames sent", "received", "published"],
        ["good", "2", "1", "0", "0", "1", "0", "1,500", "1,500", "1,500"],
        ["cut mid-call", "1", "0", "1", "0", "0", "0", "20", "20", "20"],
        ["bad: huge", "1", "0", "0", "1", "0", "0", "30", "30", "30"],
    ]


def test_without_receipts_the_table_says_what_is_not_known() -> None:
    [row] = rows_of([placed(Outcome.HEARD, 50)], None)
    assert table([row]).splitlines()[1].split()[-3:] == ["50", "?", "?"]


def test_one_incomplete_call_makes_its_row_incomplete() -> None:
    calls = [placed(Outcome.HEARD, 50), placed(Outcome.HEARD, 50)]
    receipts = {one.call.call_sid: receipt(50) for one in calls[:1]}
    assert [row.is_whole for row in rows_of(calls, receipts)] == [False]


@pytest.mark.parametrize(
    ("late", "own_lag", "said"),
    [
        (0.02, 0.0, ""),
        (0.4, 0.3, "this process is the limit"),
        (0.4, 0.01, "the service, or the way to it"),
    ],
)
def test_it_is_said_who_is_late_where_anybody_is(late: float, own_lag: float, said: str) -> None:
    found = lateness([placed(Outcome.HEARD, late=late)], own_lag)
    assert (said in found) if said else not found


def test_how_late_a_bad_carrier_was_is_no_matter() -> None:
    assert not lateness([placed(Outcome.ENDED, late=9, fault=Fault.HUGE)], 0)


def test_of_many_calls_that_went_wrong_a_few_are_told() -> None:
    told = troubles([placed(Outcome.ENDED, why="drain") for _ in range(25)])
    assert len(told) == 21
    assert "was ended: drain" in told[0]
    assert told[-1] == "… and 5 more"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("out", [Terminal(), io.StringIO()])
def test_a_running_line_is_drawn_on_a_terminal_alone(out: io.StringIO) -> None:
    board = Board(5, out)
    board.live(1)
    board.live(1)
    board.live(-1)
    board.over(placed(Outcome.HEARD))
    board.over(placed(Outcome.REFUSED))
    board.show()
    line = "1 live, 1 ended, 1 refused, 2 to come"
    assert out.getvalue() == (f"\r\033[K{line}" if out.isatty() else "")
