"""The store of a process that stands alone; it forgets all when it ends."""

import math
from collections.abc import Callable, Collection

from app.errors import UnknownBusiness
from app.events import CallIdentity, HeldStream
from app.store.base import (
    ENDED_SECONDS,
    LIVE_SECONDS,
    STREAMS_OF_CALL,
    CallEnd,
    SlotAnswer,
    StreamClaim,
)
from app.store.memory_configuration import MemoryConfiguration
from app.store.memory_usage import MemoryUsage
from app.store.memory_watching import MemoryWatching
from app.store.once import Once
from app.store.pace import Pace, RecentCalls
from app.store.usage import Counting, month_of


class MemoryStore(MemoryConfiguration, MemoryUsage, MemoryWatching):
    """Keep everything in this process. `clock` gives monotonic seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        MemoryConfiguration.__init__(self, lambda id_: bool(self._running_slots(id_)))
        MemoryUsage.__init__(self, clock)
        MemoryWatching.__init__(self, clock)
        self._clock = clock
        self._spent = Once(clock)
        self._seen = Once(clock)
        self._answered = Once(clock)
        self._answered_by: dict[str, str] = {}
        self._ended = {how: Once(clock) for how in CallEnd}
        self._slots: dict[str, dict[str, float]] = {}
        self._recent = RecentCalls(clock)
        self._live: dict[tuple[str, str], tuple[str, float]] = {}
        self._streams: dict[tuple[str, str], dict[str, float]] = {}
        self._leases: dict[tuple[str, int], tuple[HeldStream, float]] = {}
        self._claims: dict[str, HeldStream] = {}
        self._reached_since = self._reached_last = clock()

    async def open(self) -> None:
        """Do nothing: memory is there."""

    async def close(self) -> None:
        """Do nothing: memory goes with the process."""

    async def check(self) -> None:
        """Do nothing: memory can always be reached."""

    async def durability_warnings(self) -> list[str]:
        """Say what a restart would lose: here all, as whoever chose memory knows."""
        return []

    async def spend_ticket(self, nonce: str, ttl_seconds: float) -> bool:
        """Redeem a ticket; False when it was spent within `ttl_seconds` before."""
        return self._spent.first(nonce, ttl_seconds)

    async def ticket_is_spent(self, nonce: str) -> bool:
        """Return whether a ticket was redeemed."""
        return self._spent.knows(nonce)

    async def first_seen(self, call_sid: str, ttl_seconds: float) -> bool:
        """Tell whether this call is asked about for the first time in `ttl_seconds`."""
        return self._seen.first(call_sid, ttl_seconds)

    async def note_answered(self, call_sid: str, business_id: str, ttl_seconds: float) -> bool:
        """Note that a call was answered for a business."""
        is_first = self._answered.first(call_sid, ttl_seconds)
        if is_first:
            self._answered_by.pop(call_sid, None)
            self._answered_by[call_sid] = business_id
        # Their order is that in which they were noted.
        for old in list(self._answered_by):
            if self._answered.knows(old):
                break
            del self._answered_by[old]
        return is_first

    async def answered_by(self, call_sid: str) -> str | None:
        """Return the business for which a call was answered first."""
        return self._answered_by.get(call_sid) if self._answered.knows(call_sid) else None

    async def take_slot(
        self,
        business_id: str,
        call_sid: str,
        limit: int,
        lease_seconds: float,
        per_second: float = math.inf,
        counting: Counting | None = None,
        refused_after: CallEnd | None = None,
        stream_sid: str = "",
    ) -> SlotAnswer:
        """Hold one of `limit` slots for a call, unless `per_second` were taken just now."""
        if business_id in self._deleted:
            return SlotAnswer.BUSINESS_DELETED
        slots, pace = self._running_slots(business_id), Pace.of(per_second)
        if refused_after and self._has_ended(business_id, call_sid, refused_after):
            return SlotAnswer.ENDED
        streams = self._running_streams(business_id, call_sid)
        if stream_sid and len(streams.keys() - {stream_sid}) >= STREAMS_OF_CALL:
            return SlotAnswer.STREAMS_TAKEN
        inherits = False
        if counting is not None and counting.takes_over:
            if call_sid in slots:
                return SlotAnswer.HELD_BEFORE
            inherits = slots.pop(counting.takes_over, None) is not None
        if call_sid not in slots and not inherits:
            if counting is not None and not self.allows(business_id, call_sid, counting):
                return SlotAnswer.MONTH_USED_UP
            if len(slots) >= limit:
                return SlotAnswer.ALL_TAKEN
            if not self._recent.has_room(business_id, pace):
                return SlotAnswer.TOO_FAST
            self._recent.add(business_id, pace)
        self._lengthen(business_id, call_sid, lease_seconds)
        if stream_sid:
            self._streams[business_id, call_sid] = {
                **streams,
                stream_sid: self._clock() + LIVE_SECONDS,
            }
        if counting is not None:
            month = month_of(counting.at)
            self.count_call(business_id, call_sid, month, counting.at, counting.takes_over)
        return SlotAnswer.TAKEN

    async def renew_slots(
        self, business_id: str, call_sids: Collection[str], lease_seconds: float
    ) -> set[str]:
        """Lengthen the leases of calls that live; give those whose slot was lost."""
        if business_id in self._deleted:
            raise UnknownBusiness("the business was deleted")
        lost = set(call_sids) - self._running_slots(business_id).keys()
        for call_sid in call_sids:
            self._lengthen(business_id, call_sid, lease_seconds)
        return lost

    async def free_slot(
        self, business_id: str, call_sid: str, ended: CallEnd | None = None
    ) -> None:
        """Free a call's slot, unless a stream of it is live, and remember how it `ended`."""
        if ended is not None and business_id not in self._deleted:
            self._ended[ended].first(f"{business_id}:{call_sid}", ENDED_SECONDS)
        if await self.live_stream(business_id, call_sid) is not None:
            return
        slots = self._running_slots(business_id)
        slots.pop(call_sid, None)
        if not slots:
            self._slots.pop(business_id, None)

    async def slots_taken(self, business_id: str) -> int:
        """Count the slots whose lease runs."""
        return len(self._running_slots(business_id))

    async def mark_live(
        self, business_id: str, call_sid: str, stream_sid: str, lease_seconds: float
    ) -> None:
        """Say that this stream of the call is live; the last one said counts."""
        expires_at = self._clock() + lease_seconds
        self._live[business_id, call_sid] = stream_sid, expires_at
        streams = self._running_streams(business_id, call_sid)
        self._streams[business_id, call_sid] = {**streams, stream_sid: expires_at}

    async def unmark_live(self, business_id: str, call_sid: str, stream_sid: str) -> None:
        """Say that this stream has ended; another live one of the call stays."""
        streams = self._running_streams(business_id, call_sid)
        streams.pop(stream_sid, None)
        if not streams:
            self._streams.pop((business_id, call_sid), None)
        if self._live.get((business_id, call_sid), ("", 0.0))[0] == stream_sid:
            del self._live[business_id, call_sid]

    async def live_stream(self, business_id: str, call_sid: str) -> str | None:
        """Name the call's live stream; None when there is none or its lease ran out."""
        stream_sid, expires_at = self._live.get((business_id, call_sid), ("", 0.0))
        return stream_sid if stream_sid and expires_at > self._clock() else None

    async def claim_stream(self, held: HeldStream, lease_seconds: float) -> StreamClaim:
        """Claim a stream's id, unless another holds it."""
        refused = await self.hold_streams([held], lease_seconds)
        return refused[0][1] if refused else StreamClaim.GRANTED

    async def business_of_stream(self, stream_sid: str) -> str | None:
        """Return the business whose stream has this id; None where there is no such stream."""
        holder = self._claims.get(stream_sid)
        return holder.call.business_id if holder is not None else None

    async def call_of_stream(self, stream_sid: str) -> CallIdentity | None:
        """Return the business and the call of a stream; None where there is no such stream."""
        holder = self._claims.get(stream_sid)
        return holder.call if holder is not None else None

    async def release_claim(self, held: HeldStream) -> None:
        """Let a stream's id be claimed again; no effect where another has claimed it."""
        holder = self._claims.get(held.call.stream_sid)
        if holder is not None and _claim(holder) == _claim(held):
            del self._claims[held.call.stream_sid]

    async def hold_streams(
        self, streams: Collection[HeldStream], lease_seconds: float
    ) -> list[tuple[HeldStream, StreamClaim]]:
        """Begin or renew the leases of streams that this replica holds."""
        self._note_reached(lease_seconds)
        refused = []
        for held in streams:
            other = self._other_holder(held, lease_seconds)
            if other is None:
                self._leases[_life(held)] = held, self._clock() + lease_seconds
                self._claims[held.call.stream_sid] = held
            elif other.call.business_id == held.call.business_id:
                refused.append((held, StreamClaim.LIVE_ELSEWHERE))
            else:
                refused.append((held, StreamClaim.OTHER_BUSINESS))
        return refused

    async def replaced_streams(
        self, streams: Collection[HeldStream]
    ) -> list[tuple[HeldStream, StreamClaim]]:
        """Return none: no other replica writes into this process."""
        return []

    def _other_holder(self, held: HeldStream, lease_seconds: float) -> HeldStream | None:
        """Return what holds the id of a stream in its place."""
        other = self._claims.get(held.call.stream_sid)
        if other is None or _claim(other) == _claim(held):
            return None
        _, runs_until = self._leases.get(_life(other), (other, None))
        if runs_until is None:
            return None
        now = self._clock()
        may_have_run_out = now - self._reached_since >= lease_seconds
        return None if may_have_run_out and runs_until <= now else other

    async def held_streams(self) -> list[HeldStream]:
        """Give every stream that is held."""
        return [held for held, _ in self._leases.values()]

    async def let_go(self, streams: Collection[HeldStream]) -> None:
        """Give leases up; no effect on a stream that has none."""
        for held in streams:
            await self.release_claim(held)
            holder = self._claims.get(held.call.stream_sid)
            if holder is None or _life(holder) != _life(held):
                self._leases.pop(_life(held), None)

    async def claim_lost_streams(
        self, limit: int, lease_seconds: float, claim_seconds: float
    ) -> list[HeldStream]:
        """Take over at most `limit` streams whose lease ran out, for `claim_seconds`."""
        self._note_reached(lease_seconds)
        now = self._clock()
        if now - self._reached_since < lease_seconds:
            return []
        lost = [held for held, expires_at in self._leases.values() if expires_at <= now][:limit]
        for held in lost:
            self._leases[_life(held)] = held, now + claim_seconds
        return lost

    def _has_ended(self, business_id: str, call_sid: str, how: CallEnd) -> bool:
        name = f"{business_id}:{call_sid}"
        return self._ended[CallEnd.FINAL].knows(name) or self._ended[how].knows(name)

    def _note_reached(self, lease_seconds: float) -> None:
        """Notice a pause of the whole process, which has renewed nothing meanwhile."""
        now = self._clock()
        if now - self._reached_last > lease_seconds / 2:
            self._reached_since = now
        self._reached_last = now

    def _running_slots(self, business_id: str) -> dict[str, float]:
        now = self._clock()
        slots = self._slots.get(business_id, {})
        for call_sid in [sid for sid, expires_at in slots.items() if expires_at <= now]:
            del slots[call_sid]
        return slots

    def _running_streams(self, business_id: str, call_sid: str) -> dict[str, float]:
        streams, now = self._streams.get((business_id, call_sid), {}), self._clock()
        for stream_sid in [sid for sid, expires_at in streams.items() if expires_at <= now]:
            del streams[stream_sid]
        return streams

    def _lengthen(self, business_id: str, call_sid: str, lease_seconds: float) -> None:
        slots = self._slots.setdefault(business_id, {})
        expires_at = self._clock() + lease_seconds
        slots[call_sid] = max(slots.get(call_sid, expires_at), expires_at)


def _claim(held: HeldStream) -> tuple[int, str]:
    return held.started_at, held.call.business_id


def _life(held: HeldStream) -> tuple[str, int]:
    return held.call.stream_sid, held.started_at
