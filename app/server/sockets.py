"""Who is connected and has not shown yet that it carries a call: counted, and bounded."""

import logging
import resource
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from ipaddress import IPv6Address, ip_network
from typing import Protocol

from app.businesses.shares import leaves_room
from app.credentials.addresses import Network, client_address, is_in
from app.errors import TooManyFromAddress, TooManySockets
from app.metrics import Metrics
from app.server.rounds import Rounds
from app.server.rules import Fault, SocketRules

log = logging.getLogger(__name__)

# Streams, sockets that wait, HTTP connections and what this process opens itself.
WANTED_FILES = 65_536


class Connection(Protocol):
    """A plain HTTP connection, seen by who counts it."""

    def give_way(self) -> None:
        """Close, for a newer one."""


class Connections:
    """The plain HTTP connections of a process: at most `most` of them.

    Who comes is let in, and who has waited longest gives way: a webhook's
    connection asks at once and is answered in milliseconds, one that was opened
    to take up room says nothing, or says it slowly. A connection whose request
    is being answered never gives way.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._waiting: dict[Connection, None] = {}  # the longest first
        self._served: set[Connection] = set()

    def __len__(self) -> int:
        return len(self._waiting) + len(self._served)

    def add(self, connection: Connection) -> bool:
        """Count a new one; False, and not counted, when there is no room to be made."""
        if len(self) >= self._most:
            if not self._waiting:
                return False
            longest = next(iter(self._waiting))
            self.remove(longest)
            longest.give_way()
        self._waiting[connection] = None
        return True

    def serve(self, connection: Connection) -> None:
        """Note that its request has come whole."""
        if connection in self._waiting:
            del self._waiting[connection]
            self._served.add(connection)

    def wait(self, connection: Connection) -> None:
        """Note that it is answered, and may ask again."""
        if connection in self._served:
            self._served.discard(connection)
            self._waiting[connection] = None

    def remove(self, connection: Connection) -> None:
        """Count it no more; once is enough."""
        self._waiting.pop(connection, None)
        self._served.discard(connection)


class UnadmittedSockets:
    """The media sockets whose stream is not admitted yet: in all, by address and by business."""

    def __init__(self, most: int, most_per_address: int) -> None:
        self._most = most
        self._most_per_address = most_per_address
        self._by_address: Counter[str] = Counter()
        self._by_business: Counter[str] = Counter()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def enter(self, address: str) -> None:
        """Count a socket of this address; empty where the address tells nothing.

        Raises:
            TooManySockets: the process holds as many as it may.
            TooManyFromAddress: this address does.
        """
        if self._count >= self._most:
            raise TooManySockets(f"{self._most} sockets wait to be admitted; try again")
        if address and self._by_address[address] >= self._most_per_address:
            raise TooManyFromAddress(
                f"{self._most_per_address} sockets of your address wait to be admitted; try again"
            )
        self._count += 1
        if address:
            self._by_address[address] += 1

    def assign(self, business_id: str) -> None:
        """Count a socket that has entered for the business whose credential it showed.

        Raises:
            TooManySockets: the business has as many as are free for others.
        """
        if not leaves_room(self._by_business[business_id], self._count - 1, self._most):
            raise TooManySockets(
                f"{self._by_business[business_id]} sockets of your business wait to be admitted; "
                "send start on them, or try again"
            )
        self._by_business[business_id] += 1

    def leave(self, address: str, business_id: str = "") -> None:
        """Count it no more: its stream is admitted, or it is gone."""
        self._count -= 1
        if business_id:
            self._by_business[business_id] -= 1
            if not self._by_business[business_id]:
                del self._by_business[business_id]
        if address:
            self._by_address[address] -= 1
            if not self._by_address[address]:
                del self._by_address[address]


def counted_address(peer: str, forwarded_for: Sequence[str], trusted: Sequence[Network]) -> str:
    """Name whom a socket is counted for; empty where its address tells nothing.

    That is so for a proxy we trust and which does not say for whom it asks, and
    for a private address: there stands a platform's router, or a neighbour. An
    IPv6 client owns a /64 at least, so that is what is counted.
    """
    address = client_address(peer, forwarded_for, trusted)
    own = client_address(peer, (), ())
    if address is None or is_in(address, trusted) or (address == own and not address.is_global):
        return ""
    if isinstance(address, IPv6Address):
        return str(ip_network((address, 64), strict=False))
    return str(address)


class Doorkeeper:
    """What all sockets of a process share: rules, counts, rounds, and who was sent away."""

    def __init__(self, rules: SocketRules, metrics: Metrics) -> None:
        self.rules = rules
        self.connections = Connections(rules.max_unadmitted)
        self.unadmitted = UnadmittedSockets(rules.max_unadmitted, rules.max_unadmitted_per_address)
        self.rounds = Rounds()
        self._closed = metrics.sockets_closed

    def note(self, fault: Fault, client: tuple[str, int] | None) -> None:
        """Count and tell that a peer's socket is closed, or was not opened."""
        self._closed.labels(fault).inc()
        # The fault is part of the template: each kind of line is told sparingly for itself.
        log.warning(f"[server] ✂️ Socket closed: {fault} - %s", client[0] if client else "unknown")


def raise_file_limit() -> None:
    """Let this process open as many sockets as the platform allows, within reason."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = WANTED_FILES if hard == resource.RLIM_INFINITY else min(hard, WANTED_FILES)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
