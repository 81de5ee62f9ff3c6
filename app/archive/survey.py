"""One pass over a stream's audio: how long it is, how loud, where it has gaps.

It also leaves marks, from which any part can be played without reading what is
before it.
"""

import asyncio
from collections.abc import Sequence
from typing import Final

import msgspec

from app.archive.base import Archive, Extent
from app.archive.placing import Placing
from app.archive.timeline import Mark, Peaks
from app.events import AudioEntry, Entry, GapEntry
from app.pubsub.records import StoredRecord

# So many entries take a millisecond or two: no more in one turn of the event loop.
CHUNK_ENTRIES: Final = 200
MARK_SECONDS: Final = 10.0
MAX_GAPS: Final = 1000
VERSION: Final = 1
FIRST: Final = "0-0"


class Gap(msgspec.Struct, frozen=True):
    """Audio that is missing; `track` is empty where it may be either's.

    `start` and `end` are samples; equal where the carrier's clock left no room for it.
    """

    track: str
    start: int
    end: int
    frames: int
    reason: str


class Survey(msgspec.Struct, frozen=True):
    """What a stream's audio is, up to the entry `last_id`.

    `origin_ms` is the media time of sample 0, `total` the samples of each track.
    `peaks` are of each track, at equal steps. `more_gaps` are left out of `gaps`.
    """

    version: int
    last_id: str
    entries: int
    origin_ms: int
    sample_rate: int
    tracks: list[str]
    total: int
    marks: list[Mark]
    peaks: list[list[int]]
    gaps: list[Gap]
    more_gaps: int = 0

    def mark_before(self, sample: int) -> Mark | None:
        """Give the last mark before which all audio lies before a sample."""
        found = [mark for mark in self.marks if max(mark.ends) <= sample]
        return found[-1] if found else None

    def is_of(self, extent: Extent) -> bool:
        """Tell whether it is of what stands now."""
        stands = extent.last_id, extent.entries
        return self.version == VERSION and (self.last_id, self.entries) == stands


async def survey_of(archive: Archive, record: StoredRecord) -> Survey:
    """Read a stream from its first entry to its last, and tell what it is.

    Gives way to others after each chunk of entries.
    """
    surveyor = _Surveyor(Placing(record))
    after = FIRST
    while True:
        chunk = await archive.entries(record.kept, after, CHUNK_ENTRIES)
        surveyor.take(chunk)
        if len(chunk) < CHUNK_ENTRIES:
            return surveyor.result()
        after = chunk[-1][0]
        await asyncio.sleep(0)


class _Run:
    """Audio of one track without a seam: measured at once, since each measuring costs."""

    def __init__(self) -> None:
        self.peaks = Peaks()
        self._start = 0
        self._audio = bytearray()

    def add(self, start: int, pcm: bytes) -> None:
        if start != self._start + len(self._audio) // 2:
            self.measure()
            self._start = start
        self._audio += pcm

    def measure(self) -> None:
        self.peaks.add(self._start, bytes(self._audio))
        self._start += len(self._audio) // 2
        self._audio.clear()


class _Surveyor:
    """Take a stream's entries, in order."""

    def __init__(self, placing: Placing) -> None:
        self._placing = placing
        self._mark_samples = round(MARK_SECONDS * placing.sample_rate)
        self._marks: list[Mark] = []
        self._runs = [_Run() for _ in placing.tracks]
        self._gaps: list[Gap] = []
        self._open: list[GapEntry] = []
        self._more_gaps = 0
        self._last_id = FIRST
        self._entries = 0

    def take(self, chunk: Sequence[tuple[str, Entry]]) -> None:
        """Take the next entries."""
        placing = self._placing
        placing.begin_with(chunk)
        for _, entry in chunk:
            if isinstance(entry, GapEntry):
                self._note_gap(entry)
            elif isinstance(entry, AudioEntry):
                before = list(placing.timeline.ends) if self._open else []
                placed = placing.placed(entry)
                if placed is None:
                    continue
                channel, start, pcm = placed
                self._runs[channel].add(start, pcm)
                if before:
                    self._close_gaps(channel, before[channel], start)
        for run in self._runs:
            run.measure()
        if chunk:
            self._last_id = chunk[-1][0]
            self._entries += len(chunk)
            self._set_mark()

    def result(self) -> Survey:
        """Give what was found."""
        placing = self._placing
        total = placing.timeline.frontier
        for gap in self._open:
            self._gaps.append(Gap(gap.track or "", total, total, gap.frames, gap.reason))
        return Survey(
            VERSION,
            self._last_id,
            self._entries,
            placing.origin_ms,
            placing.sample_rate,
            [track.value for track in placing.tracks],
            total,
            self._marks,
            [run.peaks.of(total) for run in self._runs],
            self._gaps,
            self._more_gaps,
        )

    def _note_gap(self, gap: GapEntry) -> None:
        if len(self._gaps) + len(self._open) < MAX_GAPS:
            self._open.append(gap)
        else:
            self._more_gaps += 1

    def _close_gaps(self, channel: int, start: int, end: int) -> None:
        """Note the gaps that a track's next audio ends: those of its own, and of either."""
        track = self._placing.tracks[channel]
        ended = [gap for gap in self._open if gap.track in (None, track)]
        self._open = [gap for gap in self._open if gap.track not in (None, track)]
        self._gaps += [Gap(gap.track or "", start, end, gap.frames, gap.reason) for gap in ended]

    def _set_mark(self) -> None:
        timeline = self._placing.timeline
        last = max(self._marks[-1].ends) if self._marks else 0
        if timeline.frontier >= last + self._mark_samples:
            self._marks.append(timeline.mark(self._last_id))
