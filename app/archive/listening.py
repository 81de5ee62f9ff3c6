"""Live audio for whoever listens: as it is published, a moment behind.

Whoever cannot keep up misses some; nobody waits for a listener.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from app.archive.base import Archive
from app.archive.placing import Placing
from app.archive.timeline import Mixer
from app.events import EndEntry
from app.pubsub.records import StoredRecord

# What was published so lately is played first: it hides how unevenly audio comes.
BEHIND_SECONDS: Final = 0.25
# A track is waited for no longer than this; what comes later follows when it comes.
SKEW_SECONDS: Final = 0.2
# A second or more of a call. Who is given so many at once is behind, and skips to the newest.
MANY_ENTRIES: Final = 100
SLOW_SECONDS: Final = 1.0
# Ten pieces a second sound no different from fifty, and cost a fifth.
PAUSE_SECONDS: Final = 0.1


@dataclass(frozen=True, slots=True)
class LiveAudio:
    """A live stream's audio: PCM16, interleaved where there are two channels."""

    archive: Archive
    stream_sid: str
    record: StoredRecord
    clock: Callable[[], float] = time.monotonic

    @property
    def sample_rate(self) -> int:
        """Give the samples a second of each channel."""
        return self.record.stream.published.sample_rate

    @property
    def channels(self) -> int:
        """Count the tracks; inbound comes first."""
        return len(Placing(self.record).tracks)

    async def blocks(self) -> AsyncGenerator[bytes, None]:
        """Give audio from the newest on, until the stream ends; nothing (`b""`) in a silence."""
        while True:
            has_ended = False
            async with aclosing(self._until_behind()) as heard:
                async for block in heard:
                    if block is None:
                        has_ended = True
                    else:
                        yield block
            if has_ended:
                return

    async def _until_behind(self) -> AsyncGenerator[bytes | None, None]:
        """Give audio from the newest on; None at its end; stop when the listener is behind."""
        placing = Placing(self.record, skew_seconds=SKEW_SECONDS)
        newest = await self.archive.latest(self.record.kept, MANY_ENTRIES)
        entries = [placed for placed in placing.of(newest)]
        start = max(0, placing.timeline.frontier - round(BEHIND_SECONDS * self.sample_rate))
        mixer = Mixer(len(placing.tracks), start)
        for placed in entries:
            mixer.add(*placed)
        yield b"".join(mixer.blocks(placing.timeline.ready))
        if newest and isinstance(newest[-1][1], EndEntry):
            yield None
            return
        after = newest[-1][0] if newest else "0-0"
        feed = self.archive.follow(self.record.kept, after, MANY_ENTRIES)
        async with aclosing(feed):
            async for chunk in feed:
                if len(chunk) >= MANY_ENTRIES:
                    return
                asked = self.clock()
                for placed in placing.of(chunk):
                    mixer.add(*placed)
                for block in mixer.blocks(placing.timeline.ready):
                    yield block
                if not chunk:
                    yield b""
                elif isinstance(chunk[-1][1], EndEntry):
                    for block in mixer.blocks(placing.timeline.frontier):
                        yield block
                    yield None
                    return
                if self.clock() - asked > SLOW_SECONDS:
                    return
                await asyncio.sleep(PAUSE_SECONDS)
            yield None  # the id is another stream's by now
