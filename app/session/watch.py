"""When a session ends by itself: its deadline, and its peer's silence."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Protocol, Self

from app.errors import BridgeError
from app.events import EndReason

# A peer that sends nothing for so long, and leaves a ping unanswered, is gone.
VANISHED_SECONDS = 10.0
# The parts of a round: after two of them the peer is asked, after four it is judged.
_PARTS = 4


class Line(Protocol):
    """What lies under a WebSocket's messages: pings, and the connection itself."""

    def ask(self) -> None:
        """Ask the peer for a sign of life; no effect when it is closed."""

    @property
    def answered(self) -> bool:
        """Tell whether anything came from the peer since it was asked."""

    def abort(self) -> None:
        """Let go of the connection at once, without a word to the peer."""

    def pause(self) -> None:
        """Give no more messages until `resume`."""

    def resume(self) -> None:
        """Give messages again."""


class Deadline:
    """The moment at which a session ends unless its peer ends it before, and why.

    It can be moved until something has ended the session; from then on it stays.
    """

    def __init__(self, seconds: float, due: EndReason | BridgeError) -> None:
        self._timeout = asyncio.timeout(seconds)
        self._moves = False
        self.due = due

    async def __aenter__(self) -> Self:
        await self._timeout.__aenter__()
        self._moves = True
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._moves = False
        await self._timeout.__aexit__(kind, error, traceback)

    def move(self, seconds: float, due: EndReason | BridgeError) -> None:
        """Let it be in `seconds` from now, and for this reason."""
        if self._moves and not self._timeout.expired():
            self.due = due
            self._timeout.reschedule(asyncio.get_running_loop().time() + seconds)

    def end(self, reason: EndReason) -> None:
        """Let it be now; the first reason holds."""
        self.move(0, reason)
        self._moves = False


class SilenceWatch:
    """Tell when a peer has fallen silent, and whether it is still there.

    A silence has rounds of `VANISHED_SECONDS` at most. Halfway through each the
    peer is pinged; one that gives no sign of life until its end has vanished. One
    that does may be silent for `idle_seconds`, or for ever where that is None.

    `heard` is set by whoever hears a message.

    Silence is counted in parts that were slept through, not by a clock: a process
    that was itself stopped for a while does not take it for its peers' silence,
    and reads what they sent before it judges them. So a silence is noticed up to
    a quarter of a round late.
    """

    def __init__(
        self,
        idle_seconds: float | None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        if idle_seconds is None:
            self._rounds, round_seconds = math.inf, VANISHED_SECONDS
        else:
            self._rounds = math.ceil(idle_seconds / VANISHED_SECONDS)
            round_seconds = idle_seconds / self._rounds
        self._part = round_seconds / _PARTS
        self._sleep = sleep
        self.heard = False
        self._deaf = False

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """Count no silence in here: it is us who do not read."""
        self._deaf = True
        try:
            yield
        finally:
            self._deaf = False

    async def judge(self, line: Line) -> EndReason:
        """Watch until the peer is silent for too long; tell whether it is idle or gone."""
        silent = 0
        while True:
            await self._sleep(self._part)
            silent = 0 if self.heard or self._deaf else silent + 1
            self.heard = False
            rounds, part = divmod(silent, _PARTS)
            if part == _PARTS // 2:
                line.ask()
            elif part == 0 and rounds > 0:
                if not line.answered:
                    return EndReason.VANISHED
                if rounds >= self._rounds:
                    return EndReason.IDLE
