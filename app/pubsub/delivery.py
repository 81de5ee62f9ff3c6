"""Batches on their way to the broker, each until every write of it is settled.

A batch whose reply was lost is sent again: entries that stand meet their own
ids, and are then compared by content. What the broker has confirmed is watched
over for a while, and written again to one that replaces it.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence

from app.errors import BrokerError, BrokerRefused, BrokerReplaced
from app.events import AudioEntry, EndEntry
from app.metrics import Metrics
from app.pubsub.base import Append, CallWrite, CloseStream, OpenStream, Outcome, PubSub, Write
from app.pubsub.limits import OutboxLimits
from app.pubsub.queue import StreamQueue
from app.pubsub.recent import Recent
from app.pubsub.restore import BROKER_LOST, appends_by_stream, restoration

log = logging.getLogger(__name__)

BROKER_REJECTED = "broker_rejected"
SMALLEST_BATCH = 8


class Delivery:
    """Write the batches of one lane, in order and exactly once, whatever the broker answers.

    `on_settled` is told of each write but audio that the broker has answered, and whether
    it was an opening that the broker refused. `clock` gives monotonic seconds, the one that
    stamps frames; `jitter` a number in [0, 1).
    """

    def __init__(
        self,
        lane: int,
        pubsub: PubSub,
        metrics: Metrics,
        *,
        clock: Callable[[], float],
        jitter: Callable[[], float],
        limits: OutboxLimits,
        on_settled: Callable[[Write, Outcome], None],
    ) -> None:
        self._lane = lane
        self._pubsub = pubsub
        self._metrics = metrics
        self._clock = clock
        self._jitter = jitter
        self._limits = limits
        self._on_settled = on_settled
        self._live: dict[str, tuple[StreamQueue, OpenStream]] = {}
        self._recent = Recent(pubsub.promise_seconds)
        self._must_restore = False
        self._has_refused = False
        self._failing_since: float | None = None
        self._batch_limit = limits.batch_entries

    def expect(self, queue: StreamQueue, opening: OpenStream) -> None:
        """Take note of a stream whose entries will come."""
        self._live[queue.stream] = queue, opening

    def give_up(self, reason: str) -> None:
        """Drop all audio that waits, and count it under `reason`: for a last resort."""
        for queue, _ in self._live.values():
            queue.drop_waiting(reason)

    @property
    def failing_seconds(self) -> float:
        """Tell for how long the broker has taken nothing; 0 when it does."""
        return 0.0 if self._failing_since is None else self._clock() - self._failing_since

    @property
    def has_promises(self) -> bool:
        """Tell whether something was confirmed so lately that it may still be lost."""
        self._recent.forget_old(self._clock())
        return bool(self._recent)

    async def keep_promises(self) -> None:
        """See that what was confirmed lately stands, and write again what a failover lost."""
        attempt = 0
        while True:
            try:
                await self._pubsub.still_there(self._lane)
                if self._must_restore:
                    await self._restore()
            except Exception as error:  # the writer outlives whatever it meets
                self._note_failure(error)
                await self._back_off(attempt)
                attempt += 1
            else:
                self._note_outcomes(())
                return

    async def deliver(self, batch: list[Write]) -> None:
        """Write a batch, and again, until each of its writes is settled.

        Sending one again is harmless, whatever became of it: an entry that stands
        meets its own id, and is then known by its content.
        """
        attempt = 0
        conflicts: list[Write] = []
        met_conflicts = was_replaced = opens_again = False
        while batch:
            chunk = batch[: self._batch_limit]
            try:
                if self._must_restore:
                    await self._restore()
                if self._has_refused:
                    # The queues of refused streams have dropped and counted their entries.
                    self._has_refused = False
                    batch = [one for one in batch if not self._is_of_refused(one)]
                    continue
                if conflicts:
                    batch, conflicts = await self._without_what_stands(batch), []
                    opens_again = True
                    continue
                if opens_again:
                    chunk = _up_to_an_entry_of_what_opens(chunk)
                outcomes = await self._pubsub.write(chunk)
            except Exception as error:  # the writer outlives whatever a write meets
                self._note_failure(error)
                # One that is new has just answered; one that changes at each try has not.
                is_new = isinstance(error, BrokerReplaced) and not was_replaced
                was_replaced = isinstance(error, BrokerReplaced)
                if not is_new:
                    await self._back_off(attempt)
                    attempt += 1
                continue
            unsettled, conflicts = self._settle(chunk, outcomes)
            batch = unsettled + batch[len(chunk) :]
            # A conflict is expected after a lost reply, and settled at once; not so the next.
            if Outcome.RETRY in outcomes or (conflicts and met_conflicts):
                await self._back_off(attempt)
                attempt += 1
            else:
                attempt = 0
            met_conflicts = bool(conflicts)

    def _settle(
        self, batch: Sequence[Write], outcomes: Sequence[Outcome]
    ) -> tuple[list[Write], list[Write]]:
        """Note what the broker answered.

        Gives what must be written again, in order, and what of that met an id
        that was taken.
        """
        now = self._clock()
        if outcomes.count(Outcome.WRITTEN) == len(batch):
            live = self._live
            for write in batch:
                if isinstance(write, Append):
                    live[write.stream][0].settle(write, now)
                    if isinstance(write.entry, EndEntry):
                        del live[write.stream]
                else:
                    self._settle_control(write)
            self._note_written(batch, now)
            self._note_outcomes(outcomes)
            return [], []
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
            if outcome.is_refusal:
                self._refuse(write, outcome)
                continue
            if isinstance(write, Append):
                is_unwritten = outcome in (Outcome.CONFLICT, Outcome.NOT_OPEN)
                if is_unwritten and write.n > last_written.get(write.stream, 0):
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
        self._note_written(written, now)
        self._note_outcomes(outcomes)
        return unsettled, conflicts

    def _settle_entry(self, append: Append, now: float, *, failed: bool = False) -> None:
        queue, _ = self._live[append.stream]
        queue.settle(append, now, failed=BROKER_REJECTED if failed else "")
        if isinstance(append.entry, EndEntry):
            del self._live[append.stream]

    def _note_written(self, writes: Sequence[Write], now: float) -> None:
        """Keep what was confirmed for a while, and count its audio."""
        size = frames = 0
        oldest = now
        for write in writes:
            if isinstance(write, Append):
                entry = write.entry
                if isinstance(entry, AudioEntry):
                    size += len(entry.audio)
                    frames += entry.frames
                    if entry.received_at < oldest:
                        oldest = entry.received_at
        self._recent.add(writes, size, now)
        if frames:
            self._metrics.published.inc(frames)
            self._metrics.lag.observe(now - oldest)

    def _settle_control(self, write: OpenStream | CloseStream | CallWrite) -> None:
        # One that is opened again, after another's end of it, may have ended since.
        if isinstance(write, OpenStream) and write.stream in self._live:
            queue, _ = self._live[write.stream]
            queue.begin()
        self._on_settled(write, Outcome.WRITTEN)

    def _refuse(self, opening: Write, outcome: Outcome) -> None:
        """Write no more of a stream whose id is somebody else's."""
        assert isinstance(opening, OpenStream)
        log.error(
            "[Broker] Stream %s of business %s is not published: %s",
            *(opening.stream, opening.record.call.business_id, outcome.value),
        )
        self._metrics.broker_errors.labels(outcome.value).inc()
        self._has_refused = True
        queue, _ = self._live.pop(opening.stream, (None, None))
        if queue is not None:
            queue.refuse(outcome.value)
        self._on_settled(opening, outcome)

    def _is_of_refused(self, write: Write) -> bool:
        return isinstance(write, Append) and write.stream not in self._live

    # --------------------------------------------------------- what stands there

    async def _without_what_stands(self, batch: Sequence[Write]) -> list[Write]:
        """Settle the entries that stand in the broker; give back all that must be written.

        Entries are written in order, so all before one that stands were written,
        also those that retention has trimmed since. An id that another writer
        took is never ours: the stream is opened again, since that one has ended
        it, and the rest continues above. A stream that is gone, as after FLUSHALL or
        an erasure, is opened again too: none is written that would never expire.
        """
        rest: list[Write] = [write for write in batch if not isinstance(write, Append)]
        for stream, appends in appends_by_stream(batch).items():
            queue, opening = self._live[stream]
            standing = await self._pubsub.standing(stream, appends)
            written = standing.written_of(appends)
            now = self._clock()
            for append in appends[:written]:
                self._settle_entry(append, now)
            self._note_written(appends[:written], now)
            if appends[written:]:
                first = appends[written]
                is_taken = standing.last >= (first.id_ms, first.n)
                if is_taken:
                    queue.renumber_above(*standing.last)
                if is_taken or not any(standing.last):
                    rest.append(opening.again())
                rest.extend(queue.in_flight())
        return rest

    async def _restore(self) -> None:
        """Give a broker that replaces another what that one took and this one lacks."""
        recent = self._recent.writes()
        live = {stream: known for stream, known in self._live.items() if known[0].opened}
        writes, losses = await restoration(self._pubsub, recent, live)
        waiting = writes
        refused: set[str] = set()
        while waiting:
            chunk = _up_to_an_entry_of_what_opens(waiting[: self._limits.batch_entries])
            outcomes = await self._pubsub.write(chunk)
            if Outcome.RETRY in outcomes:
                raise BrokerRefused("partial", "a part of the broker does not answer")
            waiting = waiting[len(chunk) :]
            for write, outcome in zip(chunk, outcomes, strict=True):
                if outcome.is_refusal:
                    assert isinstance(write, OpenStream)
                    refused.add(write.stream)
                    if write.stream in self._live:
                        self._refuse(write, outcome)
                if isinstance(write, Append) and isinstance(write.entry, AudioEntry):
                    done = "restored" if outcome is Outcome.WRITTEN else "lost"
                    self._metrics.broker_forgot.labels(done).inc(write.entry.frames)
                    if outcome is not Outcome.WRITTEN:
                        losses[write.stream] = losses.get(write.stream, 0) + write.entry.frames
            waiting = [one for one in waiting if not _is_entry_of(one, refused)]
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


def _up_to_an_entry_of_what_opens(batch: list[Write]) -> list[Write]:
    """Return what may be written at once: an opening may be refused, and no entry then follows.

    A stream is opened beside entries of its own only when it is opened again.
    """
    opened: set[str] = set()
    for place, write in enumerate(batch):
        if isinstance(write, OpenStream):
            opened.add(write.stream)
        elif opened and _is_entry_of(write, opened):
            return batch[:place]
    return batch


def _is_entry_of(write: Write, streams: set[str]) -> bool:
    return isinstance(write, Append) and write.stream in streams
