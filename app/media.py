"""What audio is: its tracks, encodings and formats."""

from dataclasses import dataclass
from enum import StrEnum

MULAW_BYTES_PER_SAMPLE = 1
PCM16_BYTES_PER_SAMPLE = 2


class Track(StrEnum):
    """Which party is heard: `inbound` is the caller, `outbound` the called."""

    INBOUND = "inbound"
    OUTBOUND = "outbound"


class Encoding(StrEnum):
    """How a sample is written: PCM16 little-endian, or G.711 mu-law."""

    PCM16 = "pcm16"
    MULAW = "mulaw"

    @property
    def bytes_per_sample(self) -> int:
        """Count the bytes of one sample of one channel."""
        return MULAW_BYTES_PER_SAMPLE if self is Encoding.MULAW else PCM16_BYTES_PER_SAMPLE


@dataclass(frozen=True, slots=True)
class MediaFormat:
    """One track's audio: encoding, samples a second (Hz) and channels."""

    encoding: Encoding
    sample_rate: int
    channels: int = 1

    @property
    def bytes_per_second(self) -> int:
        """Count the bytes of one second."""
        return self.encoding.bytes_per_sample * self.channels * self.sample_rate

    def duration_ms(self, size: int) -> float:
        """Give the length in ms of `size` bytes."""
        return size * 1000 / self.bytes_per_second
