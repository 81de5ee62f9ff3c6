"""The service that a tool places calls on: its URL, what is shown there, what it answers."""

from dataclasses import dataclass, field
from typing import Final
from urllib.parse import SplitResult, urlsplit

import httpx
import msgspec

from app.errors import CallRefused, CommandFailed

# Numbers of tests, which are nobody's (twilio.com/docs/iam/test-credentials).
NOBODYS_NUMBER: Final = "+15005550006"


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a carrier has, each empty where it is not known; never shown."""

    auth_token: str = field(default="", repr=False)
    exotel_pair: str = field(default="", repr=False)
    client_token: str = field(default="", repr=False)


def read_service_url(url: str) -> tuple[SplitResult, str]:
    """Take the URL of a service or of its socket apart; give the scheme of its HTTP, too.

    Raises:
        CommandFailed: it is no such URL.
    """
    parts = _parts(url)
    scheme = {"ws": "http", "wss": "https"}.get(parts.scheme, parts.scheme) if parts else ""
    if parts is None or scheme not in ("http", "https"):
        raise CommandFailed(f"{_shown(url)} is no URL of a service, such as http://localhost:8000")
    return parts, scheme


def check_socket(url: str) -> None:
    """Raise CallRefused unless this is the URL of a WebSocket."""
    parts = _parts(url)
    if parts is None or parts.scheme not in ("ws", "wss"):
        raise CallRefused(f"{_shown(url)} is no URL of a WebSocket")


def stream_url_in(body: bytes) -> str:
    """Read the answer to Exotel's request for a stream's URL.

    Raises:
        CallRefused: it has none.
    """
    try:
        url = msgspec.json.decode(body, type=dict[str, str])["url"]
    except (msgspec.DecodeError, UnicodeError, RecursionError, KeyError):
        raise CallRefused('the answer has no stream URL; it should be {"url": …}') from None
    check_socket(url)
    return url


def words_of(answer: httpx.Response) -> str:
    """Say what a service answered: its status, and its own words where they are ours."""
    return f"{answer.status_code}{said_in(answer.content)}"


def said_in(body: bytes | bytearray | None) -> str:
    """Give the `error` and `detail` of an answer of ours as `: error, detail`; else nothing."""
    try:
        said = msgspec.json.decode(bytes(body or b""))
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return ""
    if not isinstance(said, dict):
        return ""
    parts = [str(said[name])[:200] for name in ("error", "detail") if said.get(name)]
    return ": " + ", ".join(parts) if parts else ""


def _parts(url: str) -> SplitResult | None:
    """Take a URL apart; None where it has no host, or a port that is none."""
    try:
        parts = urlsplit(url)
        return parts if parts.hostname and parts.port != 0 else None
    except ValueError:
        return None


def _shown(url: str) -> str:
    """Show a URL without what may be a secret in it."""
    return repr(url.partition("?")[0].rpartition("@")[2])[:200]
