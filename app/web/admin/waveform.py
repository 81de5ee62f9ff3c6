"""A call's waveform as the points of an SVG: one path a track, one box a gap."""

from collections.abc import Sequence
from dataclasses import dataclass

# Of each track's picture, in units of its viewBox.
HEIGHT = 64
_MIDDLE = HEIGHT / 2
# Silence is a line, not nothing.
_LEAST = 0.5


@dataclass(frozen=True, slots=True)
class GapMark:
    """Where audio is missing: in units of the viewBox, and in words."""

    x: float
    width: float
    words: str


@dataclass(frozen=True, slots=True)
class TrackPicture:
    """One track: `width` buckets wide, `path` its outline."""

    name: str
    width: int
    path: str
    gaps: Sequence[GapMark]


@dataclass(frozen=True, slots=True)
class Waveform:
    """A call's tracks, all over the same time."""

    seconds: float
    tracks: Sequence[TrackPicture]


def outline(peaks: Sequence[float]) -> str:
    """Draw peaks (0 to 1, one a bucket) as a closed path about the middle line."""
    if not peaks:
        return ""
    halves = [max(_LEAST, min(1.0, peak) * _MIDDLE) for peak in peaks]
    above = [f"{x} {_MIDDLE - half:.1f}" for x, half in enumerate(halves)]
    below = [f"{x} {_MIDDLE + half:.1f}" for x, half in enumerate(halves)]
    return f"M{' L'.join(above)} L{' L'.join(reversed(below))}Z"
