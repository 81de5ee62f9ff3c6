"""Log lines: they read as the guides say, cannot be forged, and give nothing away."""

import importlib
import io
import json
import logging
import re
import unicodedata
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import log
from app.log import (
    RateLimit,
    configure,
    mask_phone,
    masked_headers,
    masked_url,
    phone_mask,
    safe,
    without_password,
)

CANARY = "canary5f1e0b"
# C0, C1, ESC, line and paragraph separators, bidi controls, tags, lone surrogates.
HOSTILE = [
    "\r\n2026-01-01T00:00:00.000Z INFO    forged",
    "\x1b[31mred\x1b[0m",
    "\x9b31mred",
    "\x00\x07\x08\x7f",
    "\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029",
    "\u202egnirts\u202c \u2066x\u2069 \u200e\u200f\u061c",
    "\ufeff\u200b\U000e0041",
    "\ud800 alone \udfff",
]


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    names = ["", "app", "uvicorn.error", "uvicorn.access", "httpx", "httpcore", "websockets"]
    loggers = [logging.getLogger(name) for name in [*names, "asyncio"]]
    before = [(logger, logger.level, logger.handlers[:], logger.disabled) for logger in loggers]
    yield
    for logger, level, handlers, disabled in before:
        logger.setLevel(level)
        logger.handlers[:] = handlers
        logger.disabled = disabled


def logged(log_format: str, message: str, *arguments: object, **options: Any) -> str:
    """Log one message through a fresh configuration, and give all that was written."""
    stream = io.StringIO()
    configure(log_format, "INFO", stream)
    logging.getLogger("app.web.voice").info(message, *arguments, **options)
    return stream.getvalue()


def test_a_console_line_has_time_and_level_and_the_text_as_written() -> None:
    line = logged("console", "[Voice Webhook] Incoming call - CallSid: %s", "CA1")
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z INFO {4}"
        r"\[Voice Webhook\] Incoming call - CallSid: CA1\n",
        line,
    )


def test_a_json_line_is_one_object_with_its_extras() -> None:
    line = logged("json", "Call %s", "CA1", extra={"call_sid": "CA1", "frames": 3})
    found = json.loads(line)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", found.pop("at"))
    assert found == {
        "level": "INFO",
        "logger": "app.web.voice",
        "message": "Call CA1",
        "call_sid": "CA1",
        "frames": 3,
    }


@pytest.mark.parametrize(
    ("log_format", "said"), [("console", " w2 text\n"), ("json", '"worker": 2')]
)
def test_where_several_processes_log_a_line_says_whose_it_is(log_format: str, said: str) -> None:
    stream = io.StringIO()
    configure(log_format, "INFO", stream, worker=2)
    logging.getLogger("app").info("text", extra={"worker": 9})
    assert said in stream.getvalue()


def test_extras_cannot_replace_the_fields_of_a_line() -> None:
    found = json.loads(logged("json", "true", extra={"level": "x", "logger": "x", "at": "x"}))
    assert (found["level"], found["logger"], found["message"]) == ("INFO", "app.web.voice", "true")
    assert found["at"] != "x"


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_emoji_are_kept(log_format: str) -> None:
    text = "[WebSocket] 🔌 Connection attempt received ✅ 👩‍💻"
    assert text in logged(log_format, text)


@pytest.mark.parametrize("log_format", ["console", "json"])
@pytest.mark.parametrize("hostile", HOSTILE, ids=ascii)
def test_a_message_cannot_forge_or_hide_a_line(log_format: str, hostile: str) -> None:
    line = logged(log_format, "From: %s.", hostile, extra={"caller": hostile})
    assert line.endswith("\n")
    assert len(line.splitlines()) == 1
    assert not dangerous(line[:-1])
    line.encode("utf-8")


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_an_exception_stands_in_its_own_line_and_cannot_forge_one(log_format: str) -> None:
    try:
        raise ValueError(f"{HOSTILE[0]} {HOSTILE[-1]}")
    except ValueError:
        line = logged(log_format, "It broke", exc_info=True)
    assert len(line.splitlines()) == 1
    assert "ValueError" in line
    assert "test_log.py" in line
    if log_format == "json":
        assert "ValueError" in json.loads(line)["exception"]


def test_a_flood_of_lines_of_one_kind_is_told_sparingly_and_counted() -> None:
    now = 0.0
    sparing = RateLimit({"app.gate"}, (), lambda: now, lines=3, seconds=10)

    def passed(template: str, *arguments: object, name: str = "app.gate") -> str | None:
        record = logging.LogRecord(name, logging.INFO, "", 0, template, arguments, None)
        return record.getMessage() if sparing.filter(record) else None

    told = [passed("closed %s", number) for number in range(8)]
    assert told == ["closed 0", "closed 1", "closed 2", None, None, None, None, None]
    assert passed("opened %s", 1) == "opened 1"
    assert passed("closed %s", 8, name="app.session") == "closed 8"
    now = 10.0
    assert passed("closed %s", 8) == "closed 8 (and 5 lines like it before)"
    assert passed("closed %s", 9) == "closed 9"
    now = 30.0
    assert passed("closed %s", 10) == "closed 10"


def test_one_peers_flood_leaves_room_for_lines_about_others() -> None:
    now = 0.0
    limit = RateLimit({"app.gate"}, (), lambda: now, lines=10, lines_of_peer=2, seconds=10)

    def passed(peer: str) -> str | None:
        record = logging.LogRecord("app.gate", logging.INFO, "", 0, "refused %s", (peer,), None)
        record.peer = peer
        return record.getMessage() if limit.filter(record) else None

    assert [passed("a") for _ in range(100)] == ["refused a"] * 2 + [None] * 98
    assert [passed("b") for _ in range(3)] == ["refused b"] * 2 + [None]
    assert sum(passed(f"peer {number}") is not None for number in range(100)) == 6
    now = 10.0
    assert passed("b") == "refused b (and 193 lines like it before)"
    for number in range(5000):
        passed(f"another peer {number}")
    assert len(limit._peers) <= 1000


def test_limits_only_the_warnings_of_a_logger_of_refusals() -> None:
    limit = RateLimit((), {"app.web.voice"}, lambda: 0.0, lines=3)

    def passed(level: int) -> int:
        record = logging.LogRecord("app.web.voice", level, "", 0, "a line", (), None)
        return sum(limit.filter(record) for _ in range(100))

    assert passed(logging.INFO) == 100
    assert passed(logging.WARNING) == 3


@pytest.mark.parametrize("name", sorted({*log._OF_CONNECTIONS, *log._OF_REFUSALS}))
def test_each_logger_that_is_limited_is_there(name: str) -> None:
    module = importlib.import_module(name.replace("uvicorn.error", "uvicorn.logging"))
    assert name == "uvicorn.error" or module.log.name == name


@pytest.mark.parametrize(
    ("name", "spared"),
    [
        ("app.server.sockets", True),
        ("app.web.sockets", True),
        ("app.web.streams", True),
        ("app.session.call", False),
    ],
)
def test_what_is_told_of_each_connection_is_told_sparingly(name: str, spared: bool) -> None:
    stream = io.StringIO()
    configure("console", "INFO", stream)
    for number in range(1000):
        logging.getLogger(name).info("Line %d", number)
    assert (len(stream.getvalue().splitlines()) < 1000) == spared
    assert not logging.getLogger(name).filters, "a logger outlives what is configured"


@given(st.text(st.characters(codec=None)))
def test_whatever_the_text_a_safe_one_is_one_printable_line(text: str) -> None:
    made = safe(text)
    assert not dangerous(made)
    assert len(made.splitlines()) <= 1
    made.encode("utf-8")


def dangerous(text: str) -> list[str]:
    """Name the characters that move a cursor, break a line, or reorder or hide text."""
    joiner = "\u200d"  # emoji are made with it
    kinds = {"Cc", "Cf", "Cs", "Zl", "Zp"}
    return [c for c in text if unicodedata.category(c) in kinds and c != joiner]


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_an_endless_message_is_cut(log_format: str) -> None:
    assert len(logged(log_format, "%s", "x" * 1_000_000)) < 10_000


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_a_long_traceback_keeps_its_cause_and_an_endless_one_is_cut(log_format: str) -> None:
    try:
        raise ValueError("x" * 10_000 + "the cause")
    except ValueError:
        long = logged(log_format, "It broke", exc_info=True)
    try:
        raise ValueError("x" * 1_000_000)
    except ValueError:
        endless = logged(log_format, "It broke", exc_info=True)
    assert "the cause" in long
    assert len(endless) < 30_000


def test_a_terminal_without_emoji_loses_no_line() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    configure("console", "INFO", stream)
    logging.getLogger("app.x").info("🔌 attempt")
    stream.flush()
    assert b"attempt" in raw.getvalue()


@pytest.mark.parametrize("name", ["uvicorn.access", "uvicorn.error", "httpx", "httpcore.http11"])
def test_libraries_print_no_requests_even_at_debug(name: str) -> None:
    stream = io.StringIO()
    configure("console", "DEBUG", stream)
    logging.getLogger(name).info('"WebSocket /v1/ingest?token=%s" [accepted]', CANARY)
    logging.getLogger(name).debug("> Authorization: %s", CANARY)
    assert stream.getvalue() == ""


def test_a_library_in_trouble_is_heard() -> None:
    stream = io.StringIO()
    configure("console", "INFO", stream)
    logging.getLogger("uvicorn.error").error("address in use")
    assert "ERROR   address in use" in stream.getvalue()


@pytest.mark.parametrize(("level", "lines"), [("DEBUG", 3), ("INFO", 2), ("ERROR", 1)])
def test_the_level_is_that_of_the_bridge(level: str, lines: int) -> None:
    stream = io.StringIO()
    configure("console", level, stream)
    log = logging.getLogger("app.session.call")
    log.debug("1st frame")
    log.info("started")
    log.error("broken")
    assert len(stream.getvalue().splitlines()) == lines


def test_configuring_twice_writes_each_line_once() -> None:
    logged("console", "before")
    assert logged("console", "after").count("after") == 1


# ----------------------------------------------------------------- phone numbers


@pytest.mark.parametrize(
    ("number", "masked"),
    [
        ("+12763659195", "+1******9195"),
        ("12763659195", "1******9195"),
        ("+919876543210", "+9*******3210"),
        ("+1 (276) 365-9195", "+1 (***) ***-9195"),
        ("276.365.9195", "2**.***.9195"),
        ("12345678", "1***5678"),
        ("1234567", "1******"),
        ("+49123", "+4****"),
        ("911", "9**"),
        ("", ""),
        ("anonymous", "anonymous"),
        ("Restricted", "Restricted"),
        ("unknown", "unknown"),
        ("client:alice", "client:***"),
        ("sip:alice@example.com", "sip:***"),
        ("sip:+12763659195@example.com;user=phone", "sip:***"),
        ("tel:+12763659195", "tel:+1******9195"),
        ("whatsapp:+12763659195", "whatsapp:+1******9195"),
        ("12763659195:x", "***"),
        ("Alice Smith", "***"),
        ("alice@example.com", "***"),
        ("call 12763659195 now", "***"),
        ("١٢٧٦٣٦٥٩١٩٥", "***"),
    ],
)
def test_of_a_number_only_its_ends_are_shown(number: str, masked: str) -> None:
    assert mask_phone(number) == masked


@given(st.from_regex(r"\+?[0-9]{5,15}", fullmatch=True))
def test_no_mask_shows_more_than_five_digits(number: str) -> None:
    assert sum(map(str.isdigit, mask_phone(number))) <= 5
    assert len(mask_phone(number)) == len(number)


def test_the_setting_chooses_the_mask() -> None:
    assert phone_mask("masked")("+12763659195") == "+1******9195"
    assert phone_mask("full")("+12763659195") == "+12763659195"


# ------------------------------------------------------------- headers and URLs


@pytest.mark.parametrize(
    "name",
    [
        "Authorization",
        "proxy-authorization",
        "Cookie",
        "Set-Cookie",
        "X-Twilio-Signature",
        "Sec-WebSocket-Key",
        "Sec-WebSocket-Protocol",
        "X-API-Key",
        "X-Auth-Request-Email",
        "X-Access-Token",
        "I-Twilio-Idempotency-Token",
        "Client-Secret",
        "X-Session-Id",
        "X-Password",
        "X-Hub-Signature-256",
        "X-Amz-Credential",
        "X-Goog-IAP-JWT-Assertion",
        "Cf-Access-Jwt-Assertion",
        "X-Amzn-Oidc-Data",
        "X-Header-Of-Tomorrow",
    ],
)
def test_a_secret_header_is_hidden(name: str) -> None:
    shown = masked_headers([("host", "a.example.com"), (name, CANARY)])
    assert CANARY not in shown
    assert json.loads(shown) == {"host": "a.example.com", name.lower(): "***"}


def test_a_url_in_a_header_is_shown_without_its_query() -> None:
    headers = [("referer", f"https://a.example.com/x?token={CANARY}"), ("x-original-uri", "/y?a=b")]
    assert json.loads(masked_headers(headers)) == {
        "referer": "https://a.example.com/x?***",
        "x-original-uri": "/y?***",
    }


def test_what_a_guide_tells_to_look_at_is_shown() -> None:
    headers = [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("X-Forwarded-Proto", "https")]
    assert json.loads(masked_headers(headers)) == {
        "upgrade": "websocket",
        "connection": "Upgrade",
        "x-forwarded-proto": "https",
    }


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        ("", "/v1/ingest"),
        (
            "businessId=business-1&callSid=test123&plan=premium&to=%2B12763659195",
            "/v1/ingest?businessId=business-1&callSid=test123&plan=premium&to=***",
        ),
        ("sample-rate=16000&sample_rate=8000", "/v1/ingest?sample-rate=16000&sample_rate=8000"),
        (f"ticket={CANARY}", "/v1/ingest?ticket=***"),
        (f"ticket={CANARY}&ticket={CANARY}", "/v1/ingest?ticket=***&ticket=***"),
        (CANARY, "/v1/ingest?***"),
        (f"{CANARY}=", "/v1/ingest?***"),
        (f"a;token={CANARY}", "/v1/ingest?***"),
        (f"businessId={CANARY * 20}", "/v1/ingest?businessId=***"),
        ("businessId=%2B12763659195", "/v1/ingest?businessId=***"),
        ("businessId=a%0d%0ab", "/v1/ingest?businessId=***"),
        ("plan=", "/v1/ingest?plan="),
    ],
)
def test_of_a_query_only_harmless_values_are_shown(query: str, shown: str) -> None:
    assert masked_url("/v1/ingest", query) == shown


def test_an_endless_query_is_cut() -> None:
    assert len(masked_url("/v1/ingest", "&".join(["a=b"] * 100_000))) < 1000


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://localhost:6379/0", "redis://localhost:6379/0"),
        (f"redis://:{CANARY}@localhost:6379/0", "redis://localhost:6379/0"),
        (f"rediss://me:{CANARY}@a.example.com", "rediss://a.example.com"),
        (f"redis://:a/{CANARY}@localhost", "redis://localhost"),
        (f"unix://me:{CANARY}@/run/redis.sock", "unix:///run/redis.sock"),
        (f"unix:///run/redis.sock?password={CANARY}", "unix:///run/redis.sock"),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, shown: str) -> None:
    assert without_password(url) == shown
