"""Where each entry of a stream belongs in time, and its tracks side by side.

Media time (`ts`) aligns the tracks; samples are never cut nor stretched for it. An
entry that begins where its track stands, but for a carrier's imprecision, follows
without a seam; where it begins later, audio is missing and silence takes its place.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

# Less than the shortest frame of any carrier: a frame that is missing is heard missing.
TOLERANCE_SECONDS: Final = 0.005
# An entry that begins before its track's end follows it all the same. A step back by
# more is a clock that began anew, and so is a step forward that no call can take.
OVERLAP_SECONDS: Final = 1.0
STEP_SECONDS: Final = 3600.0
# How far one track may be behind the other, as entries come: so much is held at once.
SKEW_SECONDS: Final = 5.0
SAMPLE_BYTES: Final = 2
BLOCK_SAMPLES: Final = 8192

Samples = npt.NDArray[np.int16]


class Mark(msgspec.Struct, frozen=True):
    """The state of a timeline after the entry of this id, to continue it from there."""

    after: str
    ends: list[int]
    shift: int


class Timeline:
    """Place entries, given in the stream's order; in samples since `origin_ms`.

    `ends` is where each track stands, `shift` what its clock has been set back by.
    """

    def __init__(
        self,
        sample_rate: int,
        tracks: int,
        origin_ms: int,
        *,
        mark: Mark | None = None,
        skew_seconds: float = SKEW_SECONDS,
    ) -> None:
        self._rate = sample_rate
        self._origin_ms = origin_ms
        self._tolerance = round(TOLERANCE_SECONDS * sample_rate)
        self._overlap = round(OVERLAP_SECONDS * sample_rate)
        self._longest_step = round(STEP_SECONDS * sample_rate)
        self._skew = round(skew_seconds * sample_rate)
        self.ends = list(mark.ends) if mark else [0] * tracks
        self.shift = mark.shift if mark else 0

    def place(self, track: int, ts: int, samples: int) -> int:
        """Give the sample at which an entry of a track begins, and go on behind it."""
        end = self.ends[track]
        at = round((ts - self._origin_ms) * self._rate / 1000) + self.shift
        if at < end - self._overlap or at > self.frontier + self._longest_step:
            self.shift += self.frontier - at
            at = self.frontier
        if at <= end + self._tolerance:
            at = end
        at = max(at, self.frontier - self._skew)
        self.ends[track] = at + samples
        return at

    @property
    def frontier(self) -> int:
        """Give the end of the track that is furthest."""
        return max(self.ends)

    @property
    def ready(self) -> int:
        """Give the sample before which nothing more is placed."""
        return max(min(self.ends), self.frontier - self._skew)

    def mark(self, after: str) -> Mark:
        """Give the state after the entry of this id."""
        return Mark(after, list(self.ends), self.shift)


class Mixer:
    """Put placed audio side by side, a channel a track, from sample `at` on."""

    def __init__(self, channels: int, at: int = 0) -> None:
        self.at = at
        self._waiting: tuple[deque[tuple[int, Samples]], ...] = tuple(
            deque() for _ in range(channels)
        )

    def add(self, track: int, start: int, pcm: bytes) -> None:
        """Take audio (PCM16) that begins at sample `start`; in order on each track."""
        samples: Samples = np.frombuffer(pcm, "<i2")
        if start + len(samples) > self.at:
            self._waiting[track].append((start, samples))

    def blocks(self, until: int) -> Iterator[bytes]:
        """Give interleaved PCM16 up to sample `until`, in pieces; silence where none is."""
        while self.at < until:
            end = min(until, self.at + BLOCK_SAMPLES)
            yield self._block(end)
            self.at = end

    def _block(self, end: int) -> bytes:
        mixed = np.zeros((end - self.at, len(self._waiting)), "<i2")
        for channel, waiting in enumerate(self._waiting):
            while waiting and waiting[0][0] < end:
                start, samples = waiting.popleft()
                first = max(0, self.at - start)
                last = min(len(samples), end - start)
                place = start + first - self.at
                mixed[place : place + last - first, channel] = samples[first:last]
                if last < len(samples):
                    waiting.appendleft((start, samples))
                    break
        return mixed.tobytes()


def fold(values: Samples, buckets: int) -> Samples:
    """Give `buckets` maxima of `values`, each over its share of them."""
    if not len(values):
        return np.zeros(buckets, np.int16)
    edges = np.arange(buckets) * len(values) // buckets
    folded: Samples = np.maximum.reduceat(values, edges)
    return folded


class Peaks:
    """Follow how loud one track is, at a resolution that halves as it grows longer."""

    CAPACITY: Final = 4096
    FINEST_SAMPLES: Final = 8

    def __init__(self) -> None:
        self._width = self.FINEST_SAMPLES
        self._loudest: Samples = np.zeros(self.CAPACITY, np.int16)

    def add(self, start: int, pcm: bytes) -> None:
        """Take audio (PCM16) that begins at sample `start`."""
        samples = np.frombuffer(pcm, "<i2")
        if not len(samples):
            return
        # Of 16 bits, -32768 alone has no opposite; it is as loud as can be.
        loud = np.abs(np.maximum(samples, -32767))
        while start + len(loud) > self.CAPACITY * self._width:
            self._coarsen()
        first = start // self._width
        edges = [0, *range((first + 1) * self._width - start, len(loud), self._width)]
        found = np.maximum.reduceat(loud, edges)
        here = self._loudest[first : first + len(found)]
        np.maximum(here, found, out=here)

    def of(self, total: int) -> list[int]:
        """Give the peaks of the first `total` samples, each over an equal share of them."""
        count = max(1, -(-total // self._width))
        loudest: list[int] = self._loudest[:count].tolist()
        return loudest

    def _coarsen(self) -> None:
        pairs = np.maximum(self._loudest[::2], self._loudest[1::2])
        self._loudest = np.zeros(self.CAPACITY, np.int16)
        self._loudest[: len(pairs)] = pairs
        self._width *= 2


def resampled(peaks: Sequence[int], buckets: int) -> list[int]:
    """Give peaks at another resolution, each over its share of them."""
    found: list[int] = fold(np.array(peaks, np.int16), buckets).tolist()
    return found
