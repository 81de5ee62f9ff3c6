"""What goes out to a carrier, in what shape, and what became of all of it."""

from dataclasses import dataclass

from app.media import MediaFormat
from app.playback.commands import HangUp, Transfer

Action = HangUp | Transfer


@dataclass(frozen=True, slots=True)
class Shape:
    """What a carrier takes: its format, and messages of so many bytes.

    A rest that is shorter is sent as it is, or filled up with silence.
    """

    format: MediaFormat
    message_bytes: int
    fills_up: bool = False


@dataclass(frozen=True, slots=True)
class Audio:
    """Send this, in the carrier's format."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class SetMark:
    """Send a mark of this name."""

    name: str


Out = Audio | SetMark | Action


@dataclass(slots=True)
class Sums:
    """What became of the audio, in bytes of the carrier's format, silence left out.

    `queued` is `sent`, `cleared`, `lost` and what still waits; of `sent` the
    carrier was told to forget about `carrier_cleared`.
    """

    plays: int = 0
    marks: int = 0
    clears: int = 0
    queued: int = 0
    sent: int = 0
    cleared: int = 0
    lost: int = 0
    carrier_cleared: int = 0

    @property
    def waiting(self) -> int:
        """Count what still waits."""
        return self.queued - self.sent - self.cleared - self.lost
