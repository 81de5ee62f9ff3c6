"""How the workers of a group share calls: the port, and what it is about.

Every method raises StoreUnavailable when the group's state cannot be reached in time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from app.events import HeldStream

# A worker that dies is missed so late.
LEASE_SECONDS: Final = 10.0
# What failed is given again after a pause, and so often in all.
FAILED_SECONDS: Final = 5.0
MAX_FAILURES: Final = 3
# A finished stream that is announced again is known for so long; no more are known.
DONE_SECONDS: Final = 2 * 86_400
MAX_KNOWN: Final = 100_000
# A group that no worker has been in for so long is forgotten.
GROUP_SECONDS: Final = 30 * 86_400


class StreamName(NamedTuple):
    """One stream among all there ever were: its id, and its START_MS."""

    stream_sid: str
    started_at: int

    def __str__(self) -> str:
        return f"{self.stream_sid}@{self.started_at}"

    @property
    def beginning(self) -> str:
        """Give the id before its first entry."""
        return f"{self.started_at}-0"

    @classmethod
    def parse(cls, text: str) -> "StreamName":
        """Read what `str` wrote."""
        stream_sid, _, started_at = text.rpartition("@")
        return cls(stream_sid, int(started_at))

    @classmethod
    def of(cls, held: HeldStream) -> "StreamName":
        """Name a live stream."""
        return cls(held.call.stream_sid, held.started_at)


@dataclass(frozen=True, slots=True)
class Claim:
    """A stream that is this worker's now, to be read behind the id `position`."""

    name: StreamName
    position: str

    @property
    def is_continued(self) -> bool:
        """Tell whether some of it was acknowledged before."""
        return self.position != self.name.beginning


class Sharing(Protocol):
    """Share streams among the workers of a group; one instance is one worker.

    A stream is *known* from when it is enlisted until long after it is finished, and
    given to one worker at a time, which holds it by a lease. Positions are ids of
    entries: what follows them is still to be worked on.
    """

    async def close(self) -> None:
        """Let go of every connection."""

    async def cursor(self) -> str | None:
        """Give the id in `calls` up to which the group knows streams; None: there is no group."""

    async def begin(self, cursor: str, names: Sequence[StreamName]) -> str:
        """Found the group at a cursor, knowing these; give the cursor that now stands.

        No effect where the group is there.
        """

    async def enlist(
        self, after: str, upto: str, names: Sequence[StreamName], lives: Sequence[str]
    ) -> str:
        """Add the streams that begin between two ids of `calls`; give the cursor that now stands.

        No effect unless the cursor is at `after`: another worker has read on. `lives`
        are ids of streams that were finished as lost, and have a true end now: they are
        given again from their positions.
        """

    async def claim(self, count: int) -> list[Claim]:
        """Take up to `count` streams that nobody holds, the oldest first.

        One whose lease ran out is not taken unless workers could have renewed it:
        not before a whole lease after a time in which none reached the state.
        """

    async def hold(self, positions: Mapping[StreamName, str]) -> frozenset[StreamName]:
        """Renew leases and note what is acknowledged; return the streams that are another's now.

        A position behind the noted one is passed over: calls of one worker may overtake each other.
        """

    async def finish(self, name: StreamName, position: str, *, is_lost: bool = False) -> None:
        """Be done with a stream of ours. No effect where it is another's now."""

    async def release(self, name: StreamName, position: str, *, has_failed: bool = False) -> bool:
        """Let another worker go on behind `position`; False when nobody is to try again.

        One that has failed is given after FAILED_SECONDS, at most MAX_FAILURES times.
        """
