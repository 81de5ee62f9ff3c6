"""All that a process publishes, on its way to the broker.

Each stream has a queue of its own, and belongs to a lane: one writer for each
part of the broker that can fail alone. What is said of a stream in `calls`
waits until the stream's own keys are written, since the two may have different
lanes.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import replace

from app.events import AudioReceipt, HeldStream, LifecycleEvent, StreamRecord
from app.metrics import Metrics
from app.pubsub.backlog import WRITES_OF_AN_EVENT, Backlog
from app.pubsub.base import (
    CALLS_KEY,
    Announce,
    CallWrite,
    CloseStream,
    ListCall,
    NoteCall,
    OpenStream,
    Outcome,
    PubSub,
    Replaces,
    Write,
    audio_key,
)
from app.pubsub.call_log import BEGINNINGS, CALL_INDEX_KEY, calls_of_key, is_logged
from app.pubsub.delivery import Delivery
from app.pubsub.lane import Lane
from app.pubsub.limits import OutboxLimits
from app.pubsub.queue import ByteBudget, StreamQueue

DEFAULT_LIMITS = OutboxLimits()
LOOK_SECONDS = 0.5


class Outbox:
    """Own every stream's queue, and the lanes that write them.

    `run` is the writers; its caller owns the task. `clock` gives monotonic
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
        self._limits = limits
        self._budget = ByteBudget(limits.buffer_bytes)
        self._queued_bytes = metrics.queued_bytes
        self._backlog = Backlog(limits.max_events, metrics)

        def lane(number: int) -> Lane:
            delivery = Delivery(
                number,
                pubsub,
                metrics,
                clock=clock,
                jitter=jitter,
                limits=limits,
                on_settled=self._note_settled,
            )
            return Lane(delivery, limits)

        self._lanes = [lane(number) for number in range(pubsub.lanes)]
        self._calls = self._lanes[pubsub.lane_of(CALLS_KEY)]
        # Writes to a stream's own keys that are not settled, and what waits for them.
        self._unsettled: Counter[str] = Counter()
        self._parked: dict[str, deque[LifecycleEvent]] = {}
        # What hears that a stream's keys are there.
        self._on_opened: dict[str, Callable[[], None]] = {}

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
            on_dirty=self._lane_of(stream).schedule,
        )

    def open_stream(
        self,
        queue: StreamQueue,
        record: StreamRecord,
        expire_seconds: int,
        on_opened: Callable[[], None] | None = None,
        *,
        replaces: Replaces = Replaces.ANY,
    ) -> None:
        """Begin to write a queue, after replacing what its business had under its id.

        `on_opened` is called once, when that is done. Where it may not be done, the queue is
        refused, and what was announced of the stream is announced without its id, which is
        another stream's; that it started is not announced.
        """
        if on_opened is not None:
            self._on_opened[queue.stream] = on_opened
        self._unsettled[queue.stream] += 1
        opening = OpenStream(queue.stream, record, expire_seconds, replaces)
        self._lane_of(queue.stream).open(queue, opening)

    def close_stream(
        self, held: HeldStream, ended_at: int, receipt: AudioReceipt, expire_seconds: int
    ) -> None:
        """Complete a stream's record; call it when its queue is flushed."""
        stream, business_id = held.call.stream_sid, held.call.business_id
        self._unsettled[stream] += 1
        closing = (stream, ended_at, receipt, expire_seconds, business_id, held.started_at)
        self._lane_of(stream).put(CloseStream(*closing))

    def announce(self, event: LifecycleEvent) -> None:
        """Queue a lifecycle event, after what has been queued for its stream's keys.

        It is announced to all, and kept in its call's log. One that happens within a call is
        dropped and counted when too many events of its business wait.
        """
        if not self._backlog.enter(event):
            return
        stream = event.call.stream_sid
        if self._unsettled[stream]:
            self._parked.setdefault(stream, deque()).append(event)
        else:
            self._put(event)

    @property
    def takes_events(self) -> bool:
        """Return whether there is room for the lifecycle events of a new call of anybody's."""
        return self._backlog.takes()

    def takes_events_of(self, business_id: str) -> bool:
        """Return whether there is room for the lifecycle events of a new call of a business."""
        return self._backlog.takes(business_id)

    @property
    def queued_bytes(self) -> int:
        """Count the audio that waits, in bytes."""
        return self._budget.used

    @property
    def failing_seconds(self) -> float:
        """Tell for how long a part of the broker has taken nothing; 0 when all do."""
        return max(lane.failing_seconds for lane in self._lanes)

    async def wait_until_idle(self) -> None:
        """Wait until everything queued has been written."""
        while not all(lane.is_idle for lane in self._lanes):
            for lane in self._lanes:
                await lane.wait_until_idle()

    def give_up(self, reason: str) -> None:
        """Drop all audio that waits, and count it under `reason`: for a last resort."""
        for lane in self._lanes:
            lane.give_up(reason)

    # ------------------------------------------------------------- the writers'

    async def run(self) -> None:
        """Write until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for lane in self._lanes:
                tasks.create_task(lane.run())
            tasks.create_task(self._look_around())

    async def _look_around(self) -> None:
        while True:
            self._queued_bytes.set(self._budget.used)
            for lane in self._lanes:
                lane.look()
            await asyncio.sleep(LOOK_SECONDS)

    def _lane_of(self, stream: str) -> Lane:
        return self._lanes[self._pubsub.lane_of(audio_key(stream))]

    def _put(self, event: LifecycleEvent) -> None:
        """Note an event before it is announced: who hears of it may look its call up."""
        business_id, writes = event.call.business_id, 1
        if is_logged(event):
            key = calls_of_key(business_id)
            self._lanes[self._pubsub.lane_of(key)].put(NoteCall(event))
            writes += 1
            if event.name in BEGINNINGS:
                self._lanes[self._pubsub.lane_of(CALL_INDEX_KEY)].put(ListCall(event))
                writes += 1
        self._calls.put(Announce(event))
        if writes < WRITES_OF_AN_EVENT:
            self._backlog.leave(business_id, WRITES_OF_AN_EVENT - writes)

    def _note_settled(self, write: Write, outcome: Outcome) -> None:
        if isinstance(write, CallWrite):
            self._backlog.leave(write.event.call.business_id)
            for report in self._backlog.take_reports():
                self.announce(report)
            return
        if not isinstance(write, OpenStream | CloseStream):
            return
        self._unsettled[write.stream] -= 1
        if self._unsettled[write.stream] > 0:
            return
        del self._unsettled[write.stream]
        on_opened = self._on_opened.pop(write.stream, None)
        if on_opened is not None and not outcome.is_refusal:
            on_opened()
        for event in self._parked.pop(write.stream, ()):
            if not outcome.is_refusal:
                self._put(event)
            elif event.name != "stream.started":
                self._put(replace(event, call=replace(event.call, stream_sid="")))
            else:
                self._backlog.leave(event.call.business_id, WRITES_OF_AN_EVENT)
