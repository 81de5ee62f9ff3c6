"""Whose address a connection comes from, when proxies stand between."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

# The header in which proxies name their clients, unless CLIENT_ADDRESS_HEADER says another.
FORWARDED_FOR = "x-forwarded-for"

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# Where proxies are that stand between the Internet and this service: loopback, link-local
# and private networks, and 100.64.0.0/10, which platforms use for theirs.
_LOCAL_NETWORKS: tuple[Network, ...] = tuple(
    ip_network(text)
    for text in (
        "127.0.0.0/8",
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "169.254.0.0/16",
        "100.64.0.0/10",
        "::1/128",
        "fc00::/7",
        "fe80::/10",
    )
)


@dataclass(frozen=True, slots=True)
class ClientSource:
    """Where a request comes from, as failures are counted: an address, of IPv6 its /64.

    With `is_shared`, many clients may have this address: it is a proxy's that does not
    say for whom it asks, or one that is not in TRUSTED_PROXIES.
    """

    address: str
    is_shared: bool = False


def client_source(
    peer: str, forwarded_for: Sequence[str], trusted: Sequence[Network]
) -> ClientSource:
    """Return where a request comes from; the arguments are those of `client_address`.

    A private address that forwards for others counts as a proxy, also when it is not
    trusted: then nothing tells its clients apart. A public one does not, or any client
    could escape its limit with a header.
    """
    address = client_address(peer, forwarded_for, trusted)
    if address is None:
        return ClientSource("unknown", is_shared=True)
    is_proxy = is_in(address, trusted)
    is_unknown_proxy = (
        any(forwarded_for)
        and is_in(address, _LOCAL_NETWORKS)
        and address == client_address(peer, (), ())
    )
    name = str(address)
    if isinstance(address, IPv6Address):
        name = str(ip_network((address, 64), strict=False))
    return ClientSource(name, is_shared=is_proxy or is_unknown_proxy)


def client_address(
    peer: str, forwarded_for: Sequence[str], trusted: Sequence[Network]
) -> Address | None:
    """Find the client's address: the right-most that no trusted proxy has.

    Each proxy appends whom it heard, so what stands left of that address was
    written by a stranger. `forwarded_for` are the values of `X-Forwarded-For`,
    read only if `peer` is a trusted proxy; with a hop that is no address, or
    none but proxies, the answer is `peer`. None if that is no address.
    """
    socket_address = _address(peer)
    if socket_address is None or not is_in(socket_address, trusted):
        return socket_address
    for hop in reversed(",".join(forwarded_for).split(",")):
        address = _address(hop)
        if address is None:
            break
        if not is_in(address, trusted):
            return address
    return socket_address


def is_trusted_peer(peer: str, trusted: Sequence[Network]) -> bool:
    """Return whether the other end of a socket is a trusted proxy."""
    address = _address(peer)
    return address is not None and is_in(address, trusted)


# Some proxies append the port: 192.0.2.1:443, [2001:db8::1]:443.
_WITH_PORT = re.compile(r"\[([0-9a-fA-F:.]+)\](?::[0-9]{1,5})?|([0-9.]+):[0-9]{1,5}")


def _address(text: str) -> Address | None:
    text = text.strip(" \t")
    if found := _WITH_PORT.fullmatch(text):
        text = found[1] or found[2]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    # A socket for both families shows an IPv4 peer as ::ffff:192.0.2.1.
    return getattr(address, "ipv4_mapped", None) or address


def is_in(address: Address, networks: Sequence[Network]) -> bool:
    """Tell whether one of the networks holds the address."""
    return any(address in network for network in networks)
