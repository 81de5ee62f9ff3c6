"""Tickets as streams bring them: read, and spent once over all replicas."""

from collections.abc import Callable

from app.auth import TICKET_LIFE_SECONDS, Ticket, TicketOffice
from app.errors import BridgeError, StoreUnavailable, TicketSpent
from app.metrics import Metrics
from app.store.base import Store

# The beginning of a call's id that is ours, where a carrier has not told its own yet.
MADE_UP_CALL = "url-"


class TicketCheck:
    """Issue, read and spend tickets; `wall_clock` gives Unix seconds.

    While the store is away a ticket is spent once in this process.
    """

    def __init__(
        self,
        office: TicketOffice,
        store: Store,
        metrics: Metrics,
        wall_clock: Callable[[], float],
    ) -> None:
        self._office = office
        self._store = store
        self._metrics = metrics
        self._wall_clock = wall_clock
        self._spent_here: dict[str, float] = {}

    def issue(self, call_sid: str, business_id: str, plan: str) -> str:
        """Give a ticket for one stream of a call."""
        return self._office.issue(call_sid, business_id, plan)

    def holds(self, text: str) -> bool | None:
        """Tell whether a ticket is ours and in time; None of an empty text."""
        if not text:
            return None
        try:
            self._office.read(text)
        except BridgeError:
            return False
        return True

    def read(self, text: str, call_sid: str) -> Ticket:
        """Read the ticket that a stream of this call brings.

        One that was given before the call's id was known is good for any call.

        Raises:
            RemoteError: it is not ours, not in time, or another call's.
        """
        ticket = self._office.read(text)
        if ticket.call_sid.startswith(MADE_UP_CALL):
            return ticket
        return self._office.check(text, call_sid)

    async def spend(self, ticket: Ticket) -> None:
        """Let a ticket be good for nothing more.

        Raises:
            TicketSpent: it was before.
        """
        now = self._wall_clock()
        self._spent_here = {nonce: end for nonce, end in self._spent_here.items() if end > now}
        fresh = ticket.nonce not in self._spent_here
        self._spent_here[ticket.nonce] = now + TICKET_LIFE_SECONDS
        try:
            fresh = await self._store.spend_ticket(ticket.nonce, TICKET_LIFE_SECONDS) and fresh
        except StoreUnavailable:
            self._metrics.store_errors.inc()
            self._metrics.local_decisions.labels("ticket").inc()
        if not fresh:
            raise TicketSpent("this ticket has admitted a stream before")
