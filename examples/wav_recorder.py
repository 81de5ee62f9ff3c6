"""Record each call as WAV files, one a track; silence stands where audio is missing.

    REDIS_URL=redis://localhost:6379/0 python examples/wav_recorder.py [DIRECTORY]

As many recorders as run share the calls. What is acknowledged is in the file; where a
recorder dies, another one goes on in a file of its own, which begins at its media time.
"""

import asyncio
import os
import sys
import wave
from contextlib import ExitStack
from pathlib import Path

from app.consumer import Call, Frame, Track, work

DIRECTORY = Path(sys.argv[1] if len(sys.argv) > 1 else "recordings")
MOST_SILENCE_MS = 60_000  # a clock that jumps further began anew


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


class Recording:
    """One track's file; it is a valid WAV file after each frame."""

    def __init__(self, path: Path, first: Frame) -> None:
        # Calls are personal data: only the owner may read the file.
        path.unlink(missing_ok=True)
        self._out = open(path, "xb", buffering=0, opener=_private)
        self._file = wave.open(self._out, "wb")
        self._file.setparams((1, 2, first.format.sample_rate, 0, "NONE", ""))
        self._rate = first.format.sample_rate
        self._ends_at = first.ts

    def add(self, frame: Frame) -> None:
        """Write a frame, and silence for what is missing before it."""
        missing_ms = frame.ts - self._ends_at
        if 5 < missing_ms < MOST_SILENCE_MS:
            self._file.writeframes(bytes(2 * (self._rate * round(missing_ms) // 1000)))
        self._file.writeframes(frame.pcm16)
        self._ends_at = frame.ts + round(frame.duration_ms)

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        self._out.close()


async def record(call: Call) -> None:
    """Record one call."""
    tracks: dict[Track, Recording] = {}
    with ExitStack() as files:
        async for item in call:
            if not isinstance(item, Frame):
                continue
            if item.track not in tracks:
                path = DIRECTORY / f"{call.call_sid}-{item.track}-{item.ts}ms.wav"
                tracks[item.track] = Recording(path, item)
                files.callback(tracks[item.track].close)
            tracks[item.track].add(item)
    print(f"{call.call_sid} is recorded, {len(tracks)} tracks", flush=True)


if __name__ == "__main__":
    DIRECTORY.mkdir(mode=0o700, parents=True, exist_ok=True)
    asyncio.run(work(os.environ["REDIS_URL"], record, group="wav-recorder"))
