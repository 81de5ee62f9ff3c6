"""The captures port: what peers send in live calls, for whoever records it at the wire.

Who records asks for calls, and renews that by each asking. Who holds streams asks what is
asked for, and puts there what comes, for as long as that is so. Nothing is kept for long:
whoever reads too slowly finds a gap in the messages' numbers. Every method raises
StoreUnavailable when the store cannot be reached in time.
"""

from collections.abc import Collection, Sequence
from typing import Any, Final, Protocol

import msgspec

# In place of a business or a call: whichever it is.
ANY: Final = "*"
# A recorder that dies is asked for so long after.
ASK_SECONDS: Final = 5.0
# What is put is kept so long after the last of it, and no more than so many batches.
KEEP_SECONDS: Final = 60.0
MAX_BATCHES: Final = 200
# Recorders that ask at once; the latest count.
MAX_ASKED: Final = 100
# Streams that began within KEEP_SECONDS; beyond that the oldest are forgotten.
MAX_BEGUN: Final = 10_000


class Asked(msgspec.Struct, frozen=True):
    """Calls that somebody records: one, a business's, or all."""

    business_id: str = ANY
    call_sid: str = ANY

    def takes(self, business_id: str, call_sid: str) -> bool:
        """Tell whether a call is meant."""
        return self.business_id in (ANY, business_id) and self.call_sid in (ANY, call_sid)


class Message(msgspec.Struct, frozen=True, array_like=True):
    """One message as it came, secrets hidden, and when: ms after the capture began."""

    at_ms: int
    raw: Any  # msgspec reads no union of the two

    @property
    def message(self) -> str | bytes:
        """Give it: text, or a binary frame as bytes."""
        found: str | bytes = self.raw
        return found


class Captured(msgspec.Struct, frozen=True):
    """A stream whose messages are put there, and whose it is."""

    stream_sid: str
    business_id: str


class Opening(msgspec.Struct, frozen=True):
    """A stream whose messages are put there from now on: whose it is, and how it began.

    `started_at` is its START_MS, `began_at` (Unix ms) when its first message came.
    `messages` are those that opened it, its `start` the last. With `from_first` message
    number 0 is the first that its peer ever sent, and `messages` come again among them.
    """

    stream_sid: str
    call_sid: str
    business_id: str
    carrier: str
    query: dict[str, str]
    started_at: int
    began_at: int
    messages: list[Message]
    from_first: bool

    @property
    def captured(self) -> Captured:
        """Return whose messages follow."""
        return Captured(self.stream_sid, self.business_id)


class Batch(msgspec.Struct, frozen=True):
    """Messages in order, the first of this number; `ended`: no more will come.

    A message that was not taken in has a number all the same.
    """

    first: int
    messages: list[Message]
    ended: bool = False

    @property
    def after(self) -> int:
        """Give the number of the message that follows."""
        return self.first + len(self.messages)


class Captures(Protocol):
    """Bring those who record calls and those who hold them together."""

    async def open(self) -> None:
        """Make ready; does not fail when nothing can be reached."""

    async def close(self) -> None:
        """Let go of every connection."""

    async def ask(self, asked: Asked) -> None:
        """Ask for calls' messages, for ASK_SECONDS more."""

    async def asked(self) -> Collection[Asked]:
        """Tell a holder of streams what is asked for."""

    async def begin(self, opening: Opening) -> bool:
        """Begin to put a stream's messages there, in place of earlier ones of its business.

        Returns False, and changes nothing, where another business's are there.
        """

    async def put(self, captured: Captured, batch: Batch) -> bool:
        """Put messages of a stream there.

        Returns False where none of its business have begun, or they are gone.
        """

    async def begun(self, after: int | None) -> tuple[int, list[str]]:
        """Give the store's time, Unix ms, and the streams that have begun after such a time.

        After None, none have. A stream may be named that has begun again since.
        """

    async def opening(self, stream_sid: str) -> Opening | None:
        """Tell how a stream's capture began; None where none is there."""

    async def batches(
        self, captured: Captured, after: str, count: int
    ) -> Sequence[tuple[str, Batch]]:
        """Return up to `count` batches that follow the id `after` (empty: from the first).

        None where the id is another business's by now.
        """


def capture_keys(stream_sid: str) -> tuple[str, str]:
    """Name the keys that hold a stream's messages, and how they began."""
    return f"capture:{{{stream_sid}}}", f"capture:{{{stream_sid}}}:opening"
