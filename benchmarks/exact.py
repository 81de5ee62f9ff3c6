"""What stands in Redis, compared with what was sent."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import starmap

FIRST_SEQ = 2  # `start` has 1


@dataclass(frozen=True, slots=True)
class Found:
    """One entry of audio: the carrier's number, None where it has none, and the PCM16."""

    seq: int | None
    audio: bytes


@dataclass(frozen=True, slots=True)
class Tally:
    """How the entries differ from the frames, in frames.

    `foreign` entries have a number that was never sent, or other audio than that
    frame's. `numbered` is False where entries tell no number: then only their count
    and their audio, in order, are compared.
    """

    sent: int = 0
    readable: int = 0
    duplicated: int = 0
    reordered: int = 0
    foreign: int = 0
    numbered: bool = True

    @property
    def lost(self) -> int:
        """Count the frames that nobody can read."""
        return self.sent - self.readable

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(
            self.sent + other.sent,
            self.readable + other.readable,
            self.duplicated + other.duplicated,
            self.reordered + other.reordered,
            self.foreign + other.foreign,
            self.numbered and other.numbered,
        )


def compare(entries: Sequence[Found], sent: Sequence[bytes]) -> Tally:
    """Compare one call's entries with its frames' PCM16; the first has `FIRST_SEQ`."""
    numbered = all(entry.seq is not None for entry in entries)
    seen: set[int] = set()
    newest = -1
    duplicated = reordered = foreign = 0
    for position, entry in enumerate(entries):
        place = position if entry.seq is None else entry.seq - FIRST_SEQ
        if not 0 <= place < len(sent) or entry.audio != sent[place]:
            foreign += 1
        elif place in seen:
            duplicated += 1
        else:
            seen.add(place)
            reordered += place < newest
            newest = max(newest, place)
    return Tally(len(sent), len(seen), duplicated, reordered, foreign, numbered)


def compare_all(calls: Iterable[tuple[Sequence[Found], Sequence[bytes]]]) -> Tally:
    """Compare the entries and frames of many calls."""
    return sum(starmap(compare, calls), start=Tally())
