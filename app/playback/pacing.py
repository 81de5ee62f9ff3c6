"""When each part of what is said into a call goes out. Sans-I/O: the clock is an argument.

A carrier plays what it is sent in real time. So it is known by the clock until when
it has something to play, and it is sent the next part a short lead before.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from app.media import Encoding
from app.playback.answers import Answer, Cleared, Milestone, Script
from app.playback.commands import Clear, Mark, Play, Reason, name_of
from app.playback.conversion import Conversion
from app.playback.outgoing import Action, Audio, Out, SetMark, Shape, Sums
from app.playback.room import Room

# What a carrier always has to play before it is sent the rest of something.
GUARD_SECONDS: Final = 0.06
# Three minutes: the longest single play (1 MiB of mu-law) has room.
MAX_QUEUED_SECONDS: Final = 180.0
MAX_QUEUED_BYTES: Final = 4 * 1024 * 1024
MAX_QUEUED_COMMANDS: Final = 5_000
# A carrier that has not echoed a mark so long after its time will not.
ECHO_SECONDS: Final = 5.0
# Converted at a time, at most: 20 ms of the source.
SLICES_A_SECOND: Final = 50
# What our marks are called at the carrier: each is told of one place, and only once.
MARK_PREFIX: Final = "bridge-"

INFINITE: Final = float("inf")
SILENCE: Final = {Encoding.PCM16: b"\x00", Encoding.MULAW: b"\xff"}


@dataclass(slots=True)
class _Piece:
    play: Play
    at: int = 0

    @property
    def is_over(self) -> bool:
        return self.at >= len(self.play.audio)


class Pacer:
    """What one call is to hear, in order, and what its worker is told of it.

    `put` and `clear` take commands; `take` gives what goes out now, and is to be asked
    again at `next_due`. Times are monotonic seconds.
    """

    def __init__(self, shape: Shape, lead_seconds: float, room: Room) -> None:
        self._shape = shape
        self._lead = lead_seconds
        self._room = room
        self._message_seconds = shape.format.duration_ms(shape.message_bytes) / 1000
        self._queue: deque[_Piece | Mark | Action] = deque()
        self._queued_bytes = 0
        self._conversion = Conversion(shape.format)
        self._script = Script()
        self._ready = bytearray()
        self._played_until = -INFINITE
        # When a piece that would follow the last one is late.
        self._more_until = -INFINITE
        # Marks that the carrier has, and has not echoed.
        self._outstanding: dict[str, Milestone] = {}
        self._marks_set = 0
        self.sums = Sums()

    # ------------------------------------------------------------------ commands

    def put(self, command: Play | Mark | Action, now: float) -> Reason | None:
        """Queue a command, or say why not."""
        if len(self._queue) >= MAX_QUEUED_COMMANDS:
            return Reason.QUEUE_FULL
        if isinstance(command, Play):
            return self._put_play(command, now)
        if isinstance(command, Mark):
            self.sums.marks += 1
        self._more_until = -INFINITE
        self._queue.append(command)
        return None

    def _put_play(self, play: Play, now: float) -> Reason | None:
        size = len(play.audio)
        converted = self._conversion.size_of(size, play.format)
        waiting_ms = self._shape.format.duration_ms(self.sums.waiting + converted)
        if waiting_ms > MAX_QUEUED_SECONDS * 1000 or self._queued_bytes + size > MAX_QUEUED_BYTES:
            return Reason.QUEUE_FULL
        if not self._room.take(size):
            return Reason.QUEUE_FULL
        self._more_until = -INFINITE
        if not (play.mark or play.is_named):
            # One who speaks in pieces has the next one ready when this one is over.
            piece = play.format.duration_ms(size) / 1000 + GUARD_SECONDS
            self._more_until = now + min(piece, max(self._lead, self._message_seconds))
        self._queued_bytes += size
        self.sums.plays += 1
        self.sums.queued += converted
        self._queue.append(_Piece(play))
        return None

    def clear(self, command: Clear, now: float) -> list[Answer]:
        """End all audio and marks before; the carrier is to be told to clear, too."""
        sums = self.sums
        at_carrier = round(max(self._played_until - now, 0.0) * self._bytes_per_second)
        at_carrier = min(at_carrier, sums.sent)
        dropped = sums.waiting
        self._skip_all()
        over = [*self._outstanding.values(), *self._script.ahead]
        answers = [
            answer for one in over for answer in one.told(self._sent - at_carrier, False, self._ms)
        ]
        sums.clears += 1
        sums.cleared += dropped
        sums.carrier_cleared += at_carrier
        self._forget()
        self._conversion.restart(self._sent)
        self._played_until = now
        plays = sum(one.plays.count for one in over if one.plays is not None)
        return [*answers, Cleared(command.id, plays, self._ms(dropped), self._ms(at_carrier))]

    def close(self) -> list[tuple[str, str]]:
        """Give up what waits; give the id and name of each command that was not answered."""
        self._skip_all()
        over = [*self._outstanding.values(), *self._script.ahead]
        unanswered = [command for one in over for command in one.commands()]
        unanswered += [(one.id, name_of(one)) for one in self._queue if isinstance(one, Action)]
        self._queue.clear()
        self._forget()
        self.sums.lost += self.sums.waiting
        return unanswered

    # -------------------------------------------------------------- what goes out

    def take(self, now: float) -> Iterator[Out]:
        """Give what goes out now, in order."""
        while True:
            self._fill()
            yield from self._set_marks(now)
            if self._audio_due() <= now:
                if len(self._ready) < self._shape.message_bytes:
                    self._end_run()
                if self._ready:
                    yield Audio(self._next_message(now))
            elif self._quiet_due() <= now:
                self._script.close(self._conversion.expected)
            elif self._action_due() <= now:
                action = self._queue.popleft()
                assert isinstance(action, Action)
                yield action
            else:
                break

    def next_due(self) -> float:
        """Tell when to ask again, if nothing else happens before; infinite: not at all."""
        echoes = [milestone.due for milestone in self._outstanding.values()]
        return min([self._audio_due(), self._quiet_due(), self._action_due(), *echoes])

    def echoed(self, name: str) -> list[Answer]:
        """Take the carrier's word that a mark of ours was reached."""
        milestone = self._outstanding.pop(name, None)
        if milestone is None:
            return []  # cleared, or given up
        return list(milestone.told(milestone.at, True, self._ms))

    def given_up(self, now: float) -> list[Answer]:
        """Tell of what the carrier should have echoed by now, and has not."""
        late = [name for name, one in self._outstanding.items() if one.due <= now]
        over = [self._outstanding.pop(name) for name in late]
        return [answer for one in over for answer in one.told(one.at, None, self._ms)]

    # --------------------------------------------------------------------- within

    @property
    def _sent(self) -> int:
        return self.sums.sent

    @property
    def _bytes_per_second(self) -> int:
        return self._shape.format.bytes_per_second

    def _ms(self, size: int) -> int:
        return round(self._shape.format.duration_ms(size))

    def _fill(self) -> None:
        """Convert until a message is whole, or nothing more is to come before an action."""
        while len(self._ready) < self._shape.message_bytes and self._queue:
            first = self._queue[0]
            if isinstance(first, Action):
                return
            if isinstance(first, Mark):
                self._script.add_mark(first, self._conversion.expected)
            else:
                play = first.play
                begin = self._conversion.expected
                part = play.format.bytes_per_second // SLICES_A_SECOND
                audio = play.audio[first.at : first.at + part]
                self._ready += self._conversion.feed(audio, play.format)
                first.at += len(audio)
                end = self._conversion.expected
                self._script.add_part(play, begin, end, is_last=first.is_over)
                if not first.is_over:
                    continue
                self._let_go(play)
            self._queue.popleft()

    def _skip_all(self) -> None:
        """Take all that waits for fed, but for actions, which stay."""
        actions: deque[_Piece | Mark | Action] = deque()
        end = self._conversion.expected
        for one in self._queue:
            if isinstance(one, Action):
                actions.append(one)
            elif isinstance(one, Mark):
                self._script.add_mark(one, end)
            else:
                begin, rest = end, len(one.play.audio) - one.at
                end += self._conversion.size_of(rest, one.play.format)
                self._script.add_part(one.play, begin, end, is_last=True)
                self._let_go(one.play)
        self._script.close(end)
        self._queue = actions

    def _let_go(self, play: Play) -> None:
        self._queued_bytes -= len(play.audio)
        self._room.give_back(len(play.audio))

    def _forget(self) -> None:
        self._outstanding.clear()
        self._script.ahead.clear()
        self._ready.clear()

    def _set_marks(self, now: float) -> Iterator[SetMark]:
        ahead = self._script.ahead
        while ahead and ahead[0].at <= self._sent:
            milestone = ahead.popleft()
            milestone.due = max(now, self._played_until) + ECHO_SECONDS
            self._marks_set += 1
            name = f"{MARK_PREFIX}{self._marks_set}"
            self._outstanding[name] = milestone
            yield SetMark(name)

    def _audio_due(self) -> float:
        """Tell when the next message goes out; infinite where there is none."""
        if len(self._ready) < self._shape.message_bytes:
            if not (self._ready or self._conversion.has_rest):
                return INFINITE
            if not self._queue:  # more may come, and join it
                return max(self._more_until, self._played_until - GUARD_SECONDS)
        # As far ahead as may be, but never so late that the carrier runs dry.
        ahead = max(self._lead - self._message_seconds, GUARD_SECONDS)
        return self._played_until - ahead

    def _quiet_due(self) -> float:
        """Tell when plays that nobody asked about are answered: all was heard, no more came."""
        if not self._script.has_open or self._audio_due() < INFINITE:
            return INFINITE
        return self._played_until if self._queue else max(self._more_until, self._played_until)

    def _action_due(self) -> float:
        """Tell when the first command that waits for all audio is due; infinite without one."""
        is_next = self._queue and isinstance(self._queue[0], Action)
        is_quiet = not (self._outstanding or self._script.has_open)
        if is_next and is_quiet and self._audio_due() == INFINITE:
            return self._played_until
        return INFINITE

    def _end_run(self) -> None:
        """Put out what a resampler holds."""
        self._ready += self._conversion.flush()
        self._script.pull_back(self._conversion.produced)
        if not self._queue:
            # To a sample: how much a resampler gives is not known before.
            self.sums.queued += len(self._ready) - self.sums.waiting

    def _next_message(self, now: float) -> bytes:
        payload = bytes(self._ready[: self._shape.message_bytes])
        del self._ready[: len(payload)]
        self.sums.sent += len(payload)
        if self._shape.fills_up:
            payload = payload.ljust(self._shape.message_bytes, SILENCE[self._shape.format.encoding])
        seconds = self._shape.format.duration_ms(len(payload)) / 1000
        self._played_until = max(now, self._played_until) + seconds
        return payload
