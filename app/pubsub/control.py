"""The port of commands back into calls: `control:{STREAM}`, read for a whole process."""

from collections.abc import Mapping, Sequence
from typing import Final, Protocol

import msgspec

from app.pubsub.base import Field, control_key, record_key

# Where reading a stream begins: before all that stands in it.
BEGINNING: Final = "0-0"
# Of one stream at a time; each may have a megabyte.
READ_COUNT: Final = 8


# NOMKSTREAM: a stream that is over leaves no key behind. One that has started again
# under the same id is another call.
_WRITE: Final = """
local record = redis.call('HMGET', KEYS[2], 'startedAt', 'endedAt', 'businessId')
if record[1] ~= ARGV[1] or record[2] then return false end
if ARGV[2] ~= '' and record[3] ~= ARGV[2] then return false end
return redis.call('XADD', KEYS[1], 'NOMKSTREAM', '*', unpack(ARGV, 3))
"""


def writing(
    stream: str, started_at: int, fields: Mapping[str, Field], business_id: str = ""
) -> tuple[Field, ...]:
    """Return the request to Redis that writes a command into the stream that began then.

    It is answered with the entry's id; with nothing where that stream is over, or is not of
    the business that is named.
    """
    parts = [part for pair in fields.items() for part in pair]
    keys = control_key(stream), record_key(stream)
    return ("EVAL", _WRITE, len(keys), *keys, str(started_at), business_id, *parts)


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
