"""One stream read in order: what is missing, and how it ends."""

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from app.consumer.items import RETENTION, UNREADABLE, End, Gap, Item, item_of
from app.consumer.kept import Kept
from app.consumer.reader import Reader
from app.consumer.sharing import StreamName
from app.events import AudioEntry, EndEntry, EndReason, Entry, GapEntry
from app.media import MediaFormat
from app.pubsub.base import audio_key, parse_entry

EXPIRED: Final = "expired"
REPLACED: Final = "replaced"
# A stream that is silent for so long is looked up: it may be gone.
LOOK_SECONDS: Final = 2.0
# The receipt is written a moment after the last entry.
RECEIPT_SECONDS: Final = 10.0
RECEIPT_LOOK_SECONDS: Final = 0.05
# After the end that another replica wrote, the holder is waited for so long; where it
# lives on later, the rest is given when it has ended the stream.
LOST_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class Source:
    """Where streams are read; the clocks give monotonic and Unix seconds."""

    reader: Reader
    kept: Kept
    lost_seconds: float = LOST_SECONDS
    clock: Callable[[], float] = time.monotonic
    wall_clock: Callable[[], float] = time.time


class Course:
    """Read a stream behind `position`, up to its end.

    `position` is the id of the last entry given. `end` is None until all is given.
    """

    def __init__(
        self, name: StreamName, position: str, published: MediaFormat, source: Source
    ) -> None:
        self.position = position
        self.end: End | None = None
        self._name = name
        self._published = published
        self._source = source
        self._key = audio_key(name.stream_sid)
        self._inbox = source.reader.follow(self._key, position)
        self._ms, self._number = _parts(position)
        self._waiting: deque[tuple[str, Mapping[str, bytes]]] = deque()
        # Of all that one read gave, only what comes first can follow on what was trimmed.
        self._may_be_trimmed = False
        # A reason to end unless more comes, and until when that is waited for.
        self._ending: str | None = None
        self._ends_at = 0.0
        self._looked_at = source.clock()

    def close(self) -> None:
        """Read no more."""
        self._source.reader.drop(self._inbox)

    async def skip_to_newest(self) -> None:
        """Go on with the newest entry: leave out all before it."""
        newest = await self._source.kept.last_entries(self._name.stream_sid)
        if len(newest) == 2 and _parts(newest[1]) > _parts(self.position):
            self.close()
            self._waiting.clear()
            self.position = newest[1]
            self._ms, self._number = _parts(self.position)
            self._inbox = self._source.reader.follow(self._key, self.position)

    async def next(self, seconds: float) -> Item | None:
        """Give what comes next; None when nothing comes in time, or the end is reached."""
        if not self._waiting:
            await self._take(seconds)
        while self._waiting and self.end is None:
            entry_id, fields = self._waiting[0]
            place = _parts(entry_id)
            entry = _read(place[1], fields)
            if place != (self._ms, self._number + 1):
                gap = await self._trimmed_before(place, entry)
                if gap is not None or self.end is not None:
                    return gap
            self._waiting.popleft()
            self.position = entry_id
            self._ms = place[0]
            if isinstance(entry, EndEntry):
                self._begin_to_end(entry.reason)
                continue
            self._number = place[1]
            self._may_be_trimmed = False
            self._ending = None
            if entry is None:
                return Gap(entry_id, None, 0, 1, 0, 0, UNREADABLE)
            return item_of(entry_id, entry, self._published)
        if self._ending is not None and self.end is None:
            await self._end_or_wait(self._ending)
        return None

    async def _take(self, seconds: float) -> None:
        """Wait for entries; look the stream up when it is silent."""
        wait = RECEIPT_LOOK_SECONDS if self._ending is not None else seconds
        taken = await self._inbox.take(wait)
        now = self._source.clock()
        if taken:
            self._waiting.extend(taken)
            self._may_be_trimmed = True
            self._looked_at = now
        elif self._ending is None and now - self._looked_at >= LOOK_SECONDS:
            self._looked_at = now
            await self._look()

    # ------------------------------------------------------------------ what is missing

    async def _trimmed_before(self, place: tuple[int, int], entry: Entry | None) -> Gap | None:
        """Give what retention has taken before the entry at this place, once."""
        # An end that another replica wrote has a number of its own.
        if isinstance(entry, EndEntry) and entry.reason == EndReason.LOST:
            return None
        if place[0] != self._ms and await self._is_replaced():
            return None
        missing = place[1] - self._number - 1
        if missing <= 0 or not self._may_be_trimmed:
            return None
        first = await self._source.kept.first_entry(self._name.stream_sid)
        self._may_be_trimmed = False
        if first is not None and _parts(first) < place:
            return None  # what is missing never stood there: a gap of the bridge says so
        self._ms, self._number = place[0], place[1] - 1
        ts = entry.ts if isinstance(entry, AudioEntry | GapEntry) else 0
        return Gap(self.position, None, ts, missing, 0, 0, RETENTION)

    async def _is_replaced(self) -> bool:
        """Tell whether the stream's id has started again; then this is the end."""
        record = await self._source.kept.record(self._name.stream_sid)
        if record is None or record.stream.started_at == self._name.started_at:
            return False
        self.end = End(self._ending or REPLACED)
        return True

    # ------------------------------------------------------------------ how it ends

    def _begin_to_end(self, reason: str) -> None:
        waits = self._source.lost_seconds if reason == EndReason.LOST else RECEIPT_SECONDS
        self._ending = reason
        self._ends_at = self._source.clock() + waits

    async def _end_or_wait(self, reason: str) -> None:
        """End when the receipt is there, or nothing more is to be waited for."""
        now = self._source.clock()
        is_late = now >= self._ends_at
        is_lost = reason == EndReason.LOST
        if is_lost and not is_late and now - self._looked_at < LOOK_SECONDS:
            return
        self._looked_at = now
        record = await self._source.kept.record(self._name.stream_sid)
        if record is None or record.stream.started_at != self._name.started_at:
            self.end = End(reason, provisional=is_lost)
            return
        receipt, at = record.receipt, record.ended_at
        provisional = receipt is not None and bool(receipt.get("provisional"))
        is_old = is_lost and at is not None and self._is_old(at)
        is_true = receipt is not None and not provisional
        if (is_true or is_late or is_old) and await self._is_at_the_last():
            said = receipt["end_reason"] if receipt is not None and is_true else reason
            self.end = End(str(said), at, receipt, provisional)

    def _is_old(self, at: int) -> bool:
        return self._source.wall_clock() - at / 1000 > self._source.lost_seconds

    async def _is_at_the_last(self) -> bool:
        newest = await self._source.kept.last_entries(self._name.stream_sid)
        return not newest or _parts(newest[0]) <= _parts(self.position)

    async def _look(self) -> None:
        """Find out why nothing comes: the stream is silent, or gone, or all of it was given."""
        record = await self._source.kept.record(self._name.stream_sid)
        if record is None:
            self.end = End(EXPIRED)
        elif record.stream.started_at != self._name.started_at:
            self.end = End(REPLACED)
        elif record.receipt is not None and await self._is_at_the_last():
            self._begin_to_end(str(record.receipt["end_reason"]))


def _parts(entry_id: str) -> tuple[int, int]:
    ms, _, number = entry_id.partition("-")
    return int(ms), int(number)


def _read(number: int, fields: Mapping[str, bytes]) -> Entry | None:
    """Read an entry; None where this version cannot."""
    try:
        return parse_entry(number, fields)
    except (KeyError, ValueError, AssertionError):
        return None
