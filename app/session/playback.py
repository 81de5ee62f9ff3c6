"""What a worker says into one live stream: commands in, messages to the carrier out."""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, Protocol

from app import twiml
from app.budget import Allowance, Budget
from app.businesses.destinations import DialRules, problem_of_number
from app.businesses.twiml_destinations import problem_of_twiml
from app.errors import BridgeError, StoreUnavailable
from app.events import EndReason, PlaybackReceipt
from app.metrics import Metrics
from app.playback.answers import Answer, event_of
from app.playback.commands import (
    Clear,
    Command,
    Dtmf,
    HangUp,
    Mark,
    Play,
    Reason,
    Refused,
    Transfer,
    Value,
    name_of,
    parse_command,
)
from app.playback.outgoing import Audio, SetMark, Shape
from app.playback.pacing import MARK_PREFIX, Pacer
from app.playback.room import Room
from app.session.herald import Herald
from app.session.reception import Admitted
from app.session.way_back import WayBack
from app.twilio_api import Outcome
from app.wire.back import TWILIO, ReturnPath

log = logging.getLogger(__name__)

# Commands that are answered one by one. A worker that speaks in pieces has one answer
# for all of them, so that its events crowd out nobody's.
ANSWERED: Final = Allowance(500, 50)
TOLD_EVERY_SECONDS: Final = 1.0
# Unanswered commands that are told of at a stream's end.
MAX_UNANSWERED: Final = 500
# How long a call's end may take at its carrier before its socket is closed all the same.
HANG_UP_SECONDS: Final = 2.0
# uvloop's timers count whole milliseconds, and a shorter wait would be none.
SHORTEST_WAIT: Final = 0.001

_REASONS: Final[Mapping[Outcome, Reason]] = {
    Outcome.NO_CREDENTIALS: Reason.NO_CREDENTIALS,
    Outcome.UNAUTHORIZED: Reason.CARRIER_REFUSED,
    Outcome.REFUSED: Reason.CARRIER_REFUSED,
    Outcome.GONE: Reason.CARRIER_REFUSED,
    Outcome.UNREACHABLE: Reason.CARRIER_UNREACHABLE,
}


class Sender(Protocol):
    """Send one text message; waits while the peer does not read."""

    async def send(self, text: str) -> None:
        """Send it."""


class Playback:
    """One stream's commands: refused, or queued, paced, sent and answered.

    `take` is called for each entry of `control:{STREAM}`, and `run` sends to the socket.
    `end` ends the stream. `clock` gives monotonic seconds. `current_rules` reads where the
    call may be transferred to, when it is; both they and those of its admission must allow it.
    """

    def __init__(
        self,
        admitted: Admitted,
        way: WayBack,
        herald: Herald,
        metrics: Metrics,
        room: Room,
        *,
        lead_seconds: float,
        clock: Callable[[], float],
        end: Callable[[EndReason], None],
        current_rules: Callable[[Admitted], Awaitable[DialRules]],
    ) -> None:
        self._admitted = admitted
        self._current_rules = current_rules
        self._way = way
        self._herald = herald
        self._metrics = metrics
        self._clock = clock
        self._end = end
        self._pacer: Pacer | None = None
        if way.path is not None:
            path = way.path
            shape = Shape(path.format, path.message_bytes, path.fills_up)
            self._pacer = Pacer(shape, lead_seconds, room)
            self._bytes_per_second = path.format.bytes_per_second
        self._budget = Budget(ANSWERED, clock)
        self._told_too_many = -math.inf
        self._some = asyncio.Event()
        self._must_clear = False
        self._was_commanded = False
        self._refused = 0
        self.is_closed = False
        self._leaving: EndReason | None = None

    @property
    def is_possible(self) -> bool:
        """Tell whether the stream may be spoken into."""
        return self._pacer is not None

    # ------------------------------------------------------------------- commands

    def take(self, entry_id: str, fields: Mapping[str, Value]) -> None:
        """Take a command as it was written."""
        self._was_commanded = True
        command = parse_command(entry_id, fields)
        if not (isinstance(command, Play) and not (command.is_named or command.mark)):
            if not self._budget.spend():
                self._refuse_too_many(command)
                return
        refused = self._refusal(command) or self._queue(command)
        if refused is not None:
            self._refuse(refused)

    def _refusal(self, command: Command | Refused) -> Refused | None:
        """Say why a command cannot be done at all; the plan's word comes first."""
        name = command.command if isinstance(command, Refused) else name_of(command)
        reason: Reason | None = None
        if self.is_closed:
            reason = Reason.STREAM_ENDED
        elif self._way.refusal is not None or self._pacer is None:
            reason = self._way.refusal or Reason.NOT_SUPPORTED
        elif isinstance(command, Refused):
            return command
        elif isinstance(command, Dtmf) or (
            isinstance(command, Transfer) and self._admitted.call.carrier != TWILIO
        ):
            reason = Reason.NOT_SUPPORTED
        elif isinstance(command, Transfer) and self._way.calls is None:
            reason = Reason.NO_CREDENTIALS
        elif isinstance(command, Transfer):
            return _refused_destination(command, self._admitted.dial_rules)
        return Refused(command.id, name, reason) if reason else None

    def _queue(self, command: Command | Refused) -> Refused | None:
        assert self._pacer is not None
        match command:
            case Clear():
                answers = self._pacer.clear(command, self._clock())
                self._must_clear = True
                self._metrics.commands.labels("clear", "done").inc()
                self._tell_all(answers)
            case Play() | Mark() | HangUp() | Transfer():
                reason = self._pacer.put(command, self._clock())
                if reason is not None:
                    return Refused(command.id, name_of(command), reason)
                self._metrics.commands.labels(name_of(command), "taken").inc()
        self._some.set()
        return None

    def echoed(self, name: str) -> bool:
        """Take a mark that the carrier says was reached; tell whether it is one of ours."""
        if not name.startswith(MARK_PREFIX):
            return False
        if self._pacer is not None:
            self._tell_all(self._pacer.echoed(name))
            self._some.set()  # it may be what a hang-up waits for
        return True

    # -------------------------------------------------------------------- sending

    async def run(self, socket: Sender) -> None:
        """Send what is due to the socket, until cancelled."""
        pacer, path = self._pacer, self._way.path
        if pacer is None or path is None:
            return
        while True:
            now = self._clock()
            self._tell_all(pacer.given_up(now))
            await self._send(socket, path)
            for out in pacer.take(now):
                match out:
                    case Audio():
                        await self._send(socket, path, path.media(out.payload))
                    case SetMark():
                        await self._send(socket, path, path.mark(out.name))
                    case HangUp():
                        await self._hang_up()
                    case Transfer():
                        await self._transfer(out)
            await self._wait(pacer.next_due() - self._clock())

    async def _send(self, socket: Sender, path: ReturnPath, text: str = "") -> None:
        """Send a message, after the `clear` that must come before it."""
        if self._must_clear:
            self._must_clear = False
            await socket.send(path.clear())
        if text:
            await socket.send(text)

    async def _wait(self, seconds: float) -> None:
        if seconds < math.inf:
            loop = asyncio.get_running_loop()
            timer = loop.call_later(max(seconds, SHORTEST_WAIT), self._some.set)
            try:
                await self._some.wait()
            finally:
                timer.cancel()
        else:
            await self._some.wait()
        self._some.clear()

    async def _hang_up(self) -> None:
        """End the call at its carrier, so that its TwiML says nothing more; then the stream."""
        self._leaving = EndReason.HANGUP
        calls = self._way.calls
        asked = calls.hang_up(self._admitted, EndReason.HANGUP) if calls else None
        if asked is not None:
            await asyncio.wait([asked], timeout=HANG_UP_SECONDS)
        self._end(EndReason.HANGUP)

    async def _transfer(self, command: Transfer) -> None:
        assert self._way.calls is not None
        if (refused := await self._refused_now(command)) is not None:
            self._refuse(refused)
            return
        document = command.twiml or twiml.dial_only(command.to)
        self._leaving = EndReason.TRANSFER
        outcome = await self._way.calls.transfer(self._admitted, document)
        if outcome is Outcome.DONE:
            self._end(EndReason.TRANSFER)
            return
        self._leaving = None
        self._refuse(Refused(command.id, "transfer", _REASONS[outcome]))

    async def _refused_now(self, command: Transfer) -> Refused | None:
        """Check a transfer against what is configured at the moment of dialling."""
        try:
            rules = await self._current_rules(self._admitted)
        except StoreUnavailable:
            return None  # it was checked against the rules of the call's admission
        except BridgeError:
            return Refused(command.id, "transfer", Reason.DESTINATION_NOT_ALLOWED)
        return _refused_destination(command, rules)

    # ------------------------------------------------------------------- the end

    def reason_of(self, reason: EndReason) -> EndReason:
        """Say why the stream ended: the carrier may be first to say so, when we asked it to."""
        is_carriers = reason in (EndReason.STOP, EndReason.CLOSED)
        return self._leaving if self._leaving is not None and is_carriers else reason

    def close(self) -> PlaybackReceipt | None:
        """Answer what was not done, and draw up the receipt; None where nothing was asked."""
        self.is_closed = True
        if not self._was_commanded:
            return None
        unanswered = self._pacer.close() if self._pacer is not None else []
        for command_id, name in unanswered[:MAX_UNANSWERED]:
            self._refuse(Refused(command_id, name, Reason.STREAM_ENDED))
        receipt = self._receipt()
        seconds = self._metrics.playback_seconds
        for fate in ("queued", "sent", "cleared", "lost"):
            seconds.labels(fate).inc(getattr(receipt, f"{fate}_ms") / 1000)
        return receipt

    def _receipt(self) -> PlaybackReceipt:
        if self._pacer is None:
            return PlaybackReceipt(0, 0, 0, self._refused, 0, 0, 0, 0, 0)
        sums = self._pacer.sums
        sizes = (sums.sent, sums.cleared, sums.lost, sums.carrier_cleared)
        sent, cleared, lost, at_carrier = (
            round(size * 1000 / self._bytes_per_second) for size in sizes
        )
        return PlaybackReceipt(
            plays=sums.plays,
            marks=sums.marks,
            clears=sums.clears,
            refused=self._refused,
            queued_ms=sent + cleared + lost,
            sent_ms=sent,
            cleared_ms=cleared,
            lost_ms=lost,
            carrier_cleared_ms=at_carrier,
        )

    # -------------------------------------------------------------------- telling

    def _refuse_too_many(self, command: Command | Refused) -> None:
        name = command.command if isinstance(command, Refused) else name_of(command)
        if self._clock() - self._told_too_many >= TOLD_EVERY_SECONDS:
            self._told_too_many = self._clock()
            self._refuse(Refused(command.id, name, Reason.TOO_MANY))
        else:
            self._refused += 1
            self._metrics.commands.labels(name or "unknown", Reason.TOO_MANY).inc()

    def _refuse(self, refused: Refused) -> None:
        self._refused += 1
        if refused.reason is Reason.DESTINATION_NOT_ALLOWED:
            call = self._admitted.call
            log.warning(
                "[WebSocket] ⚠️ Transfer of call %s of %s refused: its plan does not allow where",
                *(call.call_sid, call.business_id),
            )
        self._metrics.commands.labels(refused.command or "unknown", refused.reason).inc()
        data = {"id": refused.id, "command": refused.command, "reason": refused.reason.value}
        if refused.detail:
            data["detail"] = refused.detail
        self._herald.tell("stream.error", self._admitted.call, data)

    def _tell_all(self, answers: list[Answer]) -> None:
        for answer in answers:
            name, data = event_of(answer)
            self._herald.tell(name, self._admitted.call, data)


def _refused_destination(command: Transfer, rules: DialRules) -> Refused | None:
    """Return the refusal of a transfer to where the rules do not allow."""
    if command.to:
        problem = problem_of_number(command.to, rules)
        problem = problem and f"to {problem}"
    else:
        problem = problem_of_twiml(command.twiml, rules)
    if not problem:
        return None
    return Refused(command.id, "transfer", Reason.DESTINATION_NOT_ALLOWED, problem)
