"""One track's way from carrier frames to published audio: converted and joined."""

import math
from collections import deque
from collections.abc import Callable
from typing import NamedTuple, Protocol

from app.audio import Converter
from app.media import MediaFormat, Track


class PutAudio(Protocol):
    """Take one entry's worth of audio; see `StreamQueue.put_audio`."""

    def __call__(
        self, seq: int, ts: int, track: Track, audio: bytes, frames: int, received_at: float
    ) -> None:
        """Queue it."""


class _Frame(NamedTuple):
    seq: int
    ts: float
    start: float  # ms of audio before it, since the converter began
    end: float
    received_at: float


class TrackAudio:
    """Convert one track's frames and join them up to `frame_ms`.

    A carrier frame is counted in the entry that holds its last sample, so a
    converter that answers late never makes an entry without a frame. An entry
    holds at least one frame, and never a part of one unless the converter
    splits it.

    `pushed` counts the frames that came, and `pushed_bytes` theirs; `newest` is the last
    of them, for whoever looks at it and empties it.
    """

    __slots__ = (
        "_bytes_per_ms",
        "_convert",
        "_converter",
        "_entry_bytes",
        "_frame_ms",
        "_held",
        "_next_ts",
        "_pending",
        "_put",
        "_put_ms",
        "_taken_ms",
        "_target",
        "_track",
        "newest",
        "pushed",
        "pushed_bytes",
    )

    def __init__(
        self,
        track: Track,
        source: MediaFormat,
        target: MediaFormat,
        frame_ms: int,
        put: PutAudio,
        new_converter: Callable[[MediaFormat, MediaFormat], Converter] = Converter,
    ) -> None:
        self._track = track
        self._target = target
        self._frame_ms = frame_ms
        self._put = put
        self._converter = converter = new_converter(source, target)
        self._convert = converter.convert
        self._bytes_per_ms = source.bytes_per_second / 1000
        # The shortest frame that makes an entry of its own; with a resampler none does.
        at_once = source.sample_rate == target.sample_rate
        self._entry_bytes = frame_ms * self._bytes_per_ms if at_once else math.inf
        self._next_ts = 0.0
        self.pushed = 0
        self.pushed_bytes = 0
        self.newest = b""
        self._restart()

    def push(self, payload: bytes, seq: int, ts: int | None, received_at: float) -> None:
        """Take one carrier frame; `ts` None continues from the audio so far."""
        size = len(payload)
        self.pushed += 1
        self.pushed_bytes += size
        self.newest = payload
        duration = size / self._bytes_per_ms
        start_ts = self._next_ts if ts is None else ts
        self._next_ts = start_ts + duration
        audio = self._convert(payload)
        if size >= self._entry_bytes and not self._pending:
            self._put(seq, round(start_ts), self._track, audio, 1, received_at)
            return
        if self._held and self._held_ms + self._target.duration_ms(len(audio)) > self._frame_ms:
            self._put_held()
        self._pending.append(
            _Frame(seq, start_ts, self._taken_ms, self._taken_ms + duration, received_at)
        )
        self._taken_ms += duration
        self._held += audio
        if self._held_ms >= self._frame_ms:
            self._put_held()

    def flush(self) -> None:
        """Put out all that is held, with the converter's tail: before a gap, and at the end."""
        self._held += self._converter.flush()
        self._put_held(last=True)
        self._restart()

    @property
    def pushed_ms(self) -> float:
        """Give the length in ms of all audio that came."""
        return self.pushed_bytes / self._bytes_per_ms

    @property
    def next_ts(self) -> int:
        """Give the media time in ms at which the next frame is expected."""
        return round(self._next_ts)

    @property
    def _held_ms(self) -> float:
        return self._target.duration_ms(len(self._held))

    def _restart(self) -> None:
        self._pending: deque[_Frame] = deque()
        self._held = bytearray()
        self._taken_ms = 0.0
        self._put_ms = 0.0

    def _put_held(self, *, last: bool = False) -> None:
        """Put one entry, unless not one frame is whole yet."""
        first = self._frame_at(self._put_ms)
        end = self._put_ms + self._held_ms
        # Half a sample of slack: the converter rounds.
        slack = 500 / self._target.sample_rate
        whole: list[_Frame] = []
        while self._pending and (last or self._pending[0].end <= end + slack):
            whole.append(self._pending.popleft())
        if not whole:
            return
        ts = first.ts + (self._put_ms - first.start)
        audio = bytes(self._held)
        self._held.clear()
        self._put_ms = end
        self._put(whole[-1].seq, round(ts), self._track, audio, len(whole), whole[0].received_at)

    def _frame_at(self, position: float) -> _Frame:
        """Find the frame that holds a position, in ms since the converter began."""
        found = _Frame(0, self._next_ts, position, position, 0.0)
        for frame in self._pending:
            if frame.start <= position + 0.01:
                found = frame
        return found
