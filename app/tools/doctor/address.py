"""The URL that is looked at, and what its form shows."""

from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from app.diagnosis.causes import CAUSES
from app.diagnosis.findings import Finding, Level, well
from app.hosts import is_host, is_public

PORTS = {"http": 80, "https": 443}
_WEBSOCKET = {"ws": "http", "wss": "https"}


@dataclass(frozen=True, slots=True)
class Address:
    """Where the service is called: `origin` has no slash at its end, and no default port."""

    origin: str
    host: str
    port: int

    @property
    def is_tls(self) -> bool:
        """Tell whether it is called by https:// and wss://."""
        return self.origin.startswith("https:")

    @property
    def ws_origin(self) -> str:
        """Give the same place for WebSockets."""
        return "ws" + self.origin.removeprefix("http")


def read_address(text: str, *, is_setting: bool) -> tuple[Address | None, list[Finding]]:
    """Read the URL, and say what is wrong with its form.

    The address is what can be looked at all the same, None where nothing can. A
    setting (`is_setting`) with a slash or a path keeps the service from starting;
    on a command line it is a copy from a browser.
    """
    if not text.strip():
        return None, [CAUSES["public_url_missing"].finding("PUBLIC_URL is not set.")]
    try:
        parts = urlsplit(text.strip())
        address = _address(parts)
    except ValueError:
        return None, [CAUSES["public_url_unreadable"].finding("It is not a URL.")]
    if address is None:
        return None, [_not_a_url(text.strip(), parts)]
    findings = list(_problems(parts, address, Level.FAILED if is_setting else Level.WARNING))
    return address, findings or [
        well("public_url", f"{address.origin} is a URL as Twilio needs it.")
    ]


def origin_of(scheme: str, host: str, port: int | None) -> str:
    """Write an origin as it is compared: in small letters, without a default port.

    Raises KeyError for another scheme than http and https.
    """
    shown = f"[{host}]" if ":" in host else host.lower()
    return f"{scheme}://{shown}" + (f":{port}" if (port or PORTS[scheme]) != PORTS[scheme] else "")


def _address(parts: SplitResult) -> Address | None:
    host = parts.hostname or ""
    # A stream's URL is as good: it names the same place.
    scheme = _WEBSOCKET.get(parts.scheme, parts.scheme)
    if scheme not in PORTS or not is_host(host):
        return None
    return Address(origin_of(scheme, host, parts.port), host, parts.port or PORTS[scheme])


def _not_a_url(text: str, parts: SplitResult) -> Finding:
    host = text.removeprefix("//").partition("/")[0]
    if parts.scheme not in PORTS and "://" not in text and is_host(host.partition(":")[0]):
        good = f"https://{host}"
        return CAUSES["public_url_scheme_missing"].finding("It has no scheme.", good=good)
    if parts.scheme and parts.scheme not in PORTS:
        return CAUSES["public_url_unreadable"].finding("Its scheme is neither https nor http.")
    return CAUSES["public_url_unreadable"].finding("It names no host as the Internet does.")


def _problems(parts: SplitResult, address: Address, spelling: Level) -> list[Finding]:
    found = []
    good = address.origin
    is_open = not address.is_tls and is_public(address.host)
    safe = f"https://{good.partition('://')[2]}" if is_open else good
    if parts.username is not None or parts.password is not None:
        found.append(CAUSES["public_url_user"].finding("It holds a user or password.", good=good))
    if is_open:
        found.append(CAUSES["public_url_http"].finding("It begins with http://.", good=safe))
    if parts.query or parts.fragment or parts.path.strip("/"):
        said = "It goes on after the host."
        found.append(CAUSES["public_url_path"].finding(said, level=spelling, good=safe))
    elif parts.path:
        said = "It ends with a slash."
        found.append(CAUSES["public_url_slash"].finding(said, level=spelling, good=safe))
    if not is_public(address.host):
        found.append(CAUSES["public_url_local"].finding(f"{address.host} is not a public host."))
    elif address.is_tls and address.port != PORTS["https"]:
        good = origin_of("https", address.host, None)
        said = f"It names port {address.port}."
        found.append(CAUSES["public_url_port"].finding(said, good=good))
    return found
