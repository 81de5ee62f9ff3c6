"""The port of commands back into calls: `control:{STREAM}`, read for a whole process."""

from collections.abc import Mapping, Sequence
from typing import Final, Protocol

import msgspec

from app.pubsub.base import Field

# Where reading a stream begins: before all that stands in it.
BEGINNING: Final = "0-0"
# Of one stream at a time; each may have a megabyte.
READ_COUNT: Final = 8


class ControlEntry(msgspec.Struct, frozen=True):
    """One entry of `control:{STREAM}`, as it was written."""

    stream: str
    entry_id: str
    fields: Mapping[str, Field]


class ControlFeed(Protocol):
    """Read the commands of many streams at once; used by one reader."""

    async def open(self) -> None:
        """Make ready; does not fail when the broker is away."""

    async def close(self) -> None:
        """Let go of every connection."""

    async def read(self, positions: Mapping[str, str], seconds: float) -> Sequence[ControlEntry]:
        """Give what stands behind these places, by stream; wait for some, `seconds` at most.

        `positions` stay as they are meanwhile. Of each stream in order, and not all of it
        at once. Gives nothing when `wake`
        was called, or the time is over.

        Raises:
            BrokerError: the broker cannot be asked; nothing is lost by it.
        """

    def wake(self) -> None:
        """End the waiting of `read`, now or the next time: what is to be read has changed."""

    async def drop(self, stream: str, entry_id: str) -> None:
        """Forget a stream's entries up to this one; no effect on what is gone.

        Raises:
            BrokerError: they may still be there.
        """
