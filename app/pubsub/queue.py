"""One stream's entries on their way to the broker: bounded, ordered, counted."""

import asyncio
from collections import Counter, deque
from collections.abc import Callable

import msgspec

from app.events import AudioEntry, EndEntry, Entry, GapEntry
from app.media import Track
from app.pubsub.base import Append

OVERFLOW = "overflow"


class ByteBudget:
    """Count the audio that waits in the whole process, against one limit."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0

    @property
    def spent(self) -> bool:
        """Tell whether the limit is reached."""
        return self.used >= self.limit


class StreamQueue:
    """Hold one stream's entries until the broker has them.

    Entries are numbered when they are queued, so that writing one again cannot
    write it twice. When the queue or the process's budget is full, the oldest
    audio goes, and a `gap` entry stands in its place. What is in flight stays
    until it is settled.

    `published`, `dropped` (reason → carrier frames) and `max_lag` (seconds)
    are what a receipt needs; `confirmed` is the last entry that the broker has.
    `on_published` is told of audio that the broker has confirmed; it must not
    raise. `is_full` tells that the next frame may push an older one out. `refusal` is why
    the broker did not let the stream be written, once it has; what is put then is dropped
    under that reason, and `on_refused` is told it.
    """

    __slots__ = (
        "_audio_waiting",
        "_budget",
        "_bytes",
        "_flushed",
        "_id_ms",
        "_in_flight",
        "_is_given_up",
        "_max_bytes",
        "_max_waiting",
        "_number",
        "_on_dirty",
        "_retained_entries",
        "_room",
        "_shift",
        "_waiting",
        "confirmed",
        "dropped",
        "is_full",
        "max_lag",
        "on_published",
        "on_refused",
        "opened",
        "published",
        "refusal",
        "scheduled",
        "stream",
    )

    def __init__(
        self,
        stream: str,
        start_ms: int,
        *,
        max_bytes: int,
        max_waiting: int,
        retained_entries: int,
        budget: ByteBudget,
        on_dirty: Callable[["StreamQueue"], None],
    ) -> None:
        self.stream = stream
        self.published = 0
        self.dropped: Counter[str] = Counter()
        self.max_lag = 0.0
        self.on_published: Callable[[AudioEntry], None] | None = None
        self.confirmed: Append | None = None
        self.on_refused: Callable[[str], None] | None = None
        self.refusal = ""
        self.opened = False
        self.scheduled = False
        self._id_ms = start_ms
        self._shift = 0
        self._max_bytes = max_bytes
        self._max_waiting = max_waiting
        self._retained_entries = retained_entries
        self._budget = budget
        self._on_dirty = on_dirty
        self._number = 0
        self._waiting: deque[Entry] = deque()
        self._in_flight: deque[Entry] = deque()
        self._bytes = 0
        self._audio_waiting = 0
        self.is_full = False
        self._room = asyncio.Event()
        self._flushed: asyncio.Event | None = None
        self._is_given_up = False

    # ------------------------------------------------------- the session's side

    def put_audio(
        self, seq: int, ts: int, track: Track, audio: bytes, frames: int, received_at: float
    ) -> None:
        """Queue audio; when there is no room, drop the oldest instead of waiting."""
        size = len(audio)
        self._bytes += size
        self._budget.used += size
        self._audio_waiting += 1
        self._number += 1
        self._waiting.append(AudioEntry(self._number, seq, ts, track, audio, frames, received_at))
        if not self.scheduled:
            self._on_dirty(self)
        if (
            self._bytes >= self._max_bytes
            or self._audio_waiting >= self._max_waiting
            or self._budget.used >= self._budget.limit
        ):
            self._make_room()

    def put_gap(
        self, track: Track | None, frames: int, first_seq: int, last_seq: int, ts: int, reason: str
    ) -> None:
        """Queue a note of audio that is missing at this place."""
        self._number += 1
        self._put(GapEntry(self._number, track, frames, first_seq, last_seq, ts, reason))

    def put_end(self, reason: str) -> None:
        """Queue the stream's last entry."""
        self._number += 1
        self._put(EndEntry(self._number, reason))

    def lag(self, now: float) -> float:
        """Give for how many seconds the oldest audio has waited; 0 when the broker has all."""
        for entries in (self._in_flight, self._waiting):
            for entry in entries:
                if isinstance(entry, AudioEntry):
                    return max(0.0, now - entry.received_at)
        return 0.0

    def drop_waiting(self, reason: str) -> None:
        """Give up all audio that the broker has not confirmed; for a last resort.

        What is in flight counts as dropped too: nobody knows what became of it.
        """
        while self._audio_waiting:
            self._drop_oldest(reason)
        for entry in self._in_flight:
            if isinstance(entry, AudioEntry):
                self.dropped[reason] += entry.frames
                self._release(entry)
        self._in_flight.clear()
        self._look_for_room()
        # The gaps may never be written: who waits for them would wait as long.
        self._is_given_up = True
        if self._flushed is not None:
            self._flushed.set()

    def refuse(self, reason: str) -> None:
        """Drop all audio that waits and all that still comes: its id is another stream's."""
        self.refusal = reason
        self.opened = False
        # The next frame finds no room, so that frames of other streams need no test for this.
        self._max_bytes = self._max_waiting = 0
        self.drop_waiting(reason)
        self._drop_refused()
        if self.on_refused is not None:
            self.on_refused(reason)

    def _drop_refused(self) -> None:
        while self._audio_waiting:
            self._drop_oldest(self.refusal)
        self._waiting.clear()
        self.is_full = False
        self._room.set()

    async def wait_for_room(self) -> None:
        """Wait until the queue is not full: for peers that can be slowed."""
        while self.is_full:
            self._room.clear()
            await self._room.wait()

    async def wait_until_flushed(self) -> None:
        """Wait until the broker has every entry, or is given up; for one who puts no more."""
        if self._is_given_up:
            return
        if self._flushed is None or self._flushed.is_set():
            self._flushed = asyncio.Event()
        self._look_whether_flushed()
        await self._flushed.wait()

    # -------------------------------------------------------- the writer's side

    def begin(self) -> None:
        """Let it be written from now on: its stream is open."""
        self.opened = True
        if self._waiting:
            self._on_dirty(self)

    @property
    def has_waiting(self) -> bool:
        """Tell whether there is something to take."""
        return bool(self._waiting)

    def take(self, limit: int) -> list[Append]:
        """Take up to `limit` entries in order; they are in flight until settled."""
        waiting = self._waiting
        stream, id_ms, kept = self.stream, self._id_ms, self._retained_entries
        taken: list[Append] = []
        while waiting and len(taken) < limit:
            entry = waiting.popleft()
            if type(entry) is AudioEntry:
                self._audio_waiting -= 1
            self._in_flight.append(entry)
            taken.append(Append(stream, id_ms, entry.n + self._shift, entry, kept))
        return taken

    def settle(self, append: Append, now: float, *, failed: str = "") -> None:
        """Note the oldest entry in flight as written, or as failed for good.

        `now` is on the clock that stamped `received_at`.
        """
        if not self._in_flight:
            return
        entry = self._in_flight.popleft()
        if not failed:
            self.confirmed = append
        if type(entry) is AudioEntry:
            size = len(entry.audio)
            self._bytes -= size
            self._budget.used -= size
            if failed:
                self.dropped[failed] += entry.frames
            else:
                self.published += entry.frames
                lag = now - entry.received_at
                if lag > self.max_lag:
                    self.max_lag = lag
                if self.on_published is not None:
                    self.on_published(entry)
            if self.is_full:
                self._look_for_room()
        if self._flushed is not None:
            self._look_whether_flushed()

    def lose(self, frames: int, reason: str) -> None:
        """Count frames as dropped that the broker had confirmed, and has no more."""
        frames = min(frames, self.published)
        self.published -= frames
        self.dropped[reason] += frames

    def renumber_above(self, last_ms: int, last_n: int) -> None:
        """Continue with ids above `last_ms-last_n`, which somebody else wrote."""
        if not self._in_flight:
            return
        first = self._in_flight[0].n
        self._id_ms = max(self._id_ms, last_ms)
        if self._id_ms == last_ms:
            self._shift = max(self._shift, last_n + 1 - first)

    def in_flight(self) -> list[Append]:
        """Give what is in flight, under the ids it would have now."""
        return [self._append(entry) for entry in self._in_flight]

    # ------------------------------------------------------------------ inside

    def _make_room(self) -> None:
        if self.refusal:
            self._drop_refused()
            return
        self.is_full = True
        while self._audio_waiting and self._is_over_limit:
            self._drop_oldest(OVERFLOW)
        if len(self._waiting) > 2 * self._max_waiting:
            self._join_oldest_gaps()

    def _look_for_room(self) -> None:
        self.is_full = (
            self._bytes >= self._max_bytes
            or self._audio_waiting >= self._max_waiting
            # Its own share only: others' audio is not for it to wait for.
            or (self._bytes > 0 and self._budget.spent)
        )
        if not self.is_full:
            self._room.set()

    def _look_whether_flushed(self) -> None:
        if self._flushed is not None and not self._waiting and not self._in_flight:
            self._flushed.set()

    @property
    def _is_over_limit(self) -> bool:
        return (
            self._bytes > self._max_bytes
            or self._audio_waiting > self._max_waiting
            or self._budget.used > self._budget.limit
        )

    def _append(self, entry: Entry) -> Append:
        return Append(
            self.stream, self._id_ms, entry.n + self._shift, entry, self._retained_entries
        )

    def _put(self, entry: Entry) -> None:
        if self.refusal:
            return
        self._waiting.append(entry)
        if len(self._waiting) > 2 * self._max_waiting:
            self._join_oldest_gaps()
        if not self.scheduled:
            self._on_dirty(self)

    def _release(self, entry: AudioEntry) -> None:
        self._bytes -= len(entry.audio)
        self._budget.used -= len(entry.audio)

    def _drop_oldest(self, reason: str) -> None:
        """Turn the oldest waiting audio into a gap, joined with the one before it."""
        place, entry = next(
            (place, entry)
            for place, entry in enumerate(self._waiting)
            if isinstance(entry, AudioEntry)
        )
        self.dropped[reason] += entry.frames
        self._audio_waiting -= 1
        self._release(entry)
        first_seq = entry.seq - entry.frames + 1
        earlier = self._gap_to_extend(place, entry.track, reason)
        if earlier is None:
            self._waiting[place] = GapEntry(
                entry.n, entry.track, entry.frames, first_seq, entry.seq, entry.ts, reason
            )
        else:
            gap = self._waiting[earlier]
            assert isinstance(gap, GapEntry)
            self._waiting[earlier] = msgspec.structs.replace(
                gap, frames=gap.frames + entry.frames, last_seq=entry.seq
            )
            del self._waiting[place]

    def _gap_to_extend(self, place: int, track: Track, reason: str) -> int | None:
        """Find the gap that audio dropped at `place` continues: past the other track's only."""
        for earlier in range(place - 1, -1, -1):
            gap = self._waiting[earlier]
            if not isinstance(gap, GapEntry):
                return None
            if gap.track == track and gap.reason == reason:
                return earlier
            if gap.track in (track, None):
                return None
        return None

    def _join_oldest_gaps(self) -> None:
        """Make one of the two oldest neighbouring gaps, so that gaps alone stay bounded."""
        for place in range(len(self._waiting) - 1):
            gap, after = self._waiting[place], self._waiting[place + 1]
            if isinstance(gap, GapEntry) and isinstance(after, GapEntry):
                self._waiting[place] = GapEntry(
                    gap.n,
                    gap.track if gap.track == after.track else None,
                    gap.frames + after.frames,
                    min(gap.first_seq, after.first_seq),
                    max(gap.last_seq, after.last_seq),
                    gap.ts,
                    gap.reason if gap.reason == after.reason else "several",
                )
                del self._waiting[place + 1]
                return
