"""One writer between calls and a part of the broker.

Streams put entries into bounded queues and never wait. The writer takes them
in turn. Order within a stream is that of queueing.
"""

import asyncio
from collections import deque

from app.pubsub.base import OpenStream, Write
from app.pubsub.delivery import Delivery
from app.pubsub.limits import OutboxLimits
from app.pubsub.queue import StreamQueue


class Lane:
    """Own the queues of some streams and write them, one batch at a time."""

    def __init__(self, delivery: Delivery, limits: OutboxLimits) -> None:
        self._delivery = delivery
        self._limits = limits
        self._control: deque[Write] = deque()
        self._dirty: list[StreamQueue] = []
        self._must_look = False
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    def open(self, queue: StreamQueue, opening: OpenStream) -> None:
        """Begin to write a queue, after replacing what stood under its id."""
        self._delivery.expect(queue, opening)
        self.put(opening)

    def put(self, write: Write) -> None:
        """Queue a write that is no audio."""
        self._control.append(write)
        self._rouse()

    def schedule(self, queue: StreamQueue) -> None:
        """Note that a queue has something to take."""
        if queue.opened and not queue.scheduled:
            queue.scheduled = True
            if not self._dirty:
                self._rouse()
            self._dirty.append(queue)

    @property
    def waiting(self) -> int:
        """Count the writes that wait and are no audio."""
        return len(self._control)

    @property
    def failing_seconds(self) -> float:
        """Tell for how long the broker has taken nothing; 0 when it does."""
        return self._delivery.failing_seconds

    @property
    def is_idle(self) -> bool:
        """Tell whether everything queued has been written."""
        return self._idle.is_set()

    async def wait_until_idle(self) -> None:
        """Wait until everything queued has been written."""
        await self._idle.wait()

    def give_up(self, reason: str) -> None:
        """Drop all audio that waits, and count it under `reason`: for a last resort."""
        self._delivery.give_up(reason)

    def look(self) -> None:
        """Have it seen that what was written last still stands: nobody else would notice.

        What is written next finds it out by itself.
        """
        if self._delivery.has_promises:
            self._must_look = True
            self._wake.set()

    async def run(self) -> None:
        """Write batches until cancelled."""
        while True:
            await self._wake.wait()
            batch = self._next_batch()
            if batch:
                await self._delivery.deliver(batch)
                if self._dirty:
                    await asyncio.sleep(0)  # a broker in this process never makes it wait
            elif self._must_look:
                await self._delivery.keep_promises()
            else:
                self._wake.clear()
                self._idle.set()
            self._must_look = False

    def _rouse(self) -> None:
        self._idle.clear()
        self._wake.set()

    def _next_batch(self) -> list[Write]:
        """Take what is to be written now: what opens and announces first, then audio in turn."""
        limits = self._limits
        batch = [
            self._control.popleft() for _ in range(min(limits.batch_entries, len(self._control)))
        ]
        dirty, self._dirty = self._dirty, []
        for place, queue in enumerate(dirty):
            room = limits.batch_entries - len(batch)
            if room <= 0:
                # Who had no turn comes first.
                self._dirty = dirty[place:] + self._dirty
                break
            batch += queue.take(min(room, limits.entries_per_stream))
            if queue.has_waiting:
                self._dirty.append(queue)
            else:
                queue.scheduled = False
        return batch
