"""One reader for all that a worker follows: many streams over one connection."""

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from typing import Any, Final

from app.redis_url import RedisUrl, Topology
from app.topology import CONNECTION_ERRORS, AnyRedis, close, connect

log = logging.getLogger(__name__)

Entries = Sequence[tuple[str, dict[str, bytes]]]

# What is followed anew joins the next read: so late at most.
BLOCK_MS: Final = 100
# Entries of many streams that come at almost the same time are read together.
ROUND_SECONDS: Final = 0.01
# A cluster cannot wait for keys of several slots at once, so its streams are asked in turns.
CLUSTER_ROUND_SECONDS: Final = 0.05
CLUSTER_AT_ONCE: Final = 8
CONNECT_SECONDS: Final = 2.0
ANSWER_SECONDS: Final = 5.0
RETRY_FIRST_SECONDS: Final = 0.1
RETRY_LONGEST_SECONDS: Final = 2.0
# Of all streams together in one read, and waiting for one follower: four seconds of frames.
READ_ENTRIES: Final = 500
FEWEST_ENTRIES: Final = 10
MAX_WAITING: Final = 200


class Inbox:
    """What was read of one stream and is not taken yet; `after` is the last id read."""

    def __init__(self, key: str, after: str, changed: asyncio.Event) -> None:
        self.key = key
        self.after = after
        self._chunks: deque[Entries] = deque()
        self._count = 0
        self._something = asyncio.Event()
        self._changed = changed

    @property
    def has_room(self) -> bool:
        """Tell whether more may be read: whoever is slow waits alone."""
        return self._count < MAX_WAITING

    def put(self, entries: Entries) -> None:
        """Add what one read gave."""
        self.after = entries[-1][0]
        self._chunks.append(entries)
        self._count += len(entries)
        self._something.set()

    async def take(self, seconds: float) -> Entries:
        """Give what one read gave, the oldest first; nothing when none comes in time."""
        if not self._chunks:
            self._something.clear()
            try:
                async with asyncio.timeout(seconds):
                    await self._something.wait()
            except TimeoutError:
                return ()
        taken = self._chunks.popleft()
        had_room = self.has_room
        self._count -= len(taken)
        if self.has_room and not had_room:
            self._changed.set()
        return taken


class Reader:
    """Follow streams by one connection, across lost ones; a cluster's by a few a node.

    A stream is read from where it was, however long the broker was away.
    """

    def __init__(self, where: RedisUrl) -> None:
        self._where = where
        self._is_cluster = where.topology is Topology.CLUSTER
        # In the order in which they were begun.
        self._inboxes: dict[Inbox, None] = {}
        self._changed = asyncio.Event()
        self._few = asyncio.Semaphore(CLUSTER_AT_ONCE)

    def follow(self, key: str, after: str) -> Inbox:
        """Begin to read what follows the id `after`."""
        inbox = Inbox(key, after, self._changed)
        self._inboxes[inbox] = None
        self._changed.set()
        return inbox

    def drop(self, inbox: Inbox) -> None:
        """Read no more of it."""
        self._inboxes.pop(inbox, None)

    async def run(self) -> None:
        """Read until cancelled."""
        pause = RETRY_FIRST_SECONDS
        while True:
            client = connect(
                self._where,
                connect_seconds=CONNECT_SECONDS,
                max_connections=CLUSTER_AT_ONCE + 1 if self._is_cluster else 1,
            )
            try:
                while True:
                    await self._round(client)
                    if pause > RETRY_FIRST_SECONDS:
                        log.warning("[consumer] Redis is read again")
                    pause = RETRY_FIRST_SECONDS
            except CONNECTION_ERRORS as error:
                if pause == RETRY_FIRST_SECONDS:
                    log.warning("[consumer] Redis cannot be read: %s", type(error).__name__)
            finally:
                await close(client)
            await asyncio.sleep(pause)
            pause = min(RETRY_LONGEST_SECONDS, pause * 2)

    async def _round(self, client: AnyRedis) -> None:
        """Read once of whatever has room."""
        self._changed.clear()
        # Where an id has started again, whoever came last reads it: the other's audio is gone.
        latest = {inbox.key: inbox for inbox in self._inboxes}
        wanted = [inbox for inbox in latest.values() if inbox.has_room]
        if not wanted:
            await self._changed.wait()
            return
        count = max(FEWEST_ENTRIES, READ_ENTRIES // len(wanted))
        if self._is_cluster:
            await asyncio.gather(*(self._read_one(client, inbox, count) for inbox in wanted))
            await asyncio.sleep(CLUSTER_ROUND_SECONDS)
            return
        command = "XREAD", "COUNT", count, "BLOCK", BLOCK_MS, "STREAMS"
        places = [inbox.key for inbox in wanted] + [inbox.after for inbox in wanted]
        if self._deliver(await self._ask(client, *command, *places), wanted):
            await asyncio.sleep(ROUND_SECONDS)

    async def _read_one(self, client: AnyRedis, inbox: Inbox, count: int) -> None:
        async with self._few:
            asked = "XREAD", "COUNT", count, "STREAMS", inbox.key, inbox.after
            self._deliver(await self._ask(client, *asked), [inbox])

    @staticmethod
    async def _ask(client: AnyRedis, *command: str | int) -> Any:
        async with asyncio.timeout(ANSWER_SECONDS):
            return await client.execute_command(*command)

    @staticmethod
    def _deliver(answer: Any, wanted: Sequence[Inbox]) -> bool:
        """Sort an answer into the inboxes; tell whether there was anything."""
        inboxes = {inbox.key: inbox for inbox in wanted}
        for key, found in answer or ():
            inboxes[key.decode()].put(
                [
                    (entry_id.decode(), {name.decode(): value for name, value in fields.items()})
                    for entry_id, fields in found
                ]
            )
        return bool(answer)
