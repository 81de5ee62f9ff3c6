"""Tickets as streams bring them: read, and spent once over all replicas."""

from collections.abc import Callable

from app.auth import TICKET_LIFE_SECONDS, Ticket, TicketOffice, TicketUse
from app.errors import RemoteError, StoreUnavailable, TicketInvalid, TicketSpent
from app.metrics import Metrics
from app.store.base import Store


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

    def issue(self, call_sid: str, business_id: str, plan: str, use: TicketUse) -> str:
        """Create a ticket for one stream of a call."""
        return self._office.issue(call_sid, business_id, plan, use)

    def nonce_of(self, text: str, use: TicketUse) -> str:
        """Return what is spent when a ticket of ours is, in time and for this endpoint."""
        return self._office.read(text, use).nonce

    def read(self, text: str, call_sid: str, use: TicketUse) -> Ticket:
        """Read the ticket that a stream of this call brings.

        Raises:
            RemoteError: it is forged, not in time, or for another call or endpoint.
        """
        return self._office.check(text, call_sid, use)

    async def read_unspent(self, text: str, use: TicketUse) -> Ticket:
        """Read a ticket before its stream's call is known; it stays unspent.

        Raises:
            TicketSpent: it has admitted a stream.
            RemoteError: it is forged, not in time, or for another endpoint.
        """
        ticket = self._office.read(text, use)
        is_spent = self._spent_here.get(ticket.nonce, 0.0) > self._wall_clock()
        if not is_spent:
            try:
                is_spent = await self._store.ticket_is_spent(ticket.nonce)
            except StoreUnavailable:
                self._metrics.store_errors.inc()  # it is spent at `start`, or refused there
        if is_spent:
            raise TicketSpent("this ticket has admitted a stream before")
        return ticket

    def is_forged(self, text: str, use: TicketUse) -> bool:
        """Return whether a ticket was not issued here, or for another endpoint."""
        try:
            self._office.read(text, use)
        except TicketInvalid:
            return True
        except RemoteError:
            pass
        return False

    async def spend(self, ticket: Ticket) -> None:
        """Make a ticket good for nothing more.

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
