"""The port by which calls are held to their limits."""

import math
from typing import Protocol

from app.events import HeldStream
from app.store.base import CallEnd
from app.store.usage import Counting


class Slots(Protocol):
    """Hold calls to their limits; `Registry` does."""

    def check_room(self, business_id: str = "") -> None:
        """Raise Draining or ProcessFull when this process takes no new call of a business."""

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
        """Hold a slot of a plan for a call, or for a stream of it; it counts in its month.

        Raises:
            CallEnded, TicketInvalid, TooManyStreams, PlanLimitReached, CallRateExceeded,
            MonthlyLimitReached: it may not.
        """

    async def claim(self, held: HeldStream) -> bool:
        """Make a stream's id this process's own; return whether the store has confirmed it.

        Raises:
            StreamAlreadyLive, BusinessMismatch, TooManyStreams, ProcessFull: it may not.
        """

    async def disclaim(self, stream_sid: str) -> None:
        """Give a claim back."""
