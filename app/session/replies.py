"""What a peer is answered while its stream runs: queued here, sent by a task of its own."""

import asyncio
from collections import deque
from typing import Protocol

# A peer that leaves this many answers unread does not read at all.
MAX_WAITING = 1000


class Sender(Protocol):
    """Send one text message; waits while the peer does not read."""

    async def send(self, text: str) -> None:
        """Send it."""


class Replies:
    """Answers on their way to one peer, in order and bounded."""

    def __init__(self) -> None:
        self._waiting: deque[str] = deque()
        self._some = asyncio.Event()

    def put(self, text: str) -> bool:
        """Queue an answer; False when the peer has left too many unread."""
        if len(self._waiting) >= MAX_WAITING:
            return False
        self._waiting.append(text)
        self._some.set()
        return True

    async def send_all(self, sender: Sender) -> None:
        """Send answers as they come, until cancelled."""
        while True:
            await self._some.wait()
            await self.send_waiting(sender)

    async def send_waiting(self, sender: Sender) -> None:
        """Send what waits now."""
        while self._waiting:
            await sender.send(self._waiting[0])
            self._waiting.popleft()
        self._some.clear()
