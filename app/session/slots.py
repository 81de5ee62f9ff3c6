"""The port by which calls are held to their limits."""

import math
from typing import Protocol

from app.events import HeldStream
from app.store.base import CallEnd
from app.store.usage import Counting


class Slots(Protocol):
    """Hold calls to their limits; `Registry` does."""

    def check_room(self) -> None:
        """Raise Draining or ProcessFull when this process takes no new call."""

    async def reserve(
        self,
        business_id: str,
        call_sid: str,
        limit: int,
        per_second: float = math.inf,
        counting: Counting | None = None,
        refused_after: CallEnd | None = None,
    ) -> None:
        """Hold a slot of a plan for a call, which counts in its month.

        Raises:
            CallEnded, TicketInvalid, PlanLimitReached, CallRateExceeded,
            MonthlyLimitReached: it may not.
        """

    async def claim(self, held: HeldStream) -> bool:
        """Make a stream's id this process's own; return whether the store has confirmed it.

        Raises:
            StreamAlreadyLive, BusinessMismatch, ProcessFull: it may not.
        """

    async def disclaim(self, stream_sid: str) -> None:
        """Give a claim back."""
