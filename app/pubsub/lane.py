"""One writer between calls and a part of the broker.

Streams put entries into bounded queues and never wait. The writer takes them
in turn, writes batches, and tries again until the broker has them. A batch
whose reply was lost is sent again too: entries that stand meet their own ids,
and are then compared by content. Order within a stream is that of queueing.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from app.errors import BrokerError, BrokerRefused, BrokerReplaced
from app.events import AudioEntry, EndEntry
from app.metrics import Metrics
from app.pubsub.base import Announce, Append, CloseStream, OpenStream, Outcome, PubSub, Write
from app.pubsub.queue import StreamQueue
from app.pubsub.recent import Recent
from app.pubsub.restore import BROKER_LOST, appends_by_stream, restoration

log = logging.getLogger(__name__)

BROKER_REJECTED = "broker_rejected"
SMALLEST_BATCH = 8
WATCH_SECONDS = 0.5


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


class Lane:
    """Own the queues of some streams and write them, one batch at a time.

    `on_settled` is told of each write but audio that the broker has answered.
    `clock` gives monotonic seconds, the one that stamps frames; `jitter` a
    number in [0, 1).
    """

    def __init__(
        self,
        number: int,
        pubsub: PubSub,
        metrics: Metrics,
        *,
        clock: Callable[[], float],
        jitter: Callable[[], float],
        limits: OutboxLimits,
        on_settled: Callable[[Write], None],
    ) -> None:
        self._number = number
        self._pubsub = pubsub
        self._metrics = metrics
        self._clock = clock
        self._jitter = jitter
        self._limits = limits
        self._on_settled = on_settled
        self._control: deque[Write] = deque()
        self._dirty: deque[StreamQueue] = deque()
        self._live: dict[str, tuple[StreamQueue, OpenStream]] = {}
        self._recent = Recent(pubsub.promise_seconds)
        self._must_restore = False
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._failing_since: float | None = None
        self._batch_limit = limits.batch_entries

    # ------------------------------------------------------------ what is to do

    def open(self, queue: StreamQueue, write: OpenStream) -> None:
        """Begin to write a queue, after replacing what stood under its id."""
        self._live[queue.stream] = queue, write
        self.put(write)

    def put(self, write: Write) -> None:
        """Queue a write that is no audio."""
        self._control.append(write)
        self._rouse()

    def schedule(self, queue: StreamQueue) -> None:
        """Note that a queue has something to take."""
        if queue.opened and not queue.scheduled:
            queue.scheduled = True
            self._dirty.append(queue)
            self._rouse()

    @property
    def waiting(self) -> int:
        """Count the writes that wait and are no audio."""
        return len(self._control)

    @property
    def failing_seconds(self) -> float:
        """Tell for how long the broker has taken nothing; 0 when it does."""
        return 0.0 if self._failing_since is None else self._clock() - self._failing_since

    @property
    def is_idle(self) -> bool:
        """Tell whether everything queued has been written."""
        return self._idle.is_set()

    async def wait_until_idle(self) -> None:
        """Wait until everything queued has been written."""
        await self._idle.wait()

    def give_up(self, reason: str) -> None:
        """Drop all audio that waits, and count it under `reason`: for a last resort."""
        for queue, _ in self._live.values():
            queue.drop_waiting(reason)

    # ------------------------------------------------------------------ writing

    async def run(self) -> None:
        """Write batches until cancelled."""
        while True:
            if self._recent and not self._wake.is_set():
                await self._watch_over_recent()
            await self._wake.wait()
            await asyncio.sleep(self._limits.flush_seconds)
            batch = self._next_batch()
            if not batch:
                self._wake.clear()
                self._idle.set()
                continue
            await self._deliver(batch)

    async def _watch_over_recent(self) -> None:
        """While nothing is to be written, see that what was confirmed lately still stands.

        After the last write nobody else would notice that a failover lost it.
        """
        attempt = 0
        while self._recent and not self._wake.is_set():
            try:
                await self._pubsub.still_there(self._number)
                if self._must_restore:
                    await self._restore()
            except Exception as error:
                self._note_failure(error)
                await self._back_off(attempt)
                attempt += 1
                continue
            self._note_outcomes(())
            with suppress(TimeoutError):
                async with asyncio.timeout(WATCH_SECONDS):
                    await self._wake.wait()
            self._recent.forget_old(self._clock())

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
                if self._must_restore:
                    await self._restore()
                if conflicts:
                    batch, conflicts = await self._without_what_stands(batch), []
                    continue
                outcomes = await self._pubsub.write(chunk)
            except Exception as error:  # the writer outlives whatever a write meets
                self._note_failure(error)
                if attempt or not isinstance(error, BrokerReplaced):
                    await self._back_off(attempt)
                attempt += 1
                continue
            unsettled, conflicts = self._settle(chunk, outcomes)
            batch = unsettled + batch[len(chunk) :]
            attempt = attempt + 1 if unsettled else 0
            if attempt > 1:
                await self._back_off(attempt)

    def _settle(
        self, batch: Sequence[Write], outcomes: Sequence[Outcome]
    ) -> tuple[list[Write], list[Write]]:
        """Note what the broker answered.

        Gives what must be written again, in order, and what of that met an id
        that was taken.
        """
        now = self._clock()
        unsettled: list[Write] = []
        conflicts: list[Write] = []
        written: list[Write] = []
        last_written = {
            write.stream: write.n
            for write, outcome in zip(batch, outcomes, strict=True)
            if isinstance(write, Append) and outcome is Outcome.WRITTEN
        }
        for write, outcome in zip(batch, outcomes, strict=True):
            if outcome is Outcome.RETRY:
                unsettled.append(write)
                continue
            if isinstance(write, Append):
                if outcome is Outcome.CONFLICT and write.n > last_written.get(write.stream, 0):
                    conflicts.append(write)
                    unsettled.append(write)
                    continue
                # After a conflict what follows stands already: written now, it
                # would be out of order.
                self._settle_entry(write, now, failed=outcome is not Outcome.WRITTEN)
            else:
                self._settle_control(write)
            if outcome is Outcome.WRITTEN:
                written.append(write)
            elif outcome is Outcome.FAILED:
                self._metrics.broker_errors.labels("write_rejected").inc()
                log.error("The broker rejects a %s for good", type(write).__name__)
        self._recent.add(written, now)
        self._note_outcomes(outcomes)
        return unsettled, conflicts

    def _settle_entry(self, append: Append, now: float, *, failed: bool = False) -> None:
        queue, _ = self._live[append.stream]
        queue.settle(append, now, failed=BROKER_REJECTED if failed else "")
        entry = append.entry
        if isinstance(entry, EndEntry):
            del self._live[append.stream]
        elif isinstance(entry, AudioEntry) and not failed:
            self._metrics.published.inc(entry.frames)
            self._metrics.lag.observe(now - entry.received_at)

    def _settle_control(self, write: OpenStream | CloseStream | Announce) -> None:
        # One that is opened again, after another's end of it, may have ended since.
        if isinstance(write, OpenStream) and write.stream in self._live:
            queue, _ = self._live[write.stream]
            queue.opened = True
            if queue.has_waiting:
                self.schedule(queue)
        self._on_settled(write)

    # --------------------------------------------------------- what stands there

    async def _without_what_stands(self, batch: Sequence[Write]) -> list[Write]:
        """Settle the entries that stand in the broker; give back all that must be written.

        Entries are written in order, so all before one that stands were written,
        also those that retention has trimmed since. An id that another writer
        took is never ours: the stream is opened again, since that one has ended
        it, and the rest continues above.
        """
        rest: list[Write] = [write for write in batch if not isinstance(write, Append)]
        for stream, appends in appends_by_stream(batch).items():
            queue, opening = self._live[stream]
            standing = await self._pubsub.standing(stream, appends)
            written = standing.written_of(appends)
            now = self._clock()
            for append in appends[:written]:
                self._settle_entry(append, now)
            if appends[written:]:
                first = appends[written]
                if standing.last >= (first.id_ms, first.n):
                    queue.renumber_above(*standing.last)
                    rest.append(opening)
                rest.extend(queue.in_flight())
        return rest

    async def _restore(self) -> None:
        """Give a broker that replaces another what that one took and this one lacks."""
        recent = self._recent.writes()
        live = {stream: known for stream, known in self._live.items() if known[0].opened}
        writes, losses = await restoration(self._pubsub, recent, live)
        for first in range(0, len(writes), self._limits.batch_entries):
            chunk = writes[first : first + self._limits.batch_entries]
            outcomes = await self._pubsub.write(chunk)
            if Outcome.RETRY in outcomes:
                raise BrokerRefused("partial", "a part of the broker does not answer")
            for write, outcome in zip(chunk, outcomes, strict=True):
                if isinstance(write, Append) and isinstance(write.entry, AudioEntry):
                    done = "restored" if outcome is Outcome.WRITTEN else "lost"
                    self._metrics.broker_forgot.labels(done).inc(write.entry.frames)
                    if outcome is not Outcome.WRITTEN:
                        losses[write.stream] = losses.get(write.stream, 0) + write.entry.frames
        for stream, frames in losses.items():
            if stream in live:
                live[stream][0].lose(frames, BROKER_LOST)
        self._must_restore = False
        if writes:
            log.warning("[Broker] Another server answers; %d writes compared or sent", len(writes))

    # ---------------------------------------------------------------- good or bad

    def _note_failure(self, error: Exception) -> None:
        self._must_restore = self._must_restore or isinstance(error, BrokerReplaced)
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

    def _note_outcomes(self, outcomes: Sequence[Outcome]) -> None:
        if Outcome.RETRY in outcomes:
            self._note_failure(BrokerRefused("partial", "a part of the broker does not answer"))
            return
        if self._failing_since is not None:
            log.warning("[Broker] Publishing again after %.1f s", self.failing_seconds)
            self._failing_since = None
        self._batch_limit = min(self._limits.batch_entries, self._batch_limit * 2)

    async def _back_off(self, attempt: int) -> None:
        """Wait before another try: doubling, bounded, and spread by half."""
        limits = self._limits
        wait = min(limits.retry_longest_seconds, limits.retry_first_seconds * 2 ** min(attempt, 16))
        await asyncio.sleep(wait * (0.5 + self._jitter() / 2))
