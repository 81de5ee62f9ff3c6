"""The slots of this process's calls: the store's, or while it is away counted here."""

import logging
import math
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable

from app.errors import (
    CallEnded,
    CallRateExceeded,
    MonthlyLimitReached,
    PlanLimitReached,
    StoreUnavailable,
    TicketInvalid,
    TooManyStreams,
    UnknownBusiness,
)
from app.events import CallIdentity
from app.metrics import Metrics
from app.registry.metering import Metering
from app.store.base import LIVE_SECONDS, STREAMS_OF_CALL, CallEnd, SlotAnswer, Store
from app.store.pace import Pace, RecentCalls
from app.store.usage import Counting

log = logging.getLogger(__name__)

# DESIGN: the slot's lease is 60 s before `start`.
RESERVED_SECONDS = 60.0


def too_many_streams() -> TooManyStreams:
    """Create the error for one more stream of a call."""
    return TooManyStreams(f"{STREAMS_OF_CALL} streams of this call are live, which is the limit")


class CallSlots:
    """Hold businesses' calls to their plans; `clock` gives monotonic seconds.

    A call is reserved until a stream of it is live, or its reservation ends.
    """

    def __init__(
        self, store: Store, metrics: Metrics, metering: Metering, clock: Callable[[], float]
    ) -> None:
        self._store = store
        self._metrics = metrics
        self._metering = metering
        self._clock = clock
        # Calls on their way, the oldest first, and when their reservation ends.
        self._reserved: OrderedDict[tuple[str, str], float] = OrderedDict()
        self._live: Counter[tuple[str, str]] = Counter()
        # Live calls whose end their carrier has reported already.
        self._reported: set[tuple[str, str]] = set()
        self._recent = RecentCalls(clock)

    def count_reserved(self) -> int:
        """Count the calls that are on their way."""
        self._forget_stale()
        return len(self._reserved)

    def count_reserved_of(self, business_id: str) -> int:
        """Count a business's calls that are on their way."""
        return sum(owner == business_id for owner, _ in self._reserved)

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
            UnknownBusiness: the business was deleted a moment ago.
        """
        pace = Pace.of(per_second)
        try:
            answer = await self._store.take_slot(
                business_id,
                call_sid,
                limit,
                RESERVED_SECONDS,
                per_second,
                counting,
                refused_after,
                stream_sid,
            )
            if answer and counting is not None:
                self._metering.counted(business_id, counting)
        except StoreUnavailable:
            self._metrics.store_errors.inc()
            self._metrics.local_decisions.labels("slot").inc()
            answer = self._answer_here(business_id, call_sid, limit, pace, counting)
        if answer is SlotAnswer.ENDED:
            raise CallEnded("the call has ended; its webhook was sent again, or late")
        if answer is SlotAnswer.HELD_BEFORE:
            raise TicketInvalid(
                "the ticket was issued for a call without an id, and this call has a slot of its "
                "own: ask for its stream URL with its CallSid"
            )
        if answer is SlotAnswer.STREAMS_TAKEN:
            raise too_many_streams()
        if answer is SlotAnswer.BUSINESS_DELETED:
            raise UnknownBusiness("the business was deleted")
        if answer is SlotAnswer.MONTH_USED_UP:
            raise MonthlyLimitReached("the month's calls or minutes are used up")
        if answer is SlotAnswer.ALL_TAKEN:
            raise PlanLimitReached(f"all {limit} slots are taken")
        if answer is SlotAnswer.TOO_FAST:
            raise CallRateExceeded(f"more than {per_second:g} calls a second")
        if counting is not None and counting.takes_over:
            self._reserved.pop((business_id, counting.takes_over), None)
        if not self._knows(business_id, call_sid):
            self._recent.add(business_id, pace)
        if (business_id, call_sid) not in self._live:
            self._reserved[business_id, call_sid] = self._clock() + RESERVED_SECONDS
            self._reserved.move_to_end((business_id, call_sid))
            self._forget_beyond(business_id, limit)

    async def release(self, business_id: str, call_sid: str, ended: CallEnd | None = None) -> None:
        """Free a call's slot, unless a stream of it is live here, and note how it `ended`."""
        if (business_id, call_sid) in self._live:
            if ended is CallEnd.FINAL:
                self._reported.add((business_id, call_sid))
            return
        if (business_id, call_sid) in self._reported:
            self._reported.discard((business_id, call_sid))
            ended = CallEnd.FINAL
        self._reserved.pop((business_id, call_sid), None)
        try:
            await self._store.free_slot(business_id, call_sid, ended)
        except StoreUnavailable:
            self._metrics.store_errors.inc()  # its lease runs out by itself

    def _answer_here(
        self,
        business_id: str,
        call_sid: str,
        limit: int,
        pace: Pace | None,
        counting: Counting | None,
    ) -> SlotAnswer:
        self._forget_stale()
        is_known = self._knows(business_id, call_sid)
        inherits = False
        if counting and counting.takes_over:
            if is_known:
                return SlotAnswer.HELD_BEFORE
            inherits = (business_id, counting.takes_over) in self._reserved
        if not is_known and not inherits:
            if counting and not self._metering.allows(business_id, call_sid, counting):
                return SlotAnswer.MONTH_USED_UP
            known = self._reserved.keys() | self._live.keys()
            if sum(owner == business_id for owner, _ in known) >= limit:
                return SlotAnswer.ALL_TAKEN
            if not self._recent.has_room(business_id, pace):
                return SlotAnswer.TOO_FAST
        if counting:
            self._metering.count_later(business_id, call_sid, counting)
        return SlotAnswer.TAKEN

    def _knows(self, business_id: str, call_sid: str) -> bool:
        return (business_id, call_sid) in self._reserved or (business_id, call_sid) in self._live

    def _forget_stale(self) -> None:
        # All are equally long, so the first to be made is the first to end.
        now = self._clock()
        while self._reserved and next(iter(self._reserved.values())) <= now:
            self._reserved.popitem(last=False)

    def _forget_beyond(self, business_id: str, limit: int) -> None:
        """Keep the last `limit` reservations of a business: its plan has no more slots.

        What is older has been released at another replica, which this one does not hear of.
        """
        own = [key for key in self._reserved if key[0] == business_id]
        for key in own[: max(0, len(own) - limit)]:
            del self._reserved[key]

    def begin(self, call: CallIdentity) -> None:
        """Note that a stream of a call is live."""
        self._live[call.business_id, call.call_sid] += 1
        self._reserved.pop((call.business_id, call.call_sid), None)

    def finish(self, call: CallIdentity) -> None:
        """Note that a stream of a call has ended; its slot is held until `release`."""
        self._live[call.business_id, call.call_sid] -= 1
        if self._live[call.business_id, call.call_sid] <= 0:
            del self._live[call.business_id, call.call_sid]

    async def renew(self, live: Iterable[CallIdentity]) -> set[str]:
        """Renew the leases of live calls' slots; return the businesses that were deleted.

        Raises:
            StoreUnavailable: it is to be tried again.
        """
        by_business: dict[str, list[CallIdentity]] = {}
        for call in live:
            by_business.setdefault(call.business_id, []).append(call)
        deleted: set[str] = set()
        for business_id, calls in by_business.items():
            sids = [call.call_sid for call in calls]
            try:
                lost = await self._store.renew_slots(business_id, sids, LIVE_SECONDS)
            except UnknownBusiness:
                deleted.add(business_id)
                continue
            if lost:
                log.warning("%d slots of %s had run out; held again", len(lost), business_id)
            for call in calls:
                await self._store.mark_live(
                    business_id, call.call_sid, call.stream_sid, LIVE_SECONDS
                )
        return deleted
