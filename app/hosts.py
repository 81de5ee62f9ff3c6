"""Names and addresses of hosts: whether they are any, and whether strangers reach them."""

import ipaddress
import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final

# RFC 1123, 2.1; and the underscore, which names of containers have.
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
HOST_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*", re.IGNORECASE | re.ASCII)


def is_host(text: str) -> bool:
    """Tell whether it is an address, or a name that a host may have."""
    return HOST_NAME.fullmatch(text) is not None or _address(text) is not None


def is_address(text: str) -> bool:
    """Tell whether it is an IP address."""
    return _address(text) is not None


def is_public(host: str) -> bool:
    """Tell whether strangers can reach it, as far as a name or an address shows that."""
    address = _address(host)
    if address is not None:
        return is_public_address(host)
    name = host.rstrip(".").lower()
    local = (".local", ".localhost", ".test", ".internal", ".lan")
    return "." in name and not name.endswith(local)


def is_loopback(host: str) -> bool:
    """Return whether this names the machine itself (RFC 6761, 6.3)."""
    address = _address(host)
    if address is not None:
        return address.is_loopback
    name = host.rstrip(".").lower()
    return name == "localhost" or name.endswith(".localhost")


# IANA, "IPv4 Special-Purpose Address Registry" and "IPv4 Multicast Address Space".
_IPV4_SPECIAL: Final = tuple(
    IPv4Network(one)
    for one in (
        "0.0.0.0/8",  # this network (RFC 791)
        "10.0.0.0/8",  # private use (RFC 1918)
        "100.64.0.0/10",  # shared address space (RFC 6598)
        "127.0.0.0/8",  # loopback (RFC 1122)
        "169.254.0.0/16",  # link local (RFC 3927)
        "172.16.0.0/12",  # private use (RFC 1918)
        "192.0.0.0/24",  # IETF protocol assignments (RFC 6890)
        "192.0.2.0/24",  # documentation (RFC 5737)
        "192.31.196.0/24",  # AS112 (RFC 7535)
        "192.52.193.0/24",  # AMT (RFC 7450)
        "192.88.99.0/24",  # 6to4 relays, deprecated (RFC 7526)
        "192.168.0.0/16",  # private use (RFC 1918)
        "192.175.48.0/24",  # AS112 (RFC 7534)
        "198.18.0.0/15",  # benchmarking (RFC 2544)
        "198.51.100.0/24",  # documentation (RFC 5737)
        "203.0.113.0/24",  # documentation (RFC 5737)
        "224.0.0.0/4",  # multicast (RFC 5771)
        "240.0.0.0/4",  # reserved, and broadcast (RFC 1112, RFC 8190)
    )
)
# IANA, "IPv6 Global Unicast Address Assignments": all that is assigned is in here. What is not
# (::, ::1, IPv4-compatible, 64:ff9b:1::/48, 100::/64, 5f00::/16, fc00::/7, fe80::/10,
# fec0::/10, ff00::/8) is special, or nobody's.
_IPV6_UNICAST: Final = IPv6Network("2000::/3")
# IANA, "IPv6 Special-Purpose Address Registry", as far as it is in that.
_IPV6_SPECIAL: Final = tuple(
    IPv6Network(one)
    for one in (
        "2001::/23",  # IETF protocol assignments: Teredo, benchmarking, ORCHID, … (RFC 2928)
        "2001:db8::/32",  # documentation (RFC 3849)
        "2620:4f:8000::/48",  # AS112 (RFC 7534)
        "3fff::/20",  # documentation (RFC 9637)
    )
)
# Addresses that stand for an IPv4 address: mapped (RFC 4291, 2.5.5.2), NAT64 (RFC 6052, 2.1).
_IPV4_IN_LAST_BYTES: Final = (IPv6Network("::ffff:0:0/96"), IPv6Network("64:ff9b::/96"))
_6TO4: Final = IPv6Network("2002::/16")  # RFC 3056
# ISATAP's interface identifiers (RFC 5214, 6.1), before the IPv4 address that they are of.
_ISATAP: Final = frozenset({0x00005EFE, 0x02005EFE})


def is_public_address(text: str) -> bool:
    """Return whether an address is of the public Internet, and so is one inside it."""
    address = _address(text)
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _IPV4_SPECIAL)
    if address is None or address.scope_id is not None:
        return False
    number = int(address)
    if any(address in network for network in _IPV4_IN_LAST_BYTES):
        return is_public_address(str(IPv4Address(number & 0xFFFFFFFF)))
    if address in _6TO4:
        return is_public_address(str(IPv4Address(number >> 80 & 0xFFFFFFFF)))
    is_special = any(address in network for network in _IPV6_SPECIAL)
    return address in _IPV6_UNICAST and not is_special and number >> 32 & 0xFFFFFFFF not in _ISATAP


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None
