"""What a simulation says: of itself while it runs, and at its end in a table."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final, TextIO

from app.tools.receipts import Receipt
from app.tools.simulate.placing import Outcome, Placed
from app.tools.terminal import write_control

# Calls that went wrong, each with its reason.
MAX_TOLD: Final = 20
# A frame that is so late is late because this process, or the service, does not keep up.
LATE_SECONDS: Final = 0.1
_HEADINGS: Final = (
    *("callers", "calls", "heard", "cut", "ended", "refused", "unreached"),
    *("frames sent", "received", "published"),
)


@dataclass(frozen=True, slots=True)
class Row:
    """The calls of one kind of caller: how many came to what, and their frames.

    `received` and `published` are None where nobody was asked; `is_whole` tells that
    every call has a receipt, and for as many frames as it should.
    """

    kind: str
    outcomes: Mapping[Outcome, int]
    sent: int
    received: int | None
    published: int | None
    is_whole: bool

    @property
    def calls(self) -> int:
        """Count the calls."""
        return sum(self.outcomes.values())


def rows_of(placed: Sequence[Placed], receipts: Mapping[str, Receipt] | None) -> list[Row]:
    """Sum calls up, by kind of caller, the good first."""

    def order(one: Placed) -> tuple[bool, bool, str]:
        caller = one.caller
        return (caller.fault is not None, caller.cut_at is not None, caller.kind)

    grouped = groupby(sorted(placed, key=order), key=lambda one: one.caller.kind)
    return [_row(kind, list(calls), receipts) for kind, calls in grouped]


def _row(kind: str, calls: list[Placed], receipts: Mapping[str, Receipt] | None) -> Row:
    received = published = None
    if receipts is not None:
        kept = [receipts[one.call.call_sid] for one in calls if one.call.call_sid in receipts]
        # Of a stream that another replica ended nothing is known but that.
        received = sum(receipt["received"] or 0 for receipt in kept)
        published = sum(receipt["published"] or 0 for receipt in kept)
    return Row(
        kind,
        {outcome: sum(one.outcome is outcome for one in calls) for outcome in Outcome},
        sum(one.sent for one in calls),
        received,
        published,
        receipts is None or all(is_whole(one, receipts.get(one.call.call_sid)) for one in calls),
    )


def is_whole(placed: Placed, receipt: Receipt | None) -> bool:
    """Tell whether every frame of a call arrived and was published.

    Of a call that was cut, what was on its way then may be missing. A bad caller's
    counts for nothing, nor does that of a call that never streamed.
    """
    if placed.caller.fault is not None or not placed.has_streamed:
        return True
    if receipt is None or receipt["received"] is None:
        return False
    arrived: int = receipt["received"]
    has_all = arrived <= placed.sent if placed.outcome is Outcome.CUT else arrived == placed.sent
    return bool(has_all and receipt["published"] == arrived)


def table(rows: Iterable[Row]) -> str:
    """Write the closing table."""
    lines = [_HEADINGS, *map(_cells, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _cells(row: Row) -> tuple[str, ...]:
    counts = (row.calls, *row.outcomes.values(), row.sent, row.received, row.published)
    return (row.kind, *("?" if count is None else f"{count:,}" for count in counts))


def troubles(placed: Iterable[Placed]) -> list[str]:
    """Say of each call that went wrong how, up to a number of them."""
    wrong = [one for one in placed if not one.is_as_it_should]
    told = [f"{one.call.call_sid} was {one.outcome}: {one.why}" for one in wrong[:MAX_TOLD]]
    more = len(wrong) - len(told)
    return [*told, f"… and {more} more"] if more else told


def lateness(placed: Iterable[Placed], own_lag: float) -> str:
    """Say how late frames went, and whose fault it is; nothing where they were in time."""
    late = max((one.late for one in placed if one.caller.fault is None), default=0.0)
    if late < LATE_SECONDS:
        return ""
    if own_lag >= LATE_SECONDS / 2:
        limit = f"this process is the limit: it lagged by up to {own_lag * 1000:.0f} ms itself"
    else:
        limit = "the service, or the way to it, took them no faster"
    return f"frames went up to {late * 1000:.0f} ms after their time; {limit}"


class Board:
    """Count calls, and show them in one running line on a terminal."""

    def __init__(self, calls: int, out: TextIO = sys.stderr) -> None:
        self._calls = calls
        self._live = self._over = self._refused = 0
        self._out = out
        self._is_terminal = out.isatty()

    def live(self, change: int) -> None:
        """Note that one more is live (1), or one fewer (-1)."""
        self._live += change

    def over(self, placed: Placed) -> None:
        """Note that a call is over, or was never live."""
        if placed.has_streamed:
            self._over += 1
        else:
            self._refused += 1

    def show(self) -> None:
        """Draw the line anew; nothing where it is no terminal."""
        if self._is_terminal:
            left = self._calls - self._live - self._over - self._refused
            line = f"{self._live} live, {self._over} ended, {self._refused} refused, {left} to come"
            write_control(self._out, "\r\033[K")
            self._out.write(line)
            self._out.flush()

    def clear(self) -> None:
        """Take the line away."""
        if self._is_terminal:
            write_control(self._out, "\r\033[K")
            self._out.flush()
