"""Commands into calls within one process."""

import asyncio
from collections.abc import Mapping, Sequence

from app.pubsub.control import READ_COUNT, ControlEntry
from app.pubsub.memory import MemoryPubSub


class MemoryControl:
    """Read what `MemoryPubSub.command` has taken."""

    def __init__(self, pubsub: MemoryPubSub) -> None:
        self._pubsub = pubsub
        self._woken = False

    async def open(self) -> None:
        """Do nothing; there is nothing to connect to."""

    async def close(self) -> None:
        """Do nothing; there is nothing to let go of."""

    async def read(self, positions: Mapping[str, str], seconds: float) -> Sequence[ControlEntry]:
        """Give what stands behind these places; see `ControlFeed.read`."""
        deadline = asyncio.get_running_loop().time() + seconds
        while True:
            found = [
                ControlEntry(stream, entry_id, fields)
                for stream, after in positions.items()
                for entry_id, fields in self._pubsub.commands(stream, after, READ_COUNT)
            ]
            left = deadline - asyncio.get_running_loop().time()
            if found or self._woken or left <= 0:
                self._woken = False
                return found
            await self._pubsub.wait_for_command(left)

    def wake(self) -> None:
        """End the waiting of `read`; see `ControlFeed.wake`."""
        self._woken = True
        self._pubsub.note_command()

    async def drop(self, stream: str, entry_id: str) -> None:
        """Forget entries that were read; see `ControlFeed.drop`."""
        self._pubsub.forget_commands(stream, entry_id)
