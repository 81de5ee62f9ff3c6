"""What a setting can be: small values that are not plain text or numbers."""

import ipaddress
from dataclasses import dataclass
from enum import StrEnum
from typing import Final
from urllib.parse import urlsplit

from app.hosts import is_public

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


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
class OperatorSecret:
    """An operator's token: its SHA-256 digest in hexadecimal, and whose it is, if it has a name."""

    name: str
    digest: Secret


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
