"""A call's waveform as the points of an SVG: one path a track, one box a gap."""

from collections.abc import Sequence
from dataclasses import dataclass

from app.archive import library
from app.archive.words import LOSSES
from app.web.admin.words import clock, plural

# Of each track's picture, in units of its viewBox.
HEIGHT = 64
_MIDDLE = HEIGHT / 2
# Silence is a line, not nothing; a gap is seen, however short.
_LEAST = 0.5
_LEAST_GAP = 3.0
_LOUDEST = 32767


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


def picture(found: library.Waveform) -> Waveform | None:
    """Draw what the archive found of a call's audio; None where there is none."""
    if not found.duration_ms or not found.tracks:
        return None
    return Waveform(
        found.duration_ms / 1000,
        [
            TrackPicture(
                track.track,
                len(track.peaks),
                outline([peak / _LOUDEST for peak in track.peaks]),
                [
                    _mark(gap, len(track.peaks) / found.duration_ms)
                    for gap in found.gaps
                    if gap.track in ("", track.track)
                ],
            )
            for track in found.tracks
        ],
    )


def gap_words(gap: library.WaveformGap) -> str:
    """Say what is missing, and why."""
    why = LOSSES.get(gap.reason, gap.reason.replace("_", " "))
    return f"{plural(gap.frames, 'frame')}, {why}"


def _mark(gap: library.WaveformGap, scale: float) -> GapMark:
    width = max(_LEAST_GAP, (gap.to_ms - gap.from_ms) * scale)
    when = f"{clock(gap.from_ms / 1000)} to {clock(gap.to_ms / 1000)}"
    return GapMark(round(gap.from_ms * scale, 1), round(width, 1), f"{when}: {gap_words(gap)}")
