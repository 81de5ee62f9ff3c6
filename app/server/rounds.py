"""How live streams' sockets are read: all of them together, every few milliseconds."""

import asyncio
import select
from contextlib import suppress
from typing import Final, Protocol

# What the kernel has by then is read and parsed in one go; a frame waits for half of
# it on average. Why, and the figures: docs/decisions/0007.
ROUND_SECONDS: Final = 0.005


class Reader(Protocol):
    """A socket that is read in rounds."""

    def take_turn(self) -> None:
        """Read it, and take what came; must not raise."""


class Rounds:
    """Let all sockets of which there is something to read take their turns, one by one.

    The event loop must not read them meanwhile: it wakes up once for all of them,
    and not for each. `are_possible` where the platform has epoll(7).
    """

    are_possible = hasattr(select, "epoll")

    def __init__(self, seconds: float = ROUND_SECONDS) -> None:
        self._seconds = seconds
        self._readers: dict[int, Reader] = {}
        self._poll: select.epoll | None = None
        self._next: asyncio.TimerHandle | None = None

    def join(self, descriptor: int, reader: Reader) -> None:
        """Have a socket take its turn in every round from now on."""
        if self._poll is None:
            self._poll = select.epoll()
        self._poll.register(descriptor, select.EPOLLIN)
        self._readers[descriptor] = reader
        if self._next is None:
            self._wait()

    def leave(self, descriptor: int, reader: Reader) -> None:
        """Leave a socket out from now on; no effect when it is out."""
        # Once it is closed its number may be another's, and the kernel has let go of it.
        if self._poll is not None and self._readers.get(descriptor) is reader:
            del self._readers[descriptor]
            with suppress(OSError):
                self._poll.unregister(descriptor)

    def _wait(self) -> None:
        self._next = asyncio.get_running_loop().call_later(self._seconds, self._begin)

    def _begin(self) -> None:
        self._next = None
        if not self._readers or self._poll is None:
            return
        self._wait()
        for descriptor, _ in self._poll.poll(0, len(self._readers)):
            reader = self._readers.get(descriptor)
            if reader is not None:
                reader.take_turn()
