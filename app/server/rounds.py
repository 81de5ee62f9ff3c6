"""When live streams' sockets are parsed: together, every few milliseconds."""

import asyncio
from typing import Final, Protocol

# Two thirds of a live call's CPU went into waking up for its frames one by one, with
# cold caches: docs/decisions/0007. It costs a frame 2.5 ms on average.
ROUND_SECONDS: Final = 0.005


class Reader(Protocol):
    """A socket of which something was read, and not parsed."""

    def take_turn(self) -> None:
        """Parse some of it; must not raise."""


class Rounds:
    """Give all sockets that were read their turns, one after the other, in one go."""

    def __init__(self, seconds: float = ROUND_SECONDS) -> None:
        self._seconds = seconds
        self._waiting: list[Reader] = []

    def join(self, reader: Reader) -> None:
        """Have a reader take its turn in the next round."""
        if not self._waiting:
            asyncio.get_running_loop().call_later(self._seconds, self._begin)
        self._waiting.append(reader)

    def _begin(self) -> None:
        readers, self._waiting = self._waiting, []
        for reader in readers:
            reader.take_turn()
