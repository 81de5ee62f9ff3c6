"""What the environment says, as one frozen value.

Read once, by `main` and `cli`; everything else is handed plain values. Each
field of `Settings` is a variable of the same name in capitals; its metadata
say how it is read and what a good value looks like.
"""

import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any, Final, Self
from urllib.parse import urlsplit

from app.errors import SettingsError

MIN_SECRET_CHARACTERS = 32
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_JWT_KEYS = ("jwt_public_key", "jwt_secret", "jwt_jwks_url")
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
        return _is_public(urlsplit(self.http_base).hostname or "")


class _Unusable(ValueError):
    """Raised by a reader: the problem, and what to write instead where that is known."""

    def __init__(self, problem: str, example: str = "") -> None:
        super().__init__(problem)
        self.example = example


def _variable(read: Callable[[str], Any], default: Any, example: str) -> Any:
    return field(default=default, metadata={"read": read, "example": example})


# ------------------------------------------------------------------------ readers


def _text(value: str) -> str:
    return value


def _host(value: str) -> str:
    if not _is_host(value):
        raise _Unusable("is not an address or a host name")
    return value


def _whole(low: int, high: int) -> Callable[[str], int]:
    def read(value: str) -> int:
        if not re.fullmatch(r"-?[0-9]{1,20}", value):
            raise _Unusable("is not a whole number")
        number = int(value)
        if not low <= number <= high:
            raise _Unusable(f"must be from {low} to {high}")
        return number

    return read


def _seconds(low: float, high: float) -> Callable[[str], float]:
    def read(value: str) -> float:
        try:
            number = float(value)
        except ValueError:
            raise _Unusable("is not a number of seconds") from None
        if not low <= number <= high:
            raise _Unusable(f"must be from {low:g} to {high:g} seconds")
        return number

    return read


def _one_of(kind: type[StrEnum]) -> Callable[[str], StrEnum]:
    def read(value: str) -> StrEnum:
        try:
            return kind(value.strip().lower())
        except ValueError:
            raise _Unusable("must be one of " + ", ".join(kind)) from None

    return read


def _choice(*choices: str) -> Callable[[str], str]:
    def read(value: str) -> str:
        for choice in choices:
            if value.strip().lower() == choice.lower():
                return choice
        raise _Unusable("must be one of " + ", ".join(choices))

    return read


def _public_url(value: str) -> PublicUrl:
    try:
        parts = urlsplit(value)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise _Unusable("is not a URL") from None
    if host and not _is_host(host):
        raise _Unusable("does not name a host as the Internet does (in ASCII)")
    shown = f"[{host}]" if ":" in host else host
    good = "https://" + (shown + (f":{port}" if port else "") if host else "bridge.example.com")
    if parts.scheme not in ("http", "https") or not host:
        raise _Unusable("must begin with https:// and name a host", good)
    if parts.username is not None or parts.password is not None:
        raise _Unusable("must not hold a user or password", good)
    if parts.scheme == "http" and _is_public(host):
        raise _Unusable("must be https:// on a public host, as Twilio streams to wss:// only", good)
    good = good if parts.scheme == "https" else good.replace("https", "http", 1)
    if parts.query or parts.fragment or parts.path.strip("/"):
        raise _Unusable("must not hold a path, a query or a fragment", good)
    if parts.path:
        raise _Unusable("must not end with a slash", good)
    return PublicUrl(good)


def _redis_url(value: str) -> Secret:
    try:
        parts = urlsplit(value)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        raise _Unusable("is not a URL; in a password, write / as %2F and # as %23") from None
    if parts.scheme not in ("redis", "rediss", "unix"):
        raise _Unusable("must begin with redis://, rediss:// (TLS) or unix://")
    if parts.fragment:
        raise _Unusable("holds a #; in a password, write it as %23")
    if parts.scheme == "unix":
        if not parts.path:
            raise _Unusable("must name a socket", "unix:///run/redis.sock")
    elif not _is_host(host) or not re.fullmatch(r"(?:/[0-9]*)?", parts.path):
        raise _Unusable("must name a host, and after it at most a port and a database's number")
    return Secret(value)


def _tokens(value: str) -> tuple[Secret, ...]:
    tokens = [token.strip() for token in value.split(",")]
    if not all(tokens):
        raise _Unusable("holds an empty token: separate the current one and older ones by commas")
    return tuple(Secret(token) for token in tokens)


def _account_sid(value: str) -> str:
    digits = value.removeprefix("AC")
    if not value.startswith("AC") or len(digits) != 32 or set(digits) - set("0123456789abcdef"):
        raise _Unusable("must be AC and 32 hexadecimal digits")
    return value


def _secret_key(value: str) -> Secret:
    if len(value) < MIN_SECRET_CHARACTERS:
        raise _Unusable(f"must have at least {MIN_SECRET_CHARACTERS} characters")
    return Secret(value)


def _flag(value: str) -> bool:
    try:
        return {"true": True, "1": True, "false": False, "0": False}[value.strip().lower()]
    except KeyError:
        raise _Unusable("must be true or false") from None


def _networks(value: str) -> tuple[Network, ...]:
    try:
        return tuple(ipaddress.ip_network(one.strip()) for one in value.split(","))
    except ValueError:
        raise _Unusable("must be addresses or CIDRs, separated by commas") from None


def _identifier(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_.-]{1,128}", value):
        raise _Unusable("must be a business's id: 1 to 128 of A-Z a-z 0-9 _ . -")
    return value


def _sample_rate(value: str) -> int:
    if value.strip() not in ("8000", "16000", "24000"):
        raise _Unusable("must be 8000, 16000 or 24000 (Hz)")
    return int(value)


def _https_url(value: str) -> str:
    parts = urlsplit(value)
    local = not _is_public(parts.hostname or "")
    if not parts.hostname or parts.scheme not in (("http", "https") if local else ("https",)):
        raise _Unusable("must begin with https:// and name a host")
    return value


def _is_host(text: str) -> bool:
    return HOST_NAME.fullmatch(text) is not None or _address(text) is not None


def _is_public(host: str) -> bool:
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


# ----------------------------------------------------------------------- settings


@dataclass(frozen=True, slots=True)
class Settings:
    """Every setting, read and checked; units stand in the names."""

    public_url: PublicUrl | None = _variable(_public_url, None, "https://bridge.example.com")
    host: str = _variable(_host, "0.0.0.0", "0.0.0.0")
    port: int = _variable(_whole(0, 65535), 8000, "8000")
    redis_url: Secret | None = _variable(_redis_url, None, "redis://localhost:6379/0")
    pubsub_adapter: Adapter = _variable(_one_of(Adapter), Adapter.REDIS_STREAMS, "redis_streams")
    twilio_account_sid: str = _variable(_account_sid, "", "AC" + "0123456789abcdef" * 2)
    twilio_auth_token: tuple[Secret, ...] = _variable(_tokens, (), "current-token,older-token")
    secret_key: Secret | None = _variable(_secret_key, None, "$(openssl rand -hex 32)")
    allow_unsigned: Unsigned = _variable(_one_of(Unsigned), Unsigned.NO, "true")
    businesses_file: str | None = _variable(_text, None, "businesses.toml")
    max_calls: int = _variable(_whole(1, 100_000), 1000, "1000")
    log_format: str = _variable(_choice("console", "json"), "console", "json")
    log_level: str = _variable(_choice("DEBUG", "INFO", "WARNING", "ERROR"), "INFO", "INFO")
    log_phone_numbers: str = _variable(_choice("masked", "full"), "masked", "masked")
    stream_start_timeout_seconds: float = _variable(_seconds(0.1, 60), 5.0, "5")
    metrics_token: Secret | None = _variable(Secret, None, "$(openssl rand -hex 32)")
    broker_buffer_seconds: float = _variable(_seconds(1, 600), 30.0, "30")
    broker_buffer_bytes: int = _variable(_whole(2**20, 2**40), 256 * 2**20, "268435456")
    drain_seconds: float = _variable(_seconds(0, 14_400), 30.0, "30")
    support_exotel: bool = _variable(_flag, False, "true")
    exotel_api_key: tuple[Secret, ...] = _variable(_tokens, (), "current-key,older-key")
    exotel_api_token: tuple[Secret, ...] = _variable(_tokens, (), "current-token,older-token")
    exotel_allowed_ips: tuple[Network, ...] = _variable(_networks, (), "192.0.2.0/24,198.51.100.7")
    exotel_default_business: str = _variable(_identifier, "", "business-1")
    trusted_proxies: tuple[Network, ...] = _variable(_networks, (), "10.0.0.0/8")
    ingest_default_sample_rate: int = _variable(_sample_rate, 24000, "24000")
    ingest_idle_seconds: float = _variable(_seconds(1, 3600), 10.0, "10")
    ack_interval: int = _variable(_whole(1, 1000), 10, "10")
    jwt_public_key: str = _variable(_text, "", '"-----BEGIN PUBLIC KEY-----\\n…"')
    jwt_secret: Secret | None = _variable(Secret, None, "$(openssl rand -hex 32)")
    jwt_jwks_url: str = _variable(_https_url, "", "https://id.example.com/.well-known/jwks.json")
    jwt_audience: str = _variable(_text, "", "media-bridge")
    jwt_issuer: str = _variable(_text, "", "https://id.example.com/")
    jwt_leeway_seconds: float = _variable(_seconds(0, 300), 5.0, "5")

    @classmethod
    def load(cls, environ: Mapping[str, str]) -> Self:
        """Read the settings; an empty variable counts as unset.

        Raises:
            SettingsError: a variable is missing or unusable; names it, the
                problem and an example.
        """
        given: dict[str, Any] = {}
        for variable in fields(cls):
            name = variable.name.upper()
            value = environ.get(name, "")
            if value:
                try:
                    given[variable.name] = variable.metadata["read"](value)
                except _Unusable as error:
                    example = error.example or variable.metadata["example"]
                    raise SettingsError(name, str(error), example) from None
        _check_together(given)
        return cls(**given)

    @property
    def serves_twilio(self) -> bool:
        """Tell whether the Twilio routes can be served: by an auth token, or without."""
        has_token = bool(self.twilio_auth_token)
        return self.public_url is not None and (has_token or self.waives_signatures)

    @property
    def exotel_pairs(self) -> tuple[str, ...]:
        """Give the pairs that Exotel may show, as `KEY:TOKEN`."""
        pairs = zip(self.exotel_api_key, self.exotel_api_token, strict=True)
        return tuple(f"{key.reveal()}:{token.reveal()}" for key, token in pairs)

    @property
    def waives_signatures(self) -> bool:
        """Tell whether a request without a signature is served, and tickets are ignored."""
        return self.allow_unsigned is not Unsigned.NO


def _check_together(given: dict[str, Any]) -> None:
    """Check what one variable demands of another, and fill in a local PUBLIC_URL."""
    unsigned = given.get("allow_unsigned", Unsigned.NO)
    public = given.get("public_url")
    ingest_alone = given.get("support_exotel") or any(map(given.get, _JWT_KEYS))
    if public is None:
        if unsigned is not Unsigned.NO:
            given["public_url"] = PublicUrl(f"http://localhost:{given.get('port', 8000)}")
        elif not ingest_alone:
            raise _missing("PUBLIC_URL", "the URL at which Twilio reaches this service")
    elif unsigned is Unsigned.YES and public.is_public:
        problem = "lets anyone place calls, and PUBLIC_URL is a public host; if you mean it, say so"
        raise SettingsError("ALLOW_UNSIGNED", problem, "public")
    if unsigned is Unsigned.NO and not ingest_alone and not given.get("twilio_auth_token"):
        raise _missing("TWILIO_AUTH_TOKEN", "the auth token that signs Twilio's requests")
    if len(given.get("exotel_api_key", ())) != len(given.get("exotel_api_token", ())):
        problem = "must hold as many tokens as EXOTEL_API_KEY holds keys"
        raise SettingsError("EXOTEL_API_TOKEN", problem, "current-token,older-token")
    if sum(1 for name in _JWT_KEYS if given.get(name)) > 1:
        problem = "must not be set beside JWT_SECRET or JWT_JWKS_URL: one algorithm is pinned"
        raise SettingsError("JWT_PUBLIC_KEY", problem, "")
    adapter = given.get("pubsub_adapter", Adapter.REDIS_STREAMS)
    if adapter is not Adapter.MEMORY and given.get("redis_url") is None:
        raise _missing("REDIS_URL", "where frames are published (`make run` starts one for you)")


def _missing(name: str, what: str) -> SettingsError:
    example = next(v.metadata["example"] for v in fields(Settings) if v.name == name.lower())
    return SettingsError(name, f"is not set: {what}", example)
