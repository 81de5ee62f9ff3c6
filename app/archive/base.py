"""The archive port: what is kept of calls, to be read, listened to and erased.

Every method raises StoreUnavailable when what keeps it cannot be reached in time.
"""

import base64
import binascii
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from app.archive.calls import Call, CallState, CallSummary
from app.errors import AmbiguousCall, FieldsInvalid
from app.events import Entry
from app.pubsub.records import KeptStream, StoredRecord
from app.store.captures import capture_keys

# A page is made of so many calls at most; one that a filter leaves nearly empty has more after it.
MAX_PAGE = 200
MAX_EXAMINED = 2000

Entries = Sequence[tuple[str, Entry]]


@dataclass(frozen=True, slots=True)
class CallFilter:
    """Which calls are wanted; what is empty or None wants all.

    `from_number` and `to_number` are any part of the number; `since` (inclusive)
    and `until` (exclusive) are Unix ms, of a call's first event.
    """

    state: CallState | None = None
    from_number: str = ""
    to_number: str = ""
    since: int | None = None
    until: int | None = None

    def takes(self, call: CallSummary) -> bool:
        """Tell whether a call is wanted; its time apart."""
        return (
            (self.state is None or call.state is self.state)
            and self.from_number in call.from_number
            and self.to_number in call.to_number
        )


@dataclass(frozen=True, slots=True)
class CallPage:
    """Calls, the latest first; `next` is the cursor of the page after, or None."""

    calls: tuple[CallSummary, ...]
    next: str | None


@dataclass(frozen=True, slots=True)
class Extent:
    """What stands of a stream's audio: the first and the last id, and how many entries."""

    first_id: str
    last_id: str
    entries: int


@dataclass(frozen=True, slots=True)
class Erased:
    """What was erased of a call: how many of each kind, and their bytes where it is kept."""

    counts: dict[str, int] = field(default_factory=dict)
    bytes: dict[str, int] = field(default_factory=dict)

    def add_all(self, other: "Erased") -> None:
        """Count all that another has."""
        for kind, count in other.counts.items():
            self.add(kind, count, other.bytes.get(kind, 0))

    def add(self, kind: str, count: int, size: int) -> None:
        """Count more of a kind."""
        self.counts[kind] = self.counts.get(kind, 0) + count
        self.bytes[kind] = self.bytes.get(kind, 0) + size


Witness = Callable[[Erased], Awaitable[None]]


def only_owner(owners: Collection[str]) -> str | None:
    """Return whose call it is, of all businesses that have a call of one id.

    Raises:
        AmbiguousCall: there are several.
    """
    if len(owners) > 1:
        raise AmbiguousCall(owners)
    return next(iter(owners), None)


class Archive(Protocol):
    """Read and erase what is kept of calls."""

    async def open(self) -> None:
        """Make ready; does not fail when nothing can be reached."""

    async def close(self) -> None:
        """Let go of every connection."""

    async def calls(
        self, business_id: str | None, wanted: CallFilter, cursor: str = "", limit: int = 50
    ) -> CallPage:
        """Give a page of a business's calls, or with None of everybody's.

        `limit` is at most MAX_PAGE.

        Raises:
            FieldsInvalid: the cursor is none that was given.
        """

    async def call(self, business_id: str, call_sid: str) -> Call:
        """Give a business's call.

        Raises:
            NotThere: it has no such call, or none that is still kept.
        """

    async def owner_of(self, call_sid: str) -> str | None:
        """Name the business whose call this is, as far as calls of everybody are listed.

        Raises:
            AmbiguousCall: calls of several businesses have this id.
        """

    async def record(self, stream_sid: str) -> StoredRecord | None:
        """Give what a stream's record says, while it is kept."""

    async def extent(self, stream: KeptStream) -> Extent | None:
        """Return what stands of a stream's audio; None where nothing does.

        This and each read below checks whose the id is: it finds nothing once that is
        another business, or another stream of the same.
        """

    async def entries(self, stream: KeptStream, after: str, count: int) -> Entries:
        """Give up to `count` entries that follow the id `after` (`0-0`: from the first)."""

    async def latest(self, stream: KeptStream, count: int) -> Entries:
        """Give the last `count` entries, in order."""

    def follow(self, stream: KeptStream, after: str, count: int) -> AsyncGenerator[Entries, None]:
        """Give what follows the id `after`, as it comes, up to `count` entries at once.

        Holds a connection of its own until it is closed. Gives an empty sequence
        about once a second where nothing comes. Ends only when the id is another stream's.
        """

    async def keep_survey(self, stream: KeptStream, survey: bytes) -> None:
        """Keep what was found out of a stream's audio for as long as that is kept."""

    async def kept_survey(self, stream: KeptStream) -> bytes | None:
        """Give what was kept of a stream's audio."""

    async def erase_stream(self, business_id: str, call_sid: str, stream_sid: str) -> Erased:
        """Erase all that is kept of a stream, where it is that call's, even one that is live.

        For what is left of a call whose log is gone.
        """

    async def erase(
        self, business_id: str, call_sid: str, witness: Witness, *, even_live: bool = False
    ) -> Erased:
        """Erase all that is kept of a call that is over, or of any with `even_live`.

        `witness` is told what was erased before the call itself is forgotten: where
        it fails, the call is still there, to be erased again.

        Raises:
            NotThere: there is no such call.
            CallIsLive: it is not over.
        """


def write_cursor(at: int, member: str) -> str:
    """Write where a page ended: the last call's time and name."""
    return base64.urlsafe_b64encode(f"{at} {member}".encode()).decode().rstrip("=")


def read_cursor(cursor: str) -> tuple[int, str]:
    """Read where a page ended.

    Raises:
        FieldsInvalid: it is no cursor.
    """
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        at, _, member = base64.b64decode(padded, b"-_", validate=True).decode().partition(" ")
        return int(at), member
    except (binascii.Error, ValueError):
        problem = "is not a cursor; take the one that the page before gave as `next`"
        raise FieldsInvalid({"cursor": problem}) from None


def captures_of(stream_sid: str) -> tuple[str, ...]:
    """Name the keys that hold captures of a stream."""
    return capture_keys(stream_sid)
