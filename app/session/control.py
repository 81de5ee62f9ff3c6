"""Commands of workers, read once for all streams of a process and handed to their own."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final

from app.errors import BrokerError
from app.metrics import Metrics
from app.pubsub.base import Field
from app.pubsub.control import BEGINNING, ControlFeed

log = logging.getLogger(__name__)

# How long one read waits. A stream that ended is heard for no longer than LATE_SECONDS.
WAIT_SECONDS: Final = 5.0
LATE_SECONDS: Final = 10.0
RETRY_SECONDS: Final = 0.2
# Commands that were read are taken out so often.
DROP_SECONDS: Final = 1.0
# Taken in one turn of the event loop: a few ms at the most.
AT_A_TIME: Final = 20

# What takes an entry: its id and its fields.
TakeEntry = Callable[[str, Mapping[str, Field]], None]


class ControlDesk:
    """Hand each command to its stream, in order and once; `clock` gives monotonic seconds.

    A place is kept for each stream, so an outage of the broker loses nothing and
    repeats nothing.
    """

    def __init__(self, feed: ControlFeed, metrics: Metrics, clock: Callable[[], float]) -> None:
        self._feed = feed
        self._metrics = metrics
        self._clock = clock
        self._takers: dict[str, TakeEntry] = {}
        self._places: dict[str, str] = {}
        self._over: dict[str, float] = {}
        self._dirty: set[str] = set()
        self._is_failing = False

    def listen(self, stream: str, take: TakeEntry) -> None:
        """Hand a stream's commands to `take`, from the first that was ever written."""
        self._takers[stream] = take
        self._places[stream] = BEGINNING
        self._over.pop(stream, None)
        self._feed.wake()

    def end(self, stream: str, take: TakeEntry) -> None:
        """Hand to `take` what still comes for a stream that has ended, for LATE_SECONDS."""
        if stream in self._takers:
            self._takers[stream] = take
            self._over[stream] = self._clock() + LATE_SECONDS

    def forget(self, stream: str) -> None:
        """Read no more commands of a stream: its id is another's."""
        for kept in (self._over, self._takers, self._places):
            kept.pop(stream, None)
        self._dirty.discard(stream)

    async def run(self) -> None:
        """Read until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._read_all())
            tasks.create_task(self._drop_all())

    async def _read_all(self) -> None:
        while True:
            try:
                entries = await self._feed.read(dict(self._places), WAIT_SECONDS)
                for number, entry in enumerate(entries, 1):
                    self._hand_over(entry.stream, entry.entry_id, entry.fields)
                    if number % AT_A_TIME == 0:
                        await asyncio.sleep(0)
                self._is_failing = False
                self._let_go_of_ended()
            except BrokerError as error:
                self._note_failure(error)
                await asyncio.sleep(RETRY_SECONDS)

    def _hand_over(self, stream: str, entry_id: str, fields: Mapping[str, Field]) -> None:
        take = self._takers.get(stream)
        if take is None:
            return
        self._places[stream] = entry_id
        self._dirty.add(stream)
        try:
            take(entry_id, fields)
        except Exception:  # one stream's fault must not silence the others
            log.exception("A command to stream %s failed", stream)

    def _let_go_of_ended(self) -> None:
        now = self._clock()
        for stream in [stream for stream, until in self._over.items() if until <= now]:
            self.forget(stream)

    async def _drop_all(self) -> None:
        """Take out what was read, beside the reading: audio in Redis is of no more use then."""
        while True:
            await asyncio.sleep(DROP_SECONDS)
            while self._dirty:
                stream = self._dirty.pop()
                with suppress(BrokerError):  # the reader tells of it, and the key expires
                    await self._feed.drop(stream, self._places[stream])

    def _note_failure(self, error: BrokerError) -> None:
        self._metrics.broker_errors.labels(error.kind).inc()
        if not self._is_failing:
            self._is_failing = True
            log.warning("[server] ⚠️ Commands of workers are not read: %s", error)
