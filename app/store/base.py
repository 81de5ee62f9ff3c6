"""The store port: configuration, one-shot tickets, admission slots, live streams.

Ids passed in are of the form `[A-Za-z0-9_.-]{1,128}`; times are in seconds.
Every method but `open` and `close` raises StoreUnavailable when the store
cannot be reached in time.
"""

import math
from collections.abc import Collection, Mapping
from enum import Enum, StrEnum
from typing import Protocol

from app.events import CallIdentity, HeldStream
from app.plans import Business, Directory, Plan
from app.store.usage import Counting, Usage
from app.store.watching import Watching

# A dead replica's slots are free, and its streams lost, after this time.
LIVE_SECONDS = 20.0
# A call has one live stream, and a second one while the first is handed over or ends.
STREAMS_OF_CALL = 2
# A call lasts a day at most; its last status callback may be late.
ANSWERED_SECONDS = 90_000.0
# A signed webhook can be replayed at any time. Longer than a call lasts: Twilio, a day.
ENDED_SECONDS = 2 * 86_400.0


class SlotAnswer(Enum):
    """Whether a call got a slot; true when it did."""

    ALL_TAKEN = 0
    TAKEN = 1
    TOO_FAST = 2
    MONTH_USED_UP = 3
    ENDED = 4
    HELD_BEFORE = 5
    BUSINESS_DELETED = 6
    STREAMS_TAKEN = 7

    def __bool__(self) -> bool:
        return self is SlotAnswer.TAKEN


class CallEnd(StrEnum):
    """How a call's end is known; remembered for ENDED_SECONDS."""

    STREAM = "stream"
    """A stream of it has ended. The call itself may go on, and come back."""
    FINAL = "final"
    """Its carrier has reported its end."""


class StreamClaim(Enum):
    """Whether a process got a stream's id for itself; the values are reasons of refusals."""

    GRANTED = ""
    OTHER_BUSINESS = "business_mismatch"
    LIVE_ELSEWHERE = "stream_already_live"


class Store(Usage, Watching, Protocol):
    """Keep what all replicas share."""

    async def open(self) -> None:
        """Make ready; does not fail when the store is away."""

    async def close(self) -> None:
        """Let go of every connection."""

    async def check(self) -> None:
        """Raise StoreUnavailable unless a slot could be taken now."""

    async def durability_warnings(self) -> list[str]:
        """Say in sentences what a restart of the store would lose; never raises.

        Nothing where that cannot be told.
        """

    async def load_if_empty(self, directory: Directory) -> bool:
        """Take over `directory` when nothing was ever configured; tell whether it was."""

    async def confirm_configuration(self) -> str | None:
        """Return the version of the configuration, which every edit changes.

        None while an edit is under way; empty where nothing is configured. What was read
        under the version that was confirmed last is served while the store is away, for
        900 s; what was read under another is read again.
        """

    @property
    def answers_from_memory(self) -> bool:
        """Return whether such a thing was served since the last confirmation."""

    async def plan(self, name: str) -> Plan | None:
        """Give the plan of this name; while the store is away, as `confirm_configuration` says.

        Raises:
            ConfigurationError: what is stored cannot be read.
        """

    async def business(self, business_id: str) -> Business | None:
        """Give the business of this id; as `plan`."""

    async def business_of_number(self, dialled: str) -> Business | None:
        """Give the business that owns this number, in any of its dialled forms; as `plan`."""

    async def business_of_pair(self, digest: str) -> Business | None:
        """Give the business that has this Exotel pair for its own, by its digest; as `plan`."""

    async def secrets_of(self, business_id: str) -> Mapping[str, str]:
        """Give a business's secrets by name, each sealed; as `plan`."""

    async def lookup(self, business_id: str) -> tuple[Business, Plan] | None:
        """Give a business with its plan; None when either is missing."""

    async def spend_ticket(self, nonce: str, ttl_seconds: float) -> bool:
        """Redeem a ticket; False when it was spent within `ttl_seconds` before."""

    async def ticket_is_spent(self, nonce: str) -> bool:
        """Return whether a ticket was redeemed, in the time for which that is remembered."""

    async def first_seen(self, call_sid: str, ttl_seconds: float) -> bool:
        """Tell whether this call is asked about for the first time in `ttl_seconds`."""

    async def note_answered(self, call_sid: str, business_id: str, ttl_seconds: float) -> bool:
        """Note that a call was answered for a business; return whether it was the first time.

        For calls of the service's own account, whose CallSids are unique.
        """

    async def answered_by(self, call_sid: str) -> str | None:
        """Return the business for which such a call was answered first."""

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
        """Hold one of `limit` slots for a call, unless `per_second` were taken just now.

        Atomic over replicas. A call that holds a slot keeps it, whatever the
        limits, and its lease never gets shorter. Leases that ran out don't count.

        With `refused_after` the call is refused when it has ended in this way, or for good
        by its carrier's report. A call that takes over a slot from a made-up id (`counting`)
        is refused when it holds one already: that is another stream's.

        With `counting` the call counts in its month, the first time it takes a slot,
        and is refused when the month's hard limits are reached.

        With `stream_sid` it is for this stream of the call, which is live for LIVE_SECONDS
        or until `mark_live`, and is refused beside STREAMS_OF_CALL others that are live.
        """

    async def renew_slots(
        self, business_id: str, call_sids: Collection[str], lease_seconds: float
    ) -> set[str]:
        """Lengthen the leases of calls that live; give those whose slot was lost.

        A lost slot is held again, over the limit if need be: its call goes on.

        Raises:
            UnknownBusiness: the business was deleted; its streams are to be ended.
        """

    async def free_slot(
        self, business_id: str, call_sid: str, ended: CallEnd | None = None
    ) -> None:
        """Free a call's slot, if it holds one, and remember how the call `ended`.

        The slot of a call that has a live stream, at any replica, stays until that ends.
        """

    async def slots_taken(self, business_id: str) -> int:
        """Count the slots whose lease runs."""

    async def mark_live(
        self, business_id: str, call_sid: str, stream_sid: str, lease_seconds: float
    ) -> None:
        """Say that this stream of the call is live; the last one said counts."""

    async def unmark_live(self, business_id: str, call_sid: str, stream_sid: str) -> None:
        """Say that this stream has ended; another live one of the call stays."""

    async def live_stream(self, business_id: str, call_sid: str) -> str | None:
        """Name the call's live stream; None when there is none or its lease ran out."""

    async def claim_stream(self, held: HeldStream, lease_seconds: float) -> StreamClaim:
        """Claim a stream's id for this replica, and begin its lease.

        Atomic over replicas. It is refused while another replica's lease of the id runs,
        and where what is kept under the id is another business's.
        """

    async def business_of_stream(self, stream_sid: str) -> str | None:
        """Return the business whose stream has this id; None where there is no such stream."""

    async def call_of_stream(self, stream_sid: str) -> CallIdentity | None:
        """Return the business and the call of a stream; None where there is no such stream.

        The CallSid is empty where it is not known yet.
        """

    async def release_claim(self, held: HeldStream) -> None:
        """Let a stream's id be claimed again, also by another replica; its lease runs on."""

    async def hold_streams(
        self, streams: Collection[HeldStream], lease_seconds: float
    ) -> list[tuple[HeldStream, StreamClaim]]:
        """Begin or renew the leases of streams that this replica holds.

        A reaper may have claimed one: the holder, being alive, has it back. Returns the
        streams whose id another holder has by now, and whose it is; they are not held.
        """

    async def replaced_streams(
        self, streams: Collection[HeldStream]
    ) -> list[tuple[HeldStream, StreamClaim]]:
        """Return the streams whose record is another's by now, and whose it is.

        That is another business's, or one that began later. A replica of 0.1 opens a stream
        without a claim, so that `hold_streams` does not know of it.
        """

    async def held_streams(self) -> list[HeldStream]:
        """Give every stream that a replica holds, or held until it died a moment ago."""

    async def let_go(self, streams: Collection[HeldStream]) -> None:
        """Give leases up; no effect on a stream that has none."""

    async def claim_lost_streams(
        self, limit: int, lease_seconds: float, claim_seconds: float
    ) -> list[HeldStream]:
        """Take over at most `limit` streams whose lease ran out, for `claim_seconds`.

        Atomic over replicas. What is not let go in that time can be claimed again,
        so one that dies with a claim loses nothing.

        None are given before replicas have reached the store for `lease_seconds`,
        without a pause of half as long: while nobody reaches it, the leases of
        the living run out too.
        """
