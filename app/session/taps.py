"""What live calls' peers send, for whoever records it at the wire.

Only a stream whose business allows it has a tap, and only while somebody records is the
tap on. What it takes waits here in memory of its own and is put into the store by one
task, secrets hidden; no call waits for that, and what finds no room is left out. A
message has a number all the same, so that a recorder sees what it lacks.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from app.errors import StoreUnavailable
from app.metrics import Metrics
from app.store.captures import Asked, Batch, Captured, Captures, Message, Opening
from app.wire.masking import masked_message

log = logging.getLogger(__name__)

PUT_SECONDS: Final = 0.1
LOOK_SECONDS: Final = 0.5
RETRY_SECONDS: Final = 1.0
# A stream without a message says so, or it would be taken for one whose holder died.
SIGN_OF_LIFE_SECONDS: Final = 20.0
# A new stream's messages wait for so long to hear whether they are asked for.
UNDECIDED_SECONDS: Final = 5.0
# So often the end of a stream is tried to be told while the store is away.
MAX_FAILURES: Final = 10
# About a minute of a call that is recorded while the store is away, and all such calls'.
MAX_TAP_BYTES: Final = 2**21
MAX_WAITING_BYTES: Final = 2**23
# Messages of one batch are hidden, packed and written in less than a millisecond.
BATCH_BYTES: Final = 32 * 1024
# What comes before a stream is admitted, for one that is then recorded.
MAX_EARLY_BYTES: Final = 256 * 1024
# Of the URL's query, what the log shows too: any other may be a secret.
_SHOWN_QUERY: Final = ("businessId", "plan", "callSid", "sample-rate", "sample_rate")

# A message, when it came by a monotonic clock, and whether it opens the stream.
Heard = tuple[str | bytes, float, bool]


@dataclass(frozen=True, slots=True)
class Tapped:
    """Whose messages a tap takes, and the query of the URL by which they come."""

    stream_sid: str
    call_sid: str
    business_id: str
    carrier: str
    query: Mapping[str, str]
    started_at: int


class Beginning:
    """What a peer sent before its stream was admitted, within bounds."""

    __slots__ = ("_bytes", "left_out", "messages")

    def __init__(self) -> None:
        self.messages: list[Heard] = []
        self.left_out = 0
        self._bytes = 0

    def note(self, message: str | bytes, at: float, *, opens: bool) -> None:
        """Note a message while there is room; `opens`: it belongs to the stream's opening."""
        self._bytes += len(message)
        if self._bytes <= MAX_EARLY_BYTES:
            self.messages.append((message, at, opens))
        else:
            self.left_out += 1

    def clear(self) -> None:
        """Forget it all."""
        self.messages, self._bytes = [], 0


class Tap:
    """Take one stream's messages while it is `on`; `began` is when the first one came."""

    def __init__(self, tapped: Tapped, budget: "Budget", beginning: Beginning) -> None:
        self.tapped = tapped
        self.began = beginning.messages[0][1] if beginning.messages else 0.0
        self.opening = [heard for heard in beginning.messages if heard[2]]
        self.on = True
        self.ended = False
        self.waiting: deque[tuple[int, str | bytes, float]] = deque()
        self._budget = budget
        self._bytes = 0
        self._next = 0
        for message, at, _ in beginning.messages:
            self.take(message, at)
        self._next += beginning.left_out

    def take(self, message: str | bytes, at: float) -> None:
        """Take a message that came at `at`; no effect while it is off."""
        if not self.on:
            return
        number = self._next
        self._next += 1
        if self._bytes + len(message) <= MAX_TAP_BYTES and self._budget.take(len(message)):
            self._bytes += len(message)
            self.waiting.append((number, message, at))

    def miss(self) -> None:
        """Count a message that cannot be shown: not UTF-8, or too big."""
        if self.on:
            self._next += 1

    def close(self) -> None:
        """Say that no more will come."""
        self.ended = True

    @property
    def number(self) -> int:
        """Give the number of the message that comes next."""
        return self._next

    def turn(self, on: bool) -> None:
        """Take messages from now on, or no more; those that wait are forgotten."""
        while self.pop() is not None:
            pass
        self.on, self._next = on, 0

    def pop(self) -> tuple[int, str | bytes, float] | None:
        """Give the message that has waited longest, and free its room."""
        if not self.waiting:
            return None
        found = self.waiting.popleft()
        self._bytes -= len(found[1])
        self._budget.give_back(len(found[1]))
        return found


class Budget:
    """Bound what waits in all taps of a process, in bytes."""

    def __init__(self, most: int) -> None:
        self._left = most

    def take(self, size: int) -> bool:
        """Take so many bytes; False where there are not so many."""
        if size > self._left:
            return False
        self._left -= size
        return True

    def give_back(self, size: int) -> None:
        """Give bytes back."""
        self._left += size


class _Putting:
    """How far one tap's messages have come: asked for or not, and what is there."""

    def __init__(self, tap: Tap, now: float, began_at: int) -> None:
        self.tap = tap
        self.began_at = began_at
        self.undecided_until: float | None = now + UNDECIDED_SECONDS
        self.from_first = True
        self.begun = False
        self.last_put = now
        self.failures = 0


class Taps:
    """Hold the taps of a process's streams, and put what they take into the store.

    `clock` gives monotonic seconds, the one that stamps messages. `mask_phone` is what a
    number is passed through.
    """

    def __init__(
        self,
        captures: Captures,
        metrics: Metrics,
        *,
        clock: Callable[[], float],
        mask_phone: Callable[[str], str],
    ) -> None:
        self._captures = captures
        self._counted = metrics.captured
        self._errors = metrics.store_errors
        self._clock = clock
        self._mask_phone = mask_phone
        self._budget = Budget(MAX_WAITING_BYTES)
        self._puttings: list[_Putting] = []
        self._asked: list[Asked] = []
        self._looked = float("-inf")
        self._stirred = asyncio.Event()

    def open(self, tapped: Tapped, beginning: Beginning, began_at: int) -> Tap:
        """Open a tap of a stream that was admitted; `began_at` is when it began, Unix ms.

        It is on until it is known that nobody records, so that a call's first messages
        are not lost to those who do.
        """
        tap = Tap(tapped, self._budget, beginning)
        self._puttings.append(_Putting(tap, self._clock(), began_at))
        self._stirred.set()
        return tap

    async def run(self) -> None:
        """Look what is asked for, and put it there, until cancelled."""
        while True:
            if not self._puttings:
                self._stirred.clear()
                await self._stirred.wait()
            try:
                await self._look()
                for putting in list(self._puttings):
                    await self._put(putting)
            except StoreUnavailable:
                self._errors.inc()
                self._give_up()
                await asyncio.sleep(RETRY_SECONDS)
            self._puttings = [one for one in self._puttings if not self._is_done(one)]
            await asyncio.sleep(PUT_SECONDS)

    async def _look(self) -> None:
        now = self._clock()
        is_new = any(one.undecided_until is not None for one in self._puttings)
        if not is_new and now - self._looked < LOOK_SECONDS:
            return
        self._asked = list(await self._captures.asked())
        self._looked = now
        for one in self._puttings:
            tapped = one.tap.tapped
            wanted = any(x.takes(tapped.business_id, tapped.call_sid) for x in self._asked)
            was_undecided, one.undecided_until = one.undecided_until is not None, None
            if wanted and not one.tap.on and not one.tap.ended:
                one.tap.turn(on=True)
                one.from_first = one.begun = False
            elif not wanted and one.tap.on:
                one.tap.turn(on=False)
                one.begun = False
                if not was_undecided:
                    log.info("[capture] Stream %s is recorded no more", tapped.stream_sid)

    def _give_up(self) -> None:
        """Forget, while the store is away, what is new or over, so that neither piles up."""
        now = self._clock()
        for one in self._puttings:
            one.failures += one.tap.ended
            if one.undecided_until is not None and one.undecided_until < now:
                one.undecided_until = None
                one.tap.turn(on=False)
            elif one.failures > MAX_FAILURES:
                one.tap.turn(on=False)

    def _is_done(self, putting: _Putting) -> bool:
        tap = putting.tap
        return tap.ended and not tap.on

    async def _put(self, putting: _Putting) -> None:
        """Put there what waits of one tap, batch by batch."""
        tap = putting.tap
        if not tap.on or putting.undecided_until is not None:
            return
        if not putting.begun:
            if not await self._captures.begin(self._opening(putting)):
                log.error("[capture] Stream %s has messages of others", tap.tapped.stream_sid)
                tap.turn(on=False)
                return
            putting.begun = True
            log.info("[capture] Stream %s is recorded", tap.tapped.stream_sid)
        for batch in self._batches(putting):
            await self._put_batch(putting, batch)
            if batch.ended:
                tap.turn(on=False)
                return

    async def _put_batch(self, putting: _Putting, batch: Batch) -> None:
        putting.last_put = self._clock()
        tapped = putting.tap.tapped
        captured = Captured(tapped.stream_sid, tapped.business_id)
        try:
            is_there = await self._captures.put(captured, batch)
        except StoreUnavailable:
            self._counted.labels("left_out").inc(len(batch.messages))
            raise
        if not is_there:
            putting.begun = putting.from_first = False  # it was erased, or Redis began anew
        self._counted.labels("put" if is_there else "left_out").inc(len(batch.messages))

    def _batches(self, putting: _Putting) -> Iterator[Batch]:
        """Give what waits, in batches; at the end of a stream, one that says so."""
        tap = putting.tap
        messages: list[Message] = []
        size = first = 0
        has_ended = tap.ended
        while (found := tap.pop()) is not None:
            number, message, at = found
            if messages and (number != first + len(messages) or size >= BATCH_BYTES):
                yield Batch(first, messages)
                messages, size = [], 0
            if not messages:
                first = number
            messages.append(self._shown(message, at, tap.began))
            size += len(message)
        is_due = self._clock() - putting.last_put >= SIGN_OF_LIFE_SECONDS
        if messages or has_ended or is_due:
            if messages and first + len(messages) != tap.number:
                yield Batch(first, messages)
                messages = []
            yield Batch(first if messages else tap.number, messages, has_ended)

    def _shown(self, message: str | bytes, at: float, began: float) -> Message:
        at_ms = max(0, round((at - began) * 1000))
        if isinstance(message, bytes):
            return Message(at_ms, message)
        return Message(at_ms, masked_message(message, self._mask_phone))

    def _opening(self, putting: _Putting) -> Opening:
        tap, tapped = putting.tap, putting.tap.tapped
        return Opening(
            tapped.stream_sid,
            tapped.call_sid,
            tapped.business_id,
            tapped.carrier,
            {name: tapped.query[name] for name in _SHOWN_QUERY if name in tapped.query},
            tapped.started_at,
            putting.began_at,
            [self._shown(message, at, tap.began) for message, at, _ in tap.opening],
            putting.from_first,
        )
