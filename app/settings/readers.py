"""How each variable's text becomes a value, or is refused in words an operator understands."""

import hashlib
import ipaddress
import re
from collections.abc import Callable
from enum import StrEnum
from urllib.parse import urlsplit

from app.hosts import is_host, is_public
from app.redis_url import parse_redis_url
from app.secret_strength import FLOORS, PLACEHOLDER_REFUSED, is_placeholder, weakness_of
from app.settings.values import Network, OperatorSecret, PublicUrl, Secret

_COMMAS = "commas separate several, and a comma that belongs to one is written \\,"
_DIGEST = re.compile(r"sha256-[0-9a-f]{64}")


class Unusable(ValueError):
    """Raised by a reader: the problem, and what to write instead where that is known."""

    def __init__(self, problem: str, example: str = "") -> None:
        super().__init__(problem)
        self.example = example


def read_text(value: str) -> str:
    return value


def read_host(value: str) -> str:
    if not is_host(value):
        raise Unusable("is not an address or a host name")
    return value


def whole(low: int, high: int) -> Callable[[str], int]:
    def read(value: str) -> int:
        if not re.fullmatch(r"-?[0-9]{1,20}", value):
            raise Unusable("is not a whole number")
        number = int(value)
        if not low <= number <= high:
            raise Unusable(f"must be from {low} to {high}")
        return number

    return read


def seconds(low: float, high: float) -> Callable[[str], float]:
    def read(value: str) -> float:
        try:
            number = float(value)
        except ValueError:
            raise Unusable("is not a number of seconds") from None
        if not low <= number <= high:
            raise Unusable(f"must be from {low:g} to {high:g} seconds")
        return number

    return read


def one_of(kind: type[StrEnum]) -> Callable[[str], StrEnum]:
    def read(value: str) -> StrEnum:
        try:
            return kind(value.strip().lower())
        except ValueError:
            raise Unusable("must be one of " + ", ".join(kind)) from None

    return read


def choice(*choices: str) -> Callable[[str], str]:
    def read(value: str) -> str:
        for choice in choices:
            if value.strip().lower() == choice.lower():
                return choice
        raise Unusable("must be one of " + ", ".join(choices))

    return read


def read_public_url(value: str) -> PublicUrl:
    try:
        parts = urlsplit(value)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise Unusable("is not a URL") from None
    if host and not is_host(host):
        raise Unusable("does not name a host as the Internet does (in ASCII)")
    shown = f"[{host}]" if ":" in host else host
    good = "https://" + (shown + (f":{port}" if port else "") if host else "bridge.example.com")
    if parts.scheme not in ("http", "https") or not host:
        raise Unusable("must begin with https:// and name a host", good)
    if parts.username is not None or parts.password is not None:
        raise Unusable("must not hold a user or password", good)
    if parts.scheme == "http" and is_public(host):
        raise Unusable("must be https:// on a public host, as Twilio streams to wss:// only", good)
    good = good if parts.scheme == "https" else good.replace("https", "http", 1)
    if parts.query or parts.fragment or parts.path.strip("/"):
        raise Unusable("must not hold a path, a query or a fragment", good)
    if parts.path:
        raise Unusable("must not end with a slash", good)
    return PublicUrl(good)


def read_redis_url(value: str) -> Secret:
    try:
        parse_redis_url(value)
    except ValueError as error:
        raise Unusable(str(error)) from None
    return Secret(value)


def read_tokens(value: str) -> tuple[Secret, ...]:
    tokens = [token.strip() for token in value.split(",")]
    if not all(tokens):
        raise Unusable("holds an empty token: separate the current one and older ones by commas")
    return tuple(Secret(token) for token in tokens)


def read_account_sid(value: str) -> str:
    digits = value.removeprefix("AC")
    if not value.startswith("AC") or len(digits) != 32 or set(digits) - set("0123456789abcdef"):
        raise Unusable("must be AC and 32 hexadecimal digits")
    return value


def read_secret_keys(value: str) -> tuple[Secret, ...]:
    """Read one key or several, as `read_rotating`, each as long as its floor demands."""
    least = FLOORS["SECRET_KEY"].characters
    keys = read_rotating(value)
    texts = [key.reveal() for key in keys]
    if any(len(text) < least for text in texts):
        problem = f"must have at least {least} characters"
        if len(texts) > 1:
            problem += f" in each key, and one is shorter: {_COMMAS}"
        raise Unusable(problem)
    if any(map(is_placeholder, texts)):
        raise Unusable(PLACEHOLDER_REFUSED)
    return keys


def read_rotating(value: str) -> tuple[Secret, ...]:
    """Read secrets separated by commas, the current one first; `\\,` is a comma of a secret.

    Version 0.1 read the whole text as one secret. Where that differs from what is read
    now, the whole text is the last secret, so that what 0.1 signed, sealed or expected
    is still good.
    """
    texts = [text.replace("\\,", ",") for text in re.split(r"(?<!\\),", value)]
    if len(texts) > 1:
        texts = [text.strip() for text in texts]
    if not all(texts):
        raise Unusable(f"has nothing on one side of a comma: {_COMMAS}")
    if texts != [value]:
        texts.append(value)
    return tuple(Secret(text) for text in dict.fromkeys(texts))


def read_jwt_secret(value: str) -> Secret:
    if weakness := weakness_of("JWT_SECRET", [value]):
        raise Unusable(weakness)
    return Secret(value)


# The name of an operator's token: it ends at the first "=", and is shorter than any token.
# Base64 has "=" at its end alone, so that no token of that kind is read as NAME=TOKEN.
_NAMED_TOKEN = re.compile(r"([A-Za-z][A-Za-z0-9_.-]{0,30})=(?!=?$)(.*)", re.DOTALL)


def split_operator(entry: str) -> tuple[str, str]:
    """Return the name and the token of an entry of ADMIN_TOKEN; a plain token has no name."""
    found = _NAMED_TOKEN.fullmatch(entry)
    return (found[1], found[2]) if found else ("", entry)


def read_admin_tokens(value: str) -> tuple[OperatorSecret, ...]:
    """Parse operators' tokens, `TOKEN` or `NAME=TOKEN`, into their digests: none is kept."""
    found = [_operator_token(token.reveal()) for token in read_tokens(value)]
    names = [token.name.lower() for token in found if token.name]
    if repeated := next((name for name in names if names.count(name) > 1), ""):
        raise Unusable(
            f"names {repeated!r} twice: use another name for each token, "
            f"such as {repeated}={_TOKEN},{repeated}-old={_TOKEN}"
        )
    owners: dict[Secret, str] = {}
    for token in found:
        if owners.setdefault(token.digest, token.name) != token.name:
            raise Unusable("holds one token under two names: generate a token for each operator")
    return tuple(found)


_TOKEN = "$(openssl rand -hex 32)"


def _operator_token(entry: str) -> OperatorSecret:
    name, token = split_operator(entry)
    if token.startswith("sha256-"):
        if not _DIGEST.fullmatch(token):
            raise Unusable("has a digest that is not sha256- and 64 hexadecimal digits")
        return OperatorSecret(name, Secret(token.removeprefix("sha256-")))
    of = f" (the one of {name})" if name else ""
    least = FLOORS["ADMIN_TOKEN"].characters
    if len(token) < least or not token.isascii():
        raise Unusable(f"must have at least {least} characters a token, all ASCII{of}")
    if is_placeholder(token):
        raise Unusable(f"{PLACEHOLDER_REFUSED}{of}")
    return OperatorSecret(name, Secret(hashlib.sha256(token.encode()).hexdigest()))


def read_flag(value: str) -> bool:
    try:
        return {"true": True, "1": True, "false": False, "0": False}[value.strip().lower()]
    except KeyError:
        raise Unusable("must be true or false") from None


def read_networks(value: str) -> tuple[Network, ...]:
    try:
        return tuple(ipaddress.ip_network(one.strip()) for one in value.split(","))
    except ValueError:
        raise Unusable("must be addresses or CIDRs, separated by commas") from None


def read_header_name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9-]{0,63}", value.strip()):
        raise Unusable("must be the name of a header, such as X-Forwarded-For or X-Real-IP")
    return value.strip().lower()


def read_identifier(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_.-]{1,128}", value):
        raise Unusable("must be a business's id: 1 to 128 of A-Z a-z 0-9 _ . -")
    return value


def read_sample_rate(value: str) -> int:
    if value.strip() not in ("8000", "16000", "24000"):
        raise Unusable("must be 8000, 16000 or 24000 (Hz)")
    return int(value)


def read_https_url(value: str) -> str:
    try:
        parts = urlsplit(value)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        raise Unusable("is not a URL") from None
    schemes = ("https",) if is_public(host) else ("http", "https")
    if parts.scheme not in schemes or not is_host(host):
        raise Unusable("must begin with https:// and name a host")
    return value


def read_https_base(value: str) -> str:
    parts = urlsplit(read_https_url(value))
    if parts.query or parts.fragment or parts.username is not None:
        raise Unusable("must not hold a user, a query or a fragment")
    return value.rstrip("/")
