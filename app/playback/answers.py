"""What a worker is told of its commands: what was heard, and what was not."""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from app.playback.commands import Mark, Play


@dataclass(frozen=True, slots=True)
class Played:
    """Some plays are over; `id` is the last one's.

    `played_ms` of `duration_ms` were heard: `heard` is True where the carrier said
    so, False where they were cleared, None where nobody knows.
    """

    id: str
    plays: int
    duration_ms: int
    played_ms: int
    heard: bool | None


@dataclass(frozen=True, slots=True)
class Reached:
    """A worker's mark was reached (True), cleared (False), or nobody knows (None)."""

    id: str
    name: str
    heard: bool | None


@dataclass(frozen=True, slots=True)
class Cleared:
    """A `clear` is done: it ended so many plays.

    `dropped_ms` had not been sent; `carrier_ms` is about what the carrier still had.
    """

    id: str
    plays: int
    dropped_ms: int
    carrier_ms: int


Answer = Played | Reached | Cleared


def event_of(answer: Answer) -> tuple[str, dict[str, Any]]:
    """Name the lifecycle event that tells an answer, and its data, JSON-ready."""
    match answer:
        case Played():
            return "stream.played", {
                "id": answer.id,
                "plays": answer.plays,
                "durationMs": answer.duration_ms,
                "playedMs": answer.played_ms,
                "heard": answer.heard,
            }
        case Reached():
            return "stream.mark", {"id": answer.id, "name": answer.name, "heard": answer.heard}
        case Cleared():
            return "stream.cleared", {
                "id": answer.id,
                "plays": answer.plays,
                "droppedMs": answer.dropped_ms,
                "carrierMs": answer.carrier_ms,
            }


@dataclass(slots=True)
class Plays:
    """Plays that are answered together: `begin` and `end` are places in what is sent, bytes."""

    id: str
    begin: int
    end: int
    count: int = 0


@dataclass(slots=True)
class Milestone:
    """A place in what is sent, and what is to be told when it was heard.

    `due` is by when the carrier must have said so, once it was told of the place.
    """

    at: int
    plays: Plays | None = None
    marks: list[tuple[str, str]] = field(default_factory=list)
    due: float = 0.0

    def told(self, place: int, heard: bool | None, ms: Callable[[int], int]) -> Iterator[Answer]:
        """Give the answers, where all before `place` was heard; `ms` is of so many bytes."""
        if self.plays is not None:
            size = self.plays.end - self.plays.begin
            played = min(max(place - self.plays.begin, 0), size)
            yield Played(self.plays.id, self.plays.count, ms(size), ms(played), heard)
        for mark_id, name in self.marks:
            yield Reached(mark_id, name, heard)

    def commands(self) -> Iterator[tuple[str, str]]:
        """Give the id and name of each command that is answered here."""
        if self.plays is not None:
            yield self.plays.id, "play"
        yield from ((mark_id, "mark") for mark_id, _ in self.marks)


class Script:
    """The milestones that are still to come, in order.

    Plays without an id or a mark of their own are answered with what comes next.
    """

    def __init__(self) -> None:
        self.ahead: deque[Milestone] = deque()
        self._open: Plays | None = None

    @property
    def has_open(self) -> bool:
        """Tell whether there are plays that no milestone answers yet."""
        return self._open is not None

    def add_part(self, play: Play, begin: int, end: int, *, is_last: bool) -> None:
        """Note that a part of a play is from `begin` to `end`."""
        if self._open is None:
            self._open = Plays(play.id, begin, end)
        self._open.id, self._open.end = play.id, end
        if is_last:
            self._open.count += 1
            if play.mark or play.is_named:
                self.close(end, [(play.id, play.mark)] if play.mark else [])

    def add_mark(self, mark: Mark, at: int) -> None:
        """Note a worker's mark."""
        self.close(at, [(mark.id, mark.name)])

    def close(self, at: int, marks: list[tuple[str, str]] | None = None) -> None:
        """Make a milestone of what is open, and of these marks; none where there is nothing."""
        if self._open is not None or marks:
            self.ahead.append(Milestone(at, self._open, marks or []))
            self._open = None

    def pull_back(self, end: int) -> None:
        """Let nothing be later than this: a resampler may have given a sample less."""
        for milestone in reversed(self.ahead):
            if milestone.at <= end:
                return
            milestone.at = end
