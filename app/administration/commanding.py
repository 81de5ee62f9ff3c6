"""Commands into live calls, written by the service itself."""

from typing import Final, Protocol

from app.events import HeldStream
from app.playback.commands import Command, command_fields
from app.pubsub.base import control_key
from app.pubsub.control import writing
from app.pubsub.memory import MemoryPubSub
from app.pubsub.redis_pubsub import owner_key
from app.store.reach import RedisReach

# KEYS: control:{STREAM}, owner:{STREAM}; ARGV: `START_MS BUSINESS`, names and values. A
# stream of version 0.1 has no owner there.
_WRITE: Final = """
local owner = redis.call('GET', KEYS[2])
if owner and owner ~= ARGV[1] then return false end
return redis.call('XADD', KEYS[1], '*', unpack(ARGV, 2))
"""


class Commands(Protocol):
    """Write commands into live streams."""

    async def open(self) -> None:
        """Make ready; does not fail when Redis is away."""

    async def close(self) -> None:
        """Let go of every connection."""

    async def write(self, held: HeldStream, command: Command) -> bool:
        """Write a command; False where the stream is over.

        Raises:
            StoreUnavailable: Redis cannot be reached; the command may be done or not.
        """


class RedisCommands(RedisReach):
    """Write commands beside streams that Redis keeps."""

    async def write(self, held: HeldStream, command: Command) -> bool:
        """See `Commands.write`."""
        fields = command_fields(command)
        asked = writing(held.call.stream_sid, held.started_at, fields, held.call.business_id)
        return await self._ask(*asked) is not None


class ChannelCommands(RedisReach):
    """Write commands beside channels, which keep no record of what began when."""

    async def write(self, held: HeldStream, command: Command) -> bool:
        """See `Commands.write`."""
        parts = [part for pair in command_fields(command).items() for part in pair]
        keys = control_key(held.call.stream_sid), owner_key(held.call.stream_sid)
        whose = f"{held.started_at} {held.call.business_id}"
        return await self._ask("EVAL", _WRITE, len(keys), *keys, whose, *parts) is not None


class MemoryCommands:
    """Write commands within one process."""

    def __init__(self, pubsub: MemoryPubSub) -> None:
        self._pubsub = pubsub

    async def open(self) -> None:
        """Do nothing; there is nothing to connect to."""

    async def close(self) -> None:
        """Do nothing; there is nothing to let go of."""

    async def write(self, held: HeldStream, command: Command) -> bool:
        """See `Commands.write`."""
        record = self._pubsub.known(held.call.stream_sid)
        if record.get("businessId", held.call.business_id) != held.call.business_id:
            return False
        entry = self._pubsub.command(held.call.stream_sid, command_fields(command))
        return entry is not None
