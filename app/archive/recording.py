"""A stream's audio as a WAV file: any part of it, and never the whole in memory.

Source: Microsoft, "Multiple Channel Audio Data and WAVE Files"; IBM and Microsoft,
"Multimedia Programming Interface and Data Specifications 1.0", RIFF WAVE.
"""

import struct
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Final

from app.archive.base import Archive
from app.archive.placing import Placing
from app.archive.survey import CHUNK_ENTRIES, FIRST, Survey
from app.archive.timeline import SAMPLE_BYTES, Mixer
from app.errors import NotThere
from app.pubsub.records import StoredRecord

HEADER_BYTES: Final = 44
# Sizes are 32 bits wide. All ones stand for a file whose end is not known yet.
UNKNOWN: Final = 0xFFFFFFFF
MAX_DATA_BYTES: Final = UNKNOWN - HEADER_BYTES
PCM: Final = 1


def wav_header(sample_rate: int, channels: int, data_bytes: int | None) -> bytes:
    """Write a header for PCM16; None: nobody knows yet how much will follow."""
    frame = channels * SAMPLE_BYTES
    size = UNKNOWN if data_bytes is None else data_bytes
    riff = UNKNOWN if data_bytes is None else data_bytes + HEADER_BYTES - 8
    return struct.pack(
        "<4sI4s4sIHHIIHH4sI",
        *(b"RIFF", riff, b"WAVE", b"fmt ", 16, PCM, channels),
        *(sample_rate, sample_rate * frame, frame, SAMPLE_BYTES * 8, b"data", size),
    )


@dataclass(frozen=True, slots=True)
class Recording:
    """A stream's audio, to be read as a file; `survey` is None while it is live.

    Inbound is the left channel and outbound the right, where both were taken.
    `begins_at_ms` is the media time of the first sample; with `is_trimmed`, what
    was before it is not kept any more.
    """

    archive: Archive
    stream_sid: str
    record: StoredRecord
    survey: Survey | None
    begins_at_ms: int
    is_trimmed: bool

    @property
    def size(self) -> int | None:
        """Count the file's bytes; None while nobody knows."""
        return None if self.survey is None else HEADER_BYTES + self._data_bytes(self.survey)

    @property
    def version(self) -> str:
        """Name what this is of: another one, where the file has changed."""
        return f"{self.survey.last_id}-{self.survey.entries}" if self.survey else "live"

    async def read(self, first: int = 0, last: int | None = None) -> AsyncGenerator[bytes, None]:
        """Give the file's bytes from `first` to `last`, both included, in pieces.

        A live stream's come up to now, and from the first only.

        Raises:
            NotThere: the audio was erased, or expired, meanwhile.
        """
        placing = Placing(self.record)
        channels = len(placing.tracks)
        if self.survey is None:
            yield wav_header(placing.sample_rate, channels, None)
            async for block in self._samples(placing, FIRST, Mixer(channels), None):
                yield block
            return
        data_bytes = self._data_bytes(self.survey)
        last = HEADER_BYTES + data_bytes - 1 if last is None else last
        if first < HEADER_BYTES:
            header = wav_header(placing.sample_rate, channels, data_bytes)
            yield header[first : last + 1]
        if last < HEADER_BYTES:
            return
        frame = channels * SAMPLE_BYTES
        begin, end = max(0, first - HEADER_BYTES), last + 1 - HEADER_BYTES
        first_sample, last_sample = begin // frame, -(-end // frame)
        mark = self.survey.mark_before(first_sample)
        placing = Placing(self.record, self.survey.origin_ms, mark=mark)
        after = mark.after if mark else FIRST
        cut, left = begin - first_sample * frame, end - begin
        mixer = Mixer(channels, first_sample)
        async for block in self._samples(placing, after, mixer, last_sample):
            piece = block[cut : cut + left]
            cut = 0
            left -= len(piece)
            yield piece

    async def _samples(
        self, placing: Placing, after: str, mixer: Mixer, until: int | None
    ) -> AsyncGenerator[bytes, None]:
        """Give interleaved samples from where the mixer stands, or up to now."""
        while until is None or mixer.at < until:
            chunk = await self.archive.entries(self.record.kept, after, CHUNK_ENTRIES)
            for placed in placing.of(chunk):
                mixer.add(*placed)
            if chunk:
                after = chunk[-1][0]
            is_last = len(chunk) < CHUNK_ENTRIES
            ready = placing.timeline.frontier if is_last else placing.timeline.ready
            for block in mixer.blocks(ready if until is None else min(ready, until)):
                yield block
            if is_last and until is not None and mixer.at < until:
                raise NotThere("the audio is not kept any more")
            if is_last:
                return

    def _data_bytes(self, survey: Survey) -> int:
        frame = len(survey.tracks) * SAMPLE_BYTES
        return min(survey.total * frame, MAX_DATA_BYTES // frame * frame)
