"""One simulated call, from its ring to its end, and what came of it."""

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import (
    ConnectionClosed,
    InvalidHandshake,
    InvalidStatus,
    InvalidURI,
)

from app.errors import CallRefused
from app.tools.caller import Call
from app.tools.service import said_in
from app.tools.simulate.asked import Caller
from app.tools.simulate.lines import Line, Place
from app.tools.simulate.playing import Playing
from app.tools.simulate.script import Cue, Kind, performed

CONNECT_SECONDS: Final = 10.0
# How long a service may take to close a stream that has said `stop`.
ANSWER_SECONDS: Final = 15.0
# A peer that reads nothing any more is given up so long after the call's end.
STUCK_SECONDS: Final = 60.0
# In good order, or without a code (RFC 6455, 7.4.1).
_GOOD_CODES: Final = (1000, 1001, 1005)


class Outcome(StrEnum):
    """What came of a call. `CUT`: we cut it, as we should."""

    HEARD = "heard"
    CUT = "cut"
    ENDED = "ended"
    REFUSED = "refused"
    UNREACHED = "unreached"


@dataclass(slots=True)
class Placed:
    """A call that was placed: what came of it, and why where it was not heard.

    `sent` counts frames, `late` is the most (seconds) that one went after its time.
    `is_one_way` tells that its stream is, `end_was_told` is None where nobody was to
    be told.
    """

    caller: Caller
    call: Call
    outcome: Outcome = Outcome.UNREACHED
    why: str = ""
    sent: int = 0
    late: float = 0.0
    is_one_way: bool = False
    end_was_told: bool | None = None

    @property
    def has_streamed(self) -> bool:
        """Tell whether its socket was opened."""
        return self.outcome in (Outcome.HEARD, Outcome.CUT, Outcome.ENDED)

    @property
    def is_as_it_should(self) -> bool:
        """Tell whether it went as such a caller's call goes; whatever a bad one's did."""
        if self.caller.fault is not None:
            return True
        return self.outcome is (Outcome.HEARD if self.caller.cut_at is None else Outcome.CUT)


async def place(
    line: Line, placed: Placed, jitter: float, on_change: Callable[[int], None]
) -> None:
    """Place a call, and note what came of it; `on_change` hears of it live (1) and over (-1)."""
    try:
        where = await line.ring(placed.call)
    except CallRefused as error:
        placed.outcome, placed.why = Outcome.REFUSED, str(error)
        return
    except (httpx.HTTPError, httpx.InvalidURL, OSError, UnicodeError) as error:
        placed.why = str(error) or type(error).__name__
        return
    placed.is_one_way = not where.target.is_two_way
    began = asyncio.get_running_loop().time()
    try:
        await _stream(line, where, placed, jitter, on_change)
    except InvalidStatus as refused:
        answer = refused.response
        placed.outcome = Outcome.REFUSED
        placed.why = f"the handshake was answered {answer.status_code}{said_in(answer.body)}"
    except (InvalidHandshake, InvalidURI, OSError, UnicodeError) as error:
        placed.why = f"no WebSocket: {error or type(error).__name__}"
    finally:
        seconds = asyncio.get_running_loop().time() - began
        placed.end_was_told = await line.hang_up(placed.call, seconds)


async def _stream(
    line: Line, where: Place, placed: Placed, jitter: float, on_change: Callable[[int], None]
) -> None:
    caller = placed.caller
    playing = Playing(where.form, asyncio.get_running_loop().time)
    script = line.script(placed.call, where, caller, playing.reached)
    cues = performed(script, caller, jitter)
    async with connect(
        where.url,
        additional_headers=where.headers,
        compression=None,
        open_timeout=CONNECT_SECONDS,
        close_timeout=1.0,
        ping_interval=None,
    ) as socket:
        on_change(1)
        hearing = asyncio.create_task(_hear(socket, playing))
        speaking = asyncio.create_task(_speak(socket, cues, placed))
        longest = caller.seconds + jitter + STUCK_SECONDS
        try:
            await asyncio.wait(
                (hearing, speaking), timeout=longest, return_when=asyncio.FIRST_COMPLETED
            )
            has_spoken = speaking.done() and speaking.exception() is None
            if has_spoken and caller.cut_at is not None:
                socket.transport.abort()
                placed.outcome = Outcome.CUT
                return
            if has_spoken:
                await asyncio.wait((hearing,), timeout=ANSWER_SECONDS)
            _note_end(socket, placed, has_spoken=has_spoken)
        finally:
            for task in (hearing, speaking):
                task.cancel()
            await asyncio.gather(hearing, speaking, return_exceptions=True)
            on_change(-1)


async def _hear(socket: ClientConnection, playing: Playing) -> None:
    """Take whatever comes, to the connection's end."""
    with suppress(ConnectionClosed):
        async for message in socket:
            playing.take(message)


async def _speak(socket: ClientConnection, cues: Iterable[Cue], placed: Placed) -> None:
    """Send each message when it is due."""
    clock = asyncio.get_running_loop().time
    began = clock()
    for cue in cues:
        ahead = began + cue.at - clock()
        if ahead > 0:
            await asyncio.sleep(ahead)
        await socket.send(cue.message)
        placed.sent += cue.kind is Kind.FRAME
        placed.late = max(placed.late, clock() - began - cue.at)


def _note_end(socket: ClientConnection, placed: Placed, *, has_spoken: bool) -> None:
    code, reason = socket.close_code, socket.close_reason
    if has_spoken and (code is None or code in _GOOD_CODES):
        placed.outcome = Outcome.HEARD
        return
    placed.outcome = Outcome.ENDED
    if code is None:
        placed.why = "nothing was read any more"
    else:
        placed.why = reason or f"the connection was closed with {code}"
