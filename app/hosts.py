"""Names and addresses of hosts: whether they are any, and whether strangers reach them."""

import ipaddress
import re

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
        return address.is_global
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


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None
