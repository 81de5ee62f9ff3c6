"""The calls of this process: how many there may be, which are live, and their slots."""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from app.errors import (
    BusinessMismatch,
    Draining,
    ProcessFull,
    StoreUnavailable,
    StreamAlreadyLive,
)
from app.events import CallIdentity, EndReason, HeldStream
from app.metrics import Metrics
from app.registry.metering import Metering, OnCrossed
from app.registry.slots import CallSlots, too_many_streams
from app.store.base import LIVE_SECONDS, STREAMS_OF_CALL, CallEnd, Store, StreamClaim
from app.store.usage import Counting, Crossing, MonthOfUse
from app.store.watching import StreamFigures

# Of one call, live ones and those that have ended and wait for the broker.
STREAMS_KEPT_OF_CALL = 8
# A lease of LIVE_SECONDS outlasts two renewals that fail.
RENEW_SECONDS = 6.0
RETRY_SECONDS = 1.0
# The share of MAX_CALLS that one business cannot have, so that it cannot fill a process.
KEPT_FOR_OTHERS = 0.1
# Leases of ended streams that wait to be given up; older ones run out by themselves.
MAX_ENDED = 10_000


# Draws up a stream's figures; None before there are any.
DrawUp = Callable[[], StreamFigures | None]


@dataclass(frozen=True, slots=True)
class LiveStream:
    """A stream this process holds: which, how to end it, and how to see how it gets on."""

    held: HeldStream
    end: Callable[[EndReason], None]
    draw_up: DrawUp | None = None


def _unheard(business_id: str, use: MonthOfUse, crossing: Crossing) -> None:
    """Hear of a limit that was reached, and do nothing."""


class Registry:
    """Hold this process's calls to their limits, and know the live ones.

    Slots are the store's; while it is away, this process holds each business to
    its plan's limits by itself, by the calls it knows. `clock` gives monotonic
    seconds, `wall_clock` Unix seconds. `on_crossed` hears when a business has
    reached a limit of its plan on a month.
    """

    def __init__(
        self,
        store: Store,
        metrics: Metrics,
        *,
        max_calls: int,
        clock: Callable[[], float],
        wall_clock: Callable[[], float] = time.time,
        on_crossed: OnCrossed = _unheard,
    ) -> None:
        self._store = store
        self._metrics = metrics
        self._max_calls = max_calls
        self._max_of_business = max_calls - int(max_calls * KEPT_FOR_OTHERS)
        self._claimed: dict[str, LiveStream | None] = {}
        # A stream is held until it is disclaimed: nobody else may end it while
        # the last of its audio waits here for the broker.
        self._held: dict[str, HeldStream] = {}
        # The streams that have not ended, and whose call each is of.
        self._open: dict[str, tuple[str, str]] = {}
        self._ended: deque[HeldStream] = deque(maxlen=MAX_ENDED)
        self._metering = Metering(
            store, metrics, clock=clock, wall_clock=wall_clock, on_crossed=on_crossed
        )
        self._slots = CallSlots(store, metrics, self._metering, clock)
        self._none_left = asyncio.Event()
        self._none_left.set()
        self.draining = False

    # ------------------------------------------------------------------- limits

    def check_room(self, business_id: str = "") -> None:
        """Raise Draining or ProcessFull when this process takes no new call, or none of a business.

        A business can have all but a share of MAX_CALLS, KEPT_FOR_OTHERS.
        """
        if self.draining:
            raise Draining("this process finishes its last calls")
        self._check_places(business_id, self._slots.count_reserved())

    def _check_places(self, business_id: str, reserved: int = 0) -> None:
        taken, most = len(self._claimed) + reserved, self._max_of_business
        if taken >= self._max_calls:
            raise ProcessFull(f"this process holds {self._max_calls} calls")
        if business_id and taken >= most:  # else the business cannot have as many
            own = sum(held.call.business_id == business_id for held in self._held.values())
            if reserved:
                own += self._slots.count_reserved_of(business_id)
            if own >= most:
                raise ProcessFull(
                    f"the business holds {own} of the {self._max_calls} calls of this process; "
                    "the others are kept for other businesses"
                )

    async def reserve(
        self,
        business_id: str,
        call_sid: str,
        limit: int,
        per_second: float = math.inf,
        counting: Counting | None = None,
        refused_after: CallEnd | None = None,
        stream_sid: str = "",
    ) -> None:
        """Hold one of the plan's slots for a call; the same call may ask again.

        With `counting` the call counts in its month, once, and may take over a slot from a
        made-up id. It is refused after the end that `refused_after` names, and with
        `stream_sid`, when it is for a stream, beside too many live streams of the call.

        Raises:
            CallEnded: it has ended.
            TooManyStreams: it has as many live streams as a call may have.
            TicketInvalid: it takes over a slot, and holds one already.
            PlanLimitReached: all `limit` slots are taken by other calls.
            CallRateExceeded: `per_second` others were taken a moment ago.
            MonthlyLimitReached: the month has no calls or minutes left.
        """
        await self._slots.reserve(
            business_id, call_sid, limit, per_second, counting, refused_after, stream_sid
        )

    async def release(self, business_id: str, call_sid: str, ended: CallEnd | None = None) -> None:
        """Free a call's slot, unless a stream of it is live here, and note how it `ended`."""
        await self._slots.release(business_id, call_sid, ended)

    # -------------------------------------------------------------- live streams

    @property
    def live_count(self) -> int:
        """Count the streams that are live, or about to be."""
        return len(self._claimed)

    async def claim(self, held: HeldStream) -> bool:
        """Make a stream's id this process's own, here and over all replicas.

        Returns whether the store has confirmed it; while it is away, this process decides.

        Raises:
            StreamAlreadyLive: another socket holds it; that one is not touched.
            BusinessMismatch: the id is another business's.
            TooManyStreams: its call has as many live streams as it may have.
            ProcessFull: MAX_CALLS streams are live, or the business's share of them.
        """
        stream_sid = held.call.stream_sid
        holder = self._held.get(stream_sid)
        if holder is not None and holder.call.business_id != held.call.business_id:
            raise _claim_refused(StreamClaim.OTHER_BUSINESS)
        if stream_sid in self._claimed:
            raise _claim_refused(StreamClaim.LIVE_ELSEWHERE)
        key = held.call.business_id, held.call.call_sid
        if sum(one == key for one in self._open.values()) >= STREAMS_OF_CALL:
            raise too_many_streams()
        # Those that have ended wait here for the broker, and take places until it has them.
        kept = sum((one.call.business_id, one.call.call_sid) == key for one in self._held.values())
        if kept >= STREAMS_KEPT_OF_CALL:
            raise too_many_streams()
        self._check_places(held.call.business_id)
        # Before anyone waits: two sockets may come at once.
        self._claimed[stream_sid] = None
        self._held[stream_sid] = held
        self._open[stream_sid] = key
        self._note_count()
        try:
            answer = await self._store.claim_stream(held, LIVE_SECONDS)
        except StoreUnavailable:
            self._metrics.store_errors.inc()
            self._metrics.local_decisions.labels("stream").inc()
            return False
        except BaseException:
            self._forget(stream_sid)
            self._ended.append(held)  # nobody knows whether the store has it
            raise
        if answer is not StreamClaim.GRANTED:
            self._forget(stream_sid)
            raise _claim_refused(answer)
        return True

    async def disclaim(self, stream_sid: str) -> None:
        """Give a claim back; the id may be used again, and the lease goes soon."""
        held = self._forget(stream_sid)
        if held is None:
            return
        self._ended.append(held)
        try:
            await self._store.release_claim(held)
        except StoreUnavailable:
            self._metrics.store_errors.inc()  # it goes with the lease

    def _forget(self, stream_sid: str) -> HeldStream | None:
        self._claimed.pop(stream_sid, None)
        self._open.pop(stream_sid, None)
        held = self._held.pop(stream_sid, None)
        self._note_count()
        return held

    def holds(self, held: HeldStream) -> bool:
        """Tell whether a stream is this process's own, or was until a moment ago."""
        return self._held.get(held.call.stream_sid) == held or held in self._ended

    async def begin(
        self, held: HeldStream, end: Callable[[EndReason], None], draw_up: DrawUp | None = None
    ) -> None:
        """Say that a claimed stream is live, here and in the store."""
        call = held.call
        self._claimed[call.stream_sid] = LiveStream(held, end, draw_up)
        self._metering.begin(held)
        self._slots.begin(call)
        try:
            await self._store.mark_live(
                call.business_id, call.call_sid, call.stream_sid, LIVE_SECONDS
            )
        except StoreUnavailable:
            self._metrics.store_errors.inc()

    async def finish(
        self, call: CallIdentity, ended: CallEnd | None = None, *, lives_elsewhere: bool = False
    ) -> None:
        """Note that a stream has ended: its slot is free for another call.

        With `ended` this is remembered of its call.

        The claim stays until `disclaim`, so that the id is not used again while
        the last of its audio is being written. If another process holds the stream, the
        call's slot and its live stream are that one's.
        """
        self._claimed[call.stream_sid] = None
        self._open.pop(call.stream_sid, None)
        self._metering.finish(call.business_id, call.stream_sid)
        self._slots.finish(call)
        if lives_elsewhere:
            return
        try:
            await self._store.unmark_live(call.business_id, call.call_sid, call.stream_sid)
        except StoreUnavailable:
            self._metrics.store_errors.inc()
        await self.release(call.business_id, call.call_sid, ended)

    async def keep_leases(self) -> None:
        """Renew the leases of live calls and streams until cancelled."""
        while True:
            try:
                refused = await self._store.hold_streams(list(self._held.values()), LIVE_SECONDS)
                for held, claim in refused:
                    self._end_superseded(held, claim)
                await self.let_go_of_ended()
                streams = self._claimed.values()
                deleted = await self._slots.renew(stream.held.call for stream in streams if stream)
                self._end_of_deleted(deleted)
                await self._metering.note()
                live = [stream.held for stream in self._claimed.values() if stream]
                for held, claim in await self._store.replaced_streams(live):
                    self._end_superseded(held, claim)
                await asyncio.sleep(RENEW_SECONDS)
            except StoreUnavailable:
                self._metrics.store_errors.inc()
                await asyncio.sleep(RETRY_SECONDS)

    async def let_go_of_ended(self) -> None:
        """Give up the leases of streams whose end the broker has.

        Raises:
            StoreUnavailable: they are given up another time, or run out.
        """
        ended = list(self._ended)
        await self._store.let_go(ended)
        for _ in ended:
            self._ended.popleft()

    async def note_usage(self) -> None:
        """Tell the store what it does not know yet of the calls and streams here.

        Raises:
            StoreUnavailable: it is told another time.
        """
        await self._metering.note()

    def _end_of_deleted(self, businesses: Collection[str]) -> None:
        """End the streams of businesses that were deleted while this process was cut off."""
        for stream in list(self._claimed.values()):
            if stream is not None and stream.held.call.business_id in businesses:
                stream.end(EndReason.ENDED_BY_ADMIN)

    def _end_superseded(self, held: HeldStream, claim: StreamClaim) -> None:
        """End a stream whose id another holder has claimed while this process was cut off."""
        live = self._claimed.get(held.call.stream_sid)
        if live is not None and live.held == held:
            live.end(EndReason(claim.value))

    # ------------------------------------------------------------------- watchers

    def figures_of(self) -> Iterator[tuple[str, DrawUp]]:
        """Give each live stream's business, and what draws up its figures."""
        for stream in self._claimed.values():
            if stream and stream.draw_up:
                yield stream.held.call.business_id, stream.draw_up

    def end_call(
        self,
        business_id: str,
        call_sid: str,
        reason: EndReason = EndReason.ENDED_BY_ADMIN,
    ) -> None:
        """End this call's streams that are live here; without a `reason` for an admin."""
        for stream in list(self._claimed.values()):
            if stream is None:
                continue
            call = stream.held.call
            if (call.business_id, call.call_sid) == (business_id, call_sid):
                stream.end(reason)

    # --------------------------------------------------------------------- drain

    def refuse_new_calls(self) -> None:
        """Take no new calls from now on; safe to call from a signal handler."""
        self.draining = True
        self._metrics.draining.set(1)

    async def wait_until_empty(self, seconds: float) -> bool:
        """Wait at most `seconds` until no stream is left; tell whether none is."""
        try:
            async with asyncio.timeout(seconds):
                await self._none_left.wait()
        except TimeoutError:
            return False
        return True

    def end_all(self, reason: EndReason) -> None:
        """End every live stream."""
        for stream in list(self._claimed.values()):
            if stream:
                stream.end(reason)

    def _note_count(self) -> None:
        self._metrics.live_streams.set(len(self._claimed))
        if self._claimed:
            self._none_left.clear()
        else:
            self._none_left.set()


def _claim_refused(claim: StreamClaim) -> StreamAlreadyLive | BusinessMismatch:
    if claim is StreamClaim.OTHER_BUSINESS:
        return BusinessMismatch("this stream's id belongs to another business")
    return StreamAlreadyLive("this stream is live on another socket")
