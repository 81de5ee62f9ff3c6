"""What a worker is given of a call: frames, gaps, and the end."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from app.audio import level_dbfs, mulaw_to_pcm16
from app.events import AudioEntry, GapEntry
from app.media import Encoding, MediaFormat, Track

# Reasons that the consumer gives; all others are the bridge's own.
RETENTION: Final = "retention"
UNREADABLE: Final = "unreadable"


@dataclass(frozen=True, slots=True)
class Frame:
    """Audio of one track, as it was published: `frames` carrier frames.

    `ts` is the media time of its first sample in ms, `seq` the carrier's number of its
    last frame; `id` is its place in the stream.
    """

    id: str
    track: Track
    ts: int
    seq: int
    frames: int
    audio: bytes
    format: MediaFormat

    @property
    def pcm16(self) -> bytes:
        """Give the samples as PCM16, little-endian, whatever was published."""
        return self.audio if self.format.encoding is Encoding.PCM16 else mulaw_to_pcm16(self.audio)

    @property
    def duration_ms(self) -> float:
        """Give its length in ms."""
        return self.format.duration_ms(len(self.audio))

    @property
    def level(self) -> float:
        """Give how loud it is, in dB below full scale; -96 for silence."""
        return level_dbfs(self.audio, self.format.encoding)


@dataclass(frozen=True, slots=True)
class Gap:
    """Audio that is missing here. `track` None: on either track.

    `reason` is one of the contract's, or `retention`: the audio was no longer kept when
    this worker came to it, or `unreadable`: an entry that this version cannot read.
    `frames` counts carrier frames; with these two it counts entries.
    """

    id: str
    track: Track | None
    ts: int
    frames: int
    first_seq: int
    last_seq: int
    reason: str


@dataclass(frozen=True, slots=True)
class End:
    """How a stream ended. `at` is Unix ms.

    `reason` is the receipt's `end_reason`, or `expired`: its keys are gone, or
    `replaced`: its id has started again. `receipt` is None where it is not there
    (any more). `provisional`: another replica ended it, and its holder may live on.
    """

    reason: str
    at: int | None = None
    receipt: Mapping[str, Any] | None = None
    provisional: bool = False


Item = Frame | Gap


def item_of(entry_id: str, entry: AudioEntry | GapEntry, published: MediaFormat) -> Item:
    """Give an entry as a worker gets it."""
    if isinstance(entry, AudioEntry):
        frames = entry.frames
        return Frame(entry_id, entry.track, entry.ts, entry.seq, frames, entry.audio, published)
    return Gap(
        entry_id,
        entry.track,
        entry.ts,
        entry.frames,
        entry.first_seq,
        entry.last_seq,
        entry.reason,
    )
