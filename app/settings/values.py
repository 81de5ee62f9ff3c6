"""What a setting can be: small values that are not plain text or numbers."""

import ipaddress
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final
from urllib.parse import urlsplit

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
# RFC 1123, 2.1; and the underscore, which names of containers have.
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
HOST_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*", re.IGNORECASE | re.ASCII)


class Adapter(StrEnum):
    """Where frames are published."""

    REDIS_STREAMS = "redis_streams"
    REDIS_PUBSUB = "redis_pubsub"
    MEMORY = "memory"


class Unsigned(StrEnum):
    """Whether requests without a signature are served: `public` also on a public host."""

    NO = "false"
    YES = "true"
    PUBLIC = "public"


class Secret:
    """A text that no log, message or traceback may show.

    No dataclass: `dataclasses.asdict` would take it apart.
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text: Final = text

    def reveal(self) -> str:
        """Give the text to what must know it."""
        return self._text

    def __repr__(self) -> str:
        return "****"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)


@dataclass(frozen=True, slots=True)
class PublicUrl:
    """Where the world reaches this service: `http_base` without a trailing slash."""

    http_base: str

    @property
    def ws_base(self) -> str:
        """Give the same place for WebSockets: `wss://` for https, `ws://` for http."""
        return "ws" + self.http_base.removeprefix("http")

    @property
    def is_public(self) -> bool:
        """Tell whether strangers can reach it."""
        return is_public(urlsplit(self.http_base).hostname or "")


def is_host(text: str) -> bool:
    return HOST_NAME.fullmatch(text) is not None or _address(text) is not None


def is_public(host: str) -> bool:
    address = _address(host)
    if address is not None:
        return address.is_global
    name = host.rstrip(".").lower()
    local = (".local", ".localhost", ".test", ".internal", ".lan")
    return "." in name and not name.endswith(local)


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None
