"""Log lines: one a message, safe to read, with nothing in them that must stay secret."""

import io
import json
import logging
import re
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable
from datetime import UTC, datetime
from itertools import count
from typing import IO, Any
from urllib.parse import unquote_plus

HIDDEN = "***"
# What a reader needs to see of a URL; every other parameter's value is hidden.
_SHOWN_PARAMETERS = frozenset({"businessId", "plan", "callSid", "sample-rate", "sample_rate"})
_SHOWN_VALUE = re.compile(r"[A-Za-z0-9_.-]{0,128}")
# A name may be a secret as well, where a peer forgets the `=`.
_PARAMETER_NAME = re.compile(r"[A-Za-z_-]{1,32}")
_MAX_PARAMETERS = 20
# What the guides tell to look at, and what proxies are known by. Every other header's
# value is hidden: any proxy may put a token into one of its own.
_SHOWN_HEADERS = frozenset(
    "host origin referer user-agent accept accept-encoding accept-language content-type "
    "content-length connection upgrade via forwarded sec-websocket-version "
    "sec-websocket-extensions x-forwarded-for x-forwarded-proto x-forwarded-host "
    "x-forwarded-port x-real-ip x-request-id x-original-uri x-original-url x-amzn-trace-id "
    "x-railway-edge x-railway-request-id rndr-id cf-ray cf-connecting-ip cdn-loop".split()
)
_NUMBER = re.compile(r"\+?[0-9](?:[0-9 ().-]*[0-9])?")
_MASKED_SCHEMES = frozenset({"client", "sip", "sips", "tel", "whatsapp"})
# What Twilio writes for a caller who shows no number.
_NO_NUMBER = frozenset(
    {"", "anonymous", "blocked", "private", "restricted", "unavailable", "unknown"}
)
EMOJI_JOINER = "\u200d"
_MAX_LINE = 4000
_MAX_TRACEBACK = 20_000

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


# Loggers that speak of each connection, whoever opens it: all their lines are limited.
_OF_CONNECTIONS = frozenset(
    {
        "app.administration.gate",
        "app.server.sockets",
        "app.server.upgrade",
        "app.server.websocket",
        "app.web.boundary",
        "app.web.ingest",
        "app.web.sockets",
        "app.web.streams",
        "uvicorn.error",
    }
)
# Loggers of requests that a stranger can cause to fail: their warnings and errors are.
_OF_REFUSALS = frozenset(
    {"app.credentials.jwks", "app.web.admin.entry", "app.web.errors", "app.web.voice"}
)
_LINES_AT_ONCE = 200
_LINES_OF_PEER = 20
_WINDOW_SECONDS = 10.0
_MOST_PEERS = 1000
_MOST_KINDS = 1000


def configure(
    log_format: str, level: str, stream: IO[str] | None = None, *, worker: int | None = None
) -> None:
    """Send the process's log to `stream` (stdout): `console` lines, or `json` objects.

    `level` is this program's. Libraries are heard from WARNING on: below it
    they print query strings and headers. Where several processes log, each
    line says which `worker` it is from.
    """
    target = stream or sys.stdout
    if isinstance(target, io.TextIOWrapper):
        # A line with an emoji is not to be lost where the terminal knows none.
        target.reconfigure(errors="backslashreplace")
    handler = logging.StreamHandler(target)
    handler.setFormatter(
        JsonFormatter(worker) if log_format == "json" else ConsoleFormatter(worker)
    )
    handler.addFilter(RateLimit(_OF_CONNECTIONS, _OF_REFUSALS, time.monotonic))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    ours = logging.getLogger("app")
    ours.setLevel(level)
    root.setLevel(max(logging.WARNING, ours.level))
    logging.getLogger("uvicorn.error").setLevel(root.level)
    logging.getLogger("uvicorn.access").disabled = True


class RateLimit(logging.Filter):
    """Rate-limit log lines per message template, and per template and peer.

    All lines of the loggers in `names` are limited, and the warnings and errors of those
    in `refusals`. A line names its peer by `extra={"peer": ADDRESS}`: one peer's flood
    then leaves room for the lines about others. The first line of the next window says
    how many were left out. `clock` returns monotonic seconds.
    """

    def __init__(
        self,
        names: Collection[str],
        refusals: Collection[str],
        clock: Callable[[], float],
        *,
        lines: int = _LINES_AT_ONCE,
        lines_of_peer: int = _LINES_OF_PEER,
        seconds: float = _WINDOW_SECONDS,
    ) -> None:
        super().__init__()
        self._names = names
        self._refusals = refusals
        self._clock = clock
        self._lines = lines
        self._lines_of_peer = lines_of_peer
        self._seconds = seconds
        # Of each kind: when its window began, the lines that passed since, and those left out.
        self._kinds: dict[tuple[str, str], tuple[float, int, int]] = {}
        self._peers: OrderedDict[tuple[str, str, str], tuple[float, int]] = OrderedDict()

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the line passes."""
        is_limited = record.name in self._names or (
            record.levelno >= logging.WARNING and record.name in self._refusals
        )
        if not is_limited:
            return True
        now = self._clock()
        kind = (record.name, str(record.msg))
        began, passed, left_out = self._kinds.get(kind, (now, 0, 0))
        if len(self._kinds) >= _MOST_KINDS and kind not in self._kinds:
            del self._kinds[next(iter(self._kinds))]
        is_over = now - began >= self._seconds
        if is_over:
            began, passed = now, 0
        if passed >= self._lines or not self._has_room(record, kind, now):
            self._kinds[kind] = began, passed, left_out + 1
            return False
        if is_over and left_out:
            record.msg = f"{record.msg} (and {left_out} lines like it before)"
            left_out = 0
        self._kinds[kind] = began, passed + 1, left_out
        return True

    def _has_room(self, record: logging.LogRecord, kind: tuple[str, str], now: float) -> bool:
        peer = getattr(record, "peer", None)
        if peer is None:
            return True
        key = (*kind, str(peer))
        began, passed = self._peers.pop(key, (now, 0))
        if now - began >= self._seconds:
            began, passed = now, 0
        self._peers[key] = began, passed + 1
        if len(self._peers) > _MOST_PEERS:
            self._peers.popitem(last=False)
        return passed < self._lines_of_peer


class ConsoleFormatter(logging.Formatter):
    """One line a message: time (UTC), level, the worker as `w1`, text."""

    def __init__(self, worker: int | None = None) -> None:
        super().__init__()
        self._mark = "" if worker is None else f"w{worker} "

    def format(self, record: logging.LogRecord) -> str:
        """Render a record; a traceback stands behind the text on the same line."""
        text = safe(record.getMessage())
        if record.exc_info:
            text += " | " + safe(self.formatException(record.exc_info), _MAX_TRACEBACK)
        return f"{_time_of(record)} {record.levelname:<7} {self._mark}{text}"


class JsonFormatter(logging.Formatter):
    """One JSON object a line: `at level logger message`, `worker`, `exception`, and extras."""

    def __init__(self, worker: int | None = None) -> None:
        super().__init__()
        self._mark = {} if worker is None else {"worker": worker}

    def format(self, record: logging.LogRecord) -> str:
        """Render a record."""
        shown: dict[str, Any] = {
            name: _plain(value) for name, value in vars(record).items() if name not in _STANDARD
        }
        shown |= {
            "at": _time_of(record),
            "level": record.levelname,
            "logger": record.name,
            "message": safe(record.getMessage()),
            **self._mark,
        }
        if record.exc_info:
            shown["exception"] = safe(self.formatException(record.exc_info), _MAX_TRACEBACK)
        return json.dumps(shown, ensure_ascii=False)


def safe(text: str, longest: int = _MAX_LINE) -> str:
    """Escape what could forge, reorder or hide a line, and cut what is endless."""
    cut = text if len(text) <= longest else text[:longest] + "…"
    if cut.isprintable():
        return cut
    return "".join(
        char if char.isprintable() or char == EMOJI_JOINER else _escaped(char) for char in cut
    )


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")


def _plain(value: object) -> object:
    return value if value is None or isinstance(value, int | float) else safe(str(value))


def phone_mask(mode: str) -> Callable[[str], str]:
    """Give what a phone number is passed through: `masked` hides it, `full` does not."""
    return str if mode == "full" else mask_phone


def mask_phone(number: str) -> str:
    """Hide a number but for its first digit and its last four: `+1******9195`.

    Of less than eight digits only the first is shown; of an address (`sip:…`)
    the scheme; of any other text nothing, unless it says that there is no
    number (`anonymous`).
    """
    scheme, colon, rest = number.partition(":")
    if colon and scheme in _MASKED_SCHEMES:
        return f"{scheme}:{mask_phone(rest) if _NUMBER.fullmatch(rest) else HIDDEN}"
    if not _NUMBER.fullmatch(number):
        return number if number.lower() in _NO_NUMBER else HIDDEN
    digits = sum(map(str.isdigit, number))
    hidden = range(1, digits - 4 if digits >= 8 else digits)
    place = count()
    return re.sub("[0-9]", lambda digit: "*" if next(place) in hidden else digit[0], number)


def masked_headers(headers: Iterable[tuple[str, str]]) -> str:
    """Show headers as a JSON object: known ones, URLs without their query; others hidden."""
    shown: dict[str, str] = {}
    for name, value in headers:
        lowered = name.lower()
        url, mark, _ = value.partition("?")
        readable = f"{url}{mark}{HIDDEN}" if mark else value
        shown[lowered] = readable if lowered in _SHOWN_HEADERS else HIDDEN
    return json.dumps(shown, ensure_ascii=False)


def masked_url(path: str, query: str) -> str:
    """Show a path with its query; only values known to be harmless are shown."""
    if not query:
        return path
    parameters = query.split("&", _MAX_PARAMETERS)
    shown = [_masked_parameter(parameter) for parameter in parameters[:_MAX_PARAMETERS]]
    if len(parameters) > _MAX_PARAMETERS:
        shown.append("…")
    return f"{path}?{'&'.join(shown)}"


def _masked_parameter(parameter: str) -> str:
    name, _, value = parameter.partition("=")
    if name in _SHOWN_PARAMETERS and _SHOWN_VALUE.fullmatch(unquote_plus(value)):
        return parameter
    return f"{name}={HIDDEN}" if value and _PARAMETER_NAME.fullmatch(name) else HIDDEN


def without_password(url: str) -> str:
    """Show a URL without the user and password it may hold, nor its query."""
    scheme, separator, rest = url.partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2].partition('?')[0]}"


def _time_of(record: logging.LogRecord) -> str:
    at = datetime.fromtimestamp(record.created, UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
