"""Log lines: one a message, safe to read, with nothing in them that must stay secret."""

import json
import logging
import re
import sys
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import IO, Any
from urllib.parse import parse_qsl, quote

HIDDEN = "***"
# What a reader needs to see of a URL; every other parameter's value is hidden.
_SHOWN_PARAMETERS = frozenset({"businessId", "plan", "callSid", "sample-rate", "sample_rate"})
_SECRET_HEADERS = frozenset({"cookie", "set-cookie", "x-twilio-signature", "sec-websocket-key"})
_SECRET_WORDS = ("auth", "token", "secret", "key", "password")
# Control characters forge lines and colour terminals; bidi controls reorder text.
_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_DIGITS = re.compile(r"\d{5,}")
_MAX_LINE = 4000
_MAX_TRACEBACK = 20_000

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def configure(log_format: str, level: str, stream: IO[str] | None = None) -> None:
    """Send the process's log to `stream` (stdout): `console` lines, or `json` objects.

    uvicorn's own messages below WARNING are left out: they print query strings.
    """
    handler = logging.StreamHandler(stream or sys.stdout)
    handler.setFormatter(JsonFormatter() if log_format == "json" else ConsoleFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in ("uvicorn.error", "httpx", "httpcore", "websockets", "asyncio"):
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    logging.getLogger("uvicorn.access").disabled = True


class ConsoleFormatter(logging.Formatter):
    """One line a message: time (UTC), level, text."""

    def format(self, record: logging.LogRecord) -> str:
        """Render a record; a traceback stands behind the text on the same line."""
        text = safe(record.getMessage())
        if record.exc_info:
            text += " | " + safe(self.formatException(record.exc_info), _MAX_TRACEBACK)
        return f"{_time_of(record)} {record.levelname:<7} {text}"


class JsonFormatter(logging.Formatter):
    """One JSON object a line: `at level logger message`, `exception`, and extras."""

    def format(self, record: logging.LogRecord) -> str:
        """Render a record."""
        shown: dict[str, Any] = {
            "at": _time_of(record),
            "level": record.levelname,
            "logger": record.name,
            "message": safe(record.getMessage()),
        }
        if record.exc_info:
            shown["exception"] = safe(self.formatException(record.exc_info), _MAX_TRACEBACK)
        shown |= {name: value for name, value in vars(record).items() if name not in _STANDARD}
        return json.dumps(shown, ensure_ascii=False, default=str)


def safe(text: str, longest: int = _MAX_LINE) -> str:
    """Escape what could forge or hide a line, and cut what is endless."""
    cut = text if len(text) <= longest else text[:longest] + "…"
    return _UNSAFE.sub(lambda found: found.group().encode("unicode_escape").decode(), cut)


def phone_mask(mode: str) -> Callable[[str], str]:
    """Give what a phone number is passed through: `masked` hides it, `full` does not."""
    return str if mode == "full" else mask_phone


def mask_phone(number: str) -> str:
    """Hide a number but for its first digit and its last four: `+1******9195`.

    What is no number (`anonymous`) stays; in an address (`sip:…`) the scheme does.
    """
    scheme, colon, rest = number.partition(":")
    if colon:
        return f"{scheme}:{HIDDEN}" if rest else number
    digits = number.lstrip("+")
    if not digits.isdigit():
        return _DIGITS.sub(HIDDEN, number)
    if len(digits) < 8:
        return "*" * len(number)
    plus = number[: len(number) - len(digits)]
    return f"{plus}{digits[0]}{'*' * (len(digits) - 5)}{digits[-4:]}"


def masked_headers(headers: Iterable[tuple[str, str]]) -> str:
    """Show headers as a JSON object, secrets hidden."""
    shown: dict[str, str] = {}
    for name, value in headers:
        lowered = name.lower()
        hidden = lowered in _SECRET_HEADERS or any(word in lowered for word in _SECRET_WORDS)
        shown[lowered] = HIDDEN if hidden else value
    return json.dumps(shown, ensure_ascii=False)


def masked_url(path: str, query: str) -> str:
    """Show a path with its query; only values known to be harmless are shown."""
    if not query:
        return path
    pairs = parse_qsl(query, keep_blank_values=True, errors="replace")
    shown = [
        f"{quote(name)}={quote(value) if name in _SHOWN_PARAMETERS else HIDDEN}"
        for name, value in pairs
    ]
    return f"{path}?{'&'.join(shown)}"


def without_password(url: str) -> str:
    """Show a URL without the user and password it may hold."""
    scheme, separator, rest = url.partition("://")
    authority, slash, tail = rest.partition("/")
    return f"{scheme}{separator}{authority.rpartition('@')[2]}{slash}{tail}"


def _time_of(record: logging.LogRecord) -> str:
    at = datetime.fromtimestamp(record.created, UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
