"""The one writer between every call and the broker.

Streams put entries into bounded queues and never wait. The writer takes them
in turn, writes batches, and tries again until the broker has them. A batch
whose reply was lost is sent again too: entries that stand meet their own ids,
and are then compared by content. Order within a stream is that of queueing.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from app.errors import BrokerError, BrokerRefused
from app.events import AudioEntry, AudioReceipt, EndEntry, LifecycleEvent, StreamRecord
from app.metrics import Metrics
from app.pubsub.base import (
    Announce,
    Append,
    CloseStream,
    OpenStream,
    Outcome,
    PubSub,
    Write,
)
from app.pubsub.queue import ByteBudget, StreamQueue

log = logging.getLogger(__name__)

BROKER_REJECTED = "broker_rejected"
SMALLEST_BATCH = 8


@dataclass(frozen=True, slots=True)
class OutboxLimits:
    """Bound what waits, how much is written at once, and how long between tries.

    `buffer_seconds` of audio wait per stream and `buffer_bytes` in the process.
    `max_events` lifecycle events have a budget of their own.
    """

    buffer_seconds: float = 30.0
    buffer_bytes: int = 256 * 1024 * 1024
    max_events: int = 10_000
    batch_entries: int = 512
    entries_per_stream: int = 64
    # 5 ms of collecting halves the writes, and costs 3 ms of median latency.
    flush_seconds: float = 0.005
    retry_first_seconds: float = 0.05
    retry_longest_seconds: float = 0.5
    # The shortest frame any carrier is known to send is 10 ms: 100 entries a second.
    entries_per_second: int = 100


DEFAULT_LIMITS = OutboxLimits()


class Outbox:
    """Own the queues of all streams and the task that writes them.

    `run` is the writer; its caller owns the task. `clock` gives monotonic
    seconds, the one that stamps frames; `jitter` a number in [0, 1).
    """

    def __init__(
        self,
        pubsub: PubSub,
        metrics: Metrics,
        *,
        clock: Callable[[], float],
        jitter: Callable[[], float],
        limits: OutboxLimits = DEFAULT_LIMITS,
    ) -> None:
        self._pubsub = pubsub
        self._metrics = metrics
        self._clock = clock
        self._jitter = jitter
        self._limits = limits
        self._budget = ByteBudget(limits.buffer_bytes)
        self._control: deque[Write] = deque()
        self._dirty: deque[StreamQueue] = deque()
        self._queues: dict[str, StreamQueue] = {}
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._failing_since: float | None = None
        self._batch_limit = limits.batch_entries

    # ------------------------------------------------------- the sessions' side

    def queue(
        self, stream: str, start_ms: int, *, bytes_per_second: int, tracks: int, retained: int
    ) -> StreamQueue:
        """Make a stream's queue. Nothing is written before `open_stream`.

        `bytes_per_second` and `tracks` are of the published audio; `retained`
        is how many entries the broker keeps.
        """
        seconds = self._limits.buffer_seconds
        return StreamQueue(
            stream,
            start_ms,
            max_bytes=int(seconds * bytes_per_second * tracks),
            max_waiting=int(seconds * self._limits.entries_per_second * tracks),
            retained_entries=retained,
            budget=self._budget,
            on_dirty=self._schedule,
        )

    def open_stream(self, queue: StreamQueue, record: StreamRecord, expire_seconds: int) -> None:
        """Begin to write a queue, after replacing what stood under its id."""
        self._queues[queue.stream] = queue
        self._put_control(OpenStream(queue.stream, record, expire_seconds))

    def close_stream(
        self, stream: str, ended_at: int, receipt: AudioReceipt, expire_seconds: int
    ) -> None:
        """Complete a stream's record; call it when its queue is flushed."""
        self._put_control(CloseStream(stream, ended_at, receipt, expire_seconds))

    def announce(self, event: LifecycleEvent) -> None:
        """Queue a lifecycle event."""
        self._put_control(Announce(event))

    @property
    def takes_events(self) -> bool:
        """Tell whether there is budget for the lifecycle events of a new call."""
        return len(self._control) < self._limits.max_events

    @property
    def queued_bytes(self) -> int:
        """Count the audio that waits, in bytes."""
        return self._budget.used

    @property
    def failing_seconds(self) -> float:
        """Tell for how long the broker has taken nothing; 0 when it does."""
        return 0.0 if self._failing_since is None else self._clock() - self._failing_since

    async def wait_until_idle(self) -> None:
        """Wait until everything queued has been written."""
        await self._idle.wait()

    def give_up(self, reason: str) -> None:
        """Drop all audio that waits, and count it under `reason`: for a last resort."""
        for queue in self._queues.values():
            queue.drop_waiting(reason)

    # ------------------------------------------------------------ the writer's

    async def run(self) -> None:
        """Write batches until cancelled."""
        while True:
            await self._wake.wait()
            await asyncio.sleep(self._limits.flush_seconds)
            batch = self._next_batch()
            if not batch:
                self._wake.clear()
                self._idle.set()
                continue
            await self._deliver(batch)

    def _put_control(self, write: Write) -> None:
        self._control.append(write)
        self._rouse()

    def _schedule(self, queue: StreamQueue) -> None:
        if queue.opened and not queue.scheduled:
            queue.scheduled = True
            self._dirty.append(queue)
            self._rouse()

    def _rouse(self) -> None:
        self._idle.clear()
        self._wake.set()

    def _next_batch(self) -> list[Write]:
        """Take what is to be written now: what opens and announces first, then audio in turn."""
        limits = self._limits
        batch = [
            self._control.popleft() for _ in range(min(limits.batch_entries, len(self._control)))
        ]
        for _ in range(len(self._dirty)):
            room = limits.batch_entries - len(batch)
            if room <= 0:
                break
            queue = self._dirty.popleft()
            batch.extend(queue.take(min(room, limits.entries_per_stream)))
            if queue.has_waiting:
                self._dirty.append(queue)
            else:
                queue.scheduled = False
        return batch

    async def _deliver(self, batch: list[Write]) -> None:
        """Write a batch, and again, until each of its writes is settled.

        Sending one again is harmless, whatever became of it: an entry that stands
        meets its own id, and is then known by its content.
        """
        attempt = 0
        conflicts: list[Write] = []
        while batch:
            chunk = batch[: self._batch_limit]
            try:
                if conflicts:
                    batch, conflicts = await self._without_what_stands(batch), []
                    continue
                outcomes = await self._pubsub.write(chunk)
            except Exception as error:  # the writer outlives whatever a write meets
                self._note_failure(error)
                await self._back_off(attempt)
                attempt += 1
                continue
            self._note_success()
            conflicts = self._settle(chunk, outcomes)
            batch = conflicts + batch[len(chunk) :]
            attempt = attempt + 1 if conflicts else 0
            if attempt > 1:
                await self._back_off(attempt)
        self._metrics.queued_bytes.set(self._budget.used)

    def _settle(self, batch: Sequence[Write], outcomes: Sequence[Outcome]) -> list[Write]:
        """Note what the broker answered; give back what met an id that was taken."""
        now = self._clock()
        conflicts: list[Write] = []
        last_written = {
            write.stream: write.n
            for write, outcome in zip(batch, outcomes, strict=True)
            if isinstance(write, Append) and outcome is Outcome.WRITTEN
        }
        for write, outcome in zip(batch, outcomes, strict=True):
            if isinstance(write, Append):
                if outcome is Outcome.WRITTEN:
                    self._settle_entry(write, now)
                elif outcome is Outcome.CONFLICT and write.n > last_written.get(write.stream, 0):
                    conflicts.append(write)
                else:
                    # What follows it stands already: written now, it would be out of order.
                    self._settle_entry(write, now, failed=True)
            elif isinstance(write, OpenStream):
                self._begin(write.stream)
            if outcome is Outcome.FAILED:
                self._metrics.broker_errors.labels("write_rejected").inc()
                log.error("The broker rejects a %s for good", type(write).__name__)
        return conflicts

    def _settle_entry(self, append: Append, now: float, *, failed: bool = False) -> None:
        self._queues[append.stream].settle(append, now, failed=BROKER_REJECTED if failed else "")
        entry = append.entry
        if isinstance(entry, EndEntry):
            del self._queues[append.stream]
        elif isinstance(entry, AudioEntry) and not failed:
            self._metrics.published.inc(entry.frames)
            self._metrics.lag.observe(now - entry.received_at)

    def _begin(self, stream: str) -> None:
        queue = self._queues[stream]
        queue.opened = True
        if queue.has_waiting:
            self._schedule(queue)

    async def _without_what_stands(self, batch: Sequence[Write]) -> list[Write]:
        """Settle the entries that stand in the broker; give back all that must be written.

        Entries are written in order, so all before one that stands were written,
        also those that retention has trimmed since. An id that another writer
        took is never ours: the rest continues above it.
        """
        rest: list[Write] = [write for write in batch if not isinstance(write, Append)]
        by_stream: dict[str, list[Append]] = {}
        for write in batch:
            if isinstance(write, Append):
                by_stream.setdefault(write.stream, []).append(write)
        for stream, appends in by_stream.items():
            queue = self._queues[stream]
            standing = await self._pubsub.standing(stream, appends)
            written = max(
                (place for place, append in enumerate(appends, 1) if append.n in standing.present),
                default=0,
            )
            now = self._clock()
            for append in appends[:written]:
                self._settle_entry(append, now)
            if appends[written:]:
                first = appends[written]
                if (standing.last_ms, standing.last_n) >= (first.id_ms, first.n):
                    queue.renumber_above(standing.last_ms, standing.last_n)
                rest.extend(queue.in_flight())
        return rest

    def _note_failure(self, error: Exception) -> None:
        if not isinstance(error, BrokerError):
            log.error("[Broker] A write failed as it never should", exc_info=error)
        kind = error.kind if isinstance(error, BrokerError) else "unexpected"
        self._metrics.broker_errors.labels(kind).inc()
        if self._failing_since is None:
            self._failing_since = self._clock()
            log.warning("[Broker] Not publishing: %s. Audio is buffered.", error)
        if not isinstance(error, BrokerRefused):
            # A slow link needs batches that fit into one time-out.
            self._batch_limit = max(SMALLEST_BATCH, self._batch_limit // 2)

    def _note_success(self) -> None:
        if self._failing_since is not None:
            log.warning("[Broker] Publishing again after %.1f s", self.failing_seconds)
            self._failing_since = None
        self._batch_limit = min(self._limits.batch_entries, self._batch_limit * 2)

    async def _back_off(self, attempt: int) -> None:
        """Wait before another try: doubling, bounded, and spread by half."""
        limits = self._limits
        wait = min(limits.retry_longest_seconds, limits.retry_first_seconds * 2 ** min(attempt, 16))
        await asyncio.sleep(wait * (0.5 + self._jitter() / 2))
