"""Text of strangers, wherever it may stand, forges no log line and no key."""

import asyncio
import json
import re
import unicodedata
from collections.abc import Iterator
from typing import Any

import pytest
from redis.asyncio import Redis
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from app.wire import exotel, twilio
from tests.service import (
    Service,
    a_call,
    http_client,
    service_alone,
)

MARK = "F0RGED"
# A whole line of ours, in either format, behind every way to begin a new one.
LINE = f"2026-01-01T00:00:00.000Z ERROR   {MARK}"
JSON_LINE = json.dumps({"at": "2026-01-01T00:00:00.000Z", "level": "ERROR", "message": MARK})
HOSTILE = {
    "CR LF": f"x\r\n{LINE}\r\n{JSON_LINE}\r\n",
    "other line ends": f"x\x0b{LINE}\x0c{LINE}\x1c{LINE}\x85{LINE}\u2028{LINE}\u2029{LINE}",
    "ANSI": f"\x1b[2K\x1b[1A\x1b[31m{MARK}\x1b[0m\x9b31m\x1b]0;{MARK}\x07",
    "right to left": f"\u202e{MARK}\u202c\u2066\u2067{MARK}\u2069\u200f\u061c",
    "unseen": f"\x00\x08\x7f{MARK}\u200b\u2060\ufeff\U000e0041\U000e007f",
    "quotes": f'"}}\n{JSON_LINE}\n{{"x": "\\" \' %s %(name)s {{}} ${{jndi:ldap://x}}',
    # What is logged of it is cut: the mark stands at both ends.
    "4 kB": MARK + "é" * 2000 + MARK,
}
FORWARDED = "6.6.6.6, 203.0.113.7, [::1], unknown, " + "1.2.3.4," * 200
# DESIGN: the keys of the contract, their ids of [A-Za-z0-9_.-]{1,128}, and numbers.
KEY = re.compile(
    r"[a-z]+(:\{[A-Za-z0-9_.+-]{1,128}\}(:(stream|call|counted|ended):[A-Za-z0-9_.-]{1,128}"
    r"|:metered:[A-Za-z0-9_.-]{1,128}@\d+:\d{4}-\d\d|:usage:\d{4}-\d\d"
    r"|:(recent|facts|reached|calls))?)?"
    r"|seen:\{[A-Za-z0-9_.-]{1,128}:[A-Za-z0-9_.-]{1,128}\}"
    r"|held:\{control\}:[0-9a-f]{16}"
    r"|held:\{audit\}:head"
)


@pytest.fixture(scope="module", params=["console", "json"])
def service(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Iterator[Service]:
    with service_alone(
        tmp_path_factory.mktemp(request.param),
        LOG_FORMAT=request.param,
        LOG_LEVEL="DEBUG",
        LOG_PHONE_NUMBERS="full",
        ALLOW_UNSIGNED="true",
        SUPPORT_EXOTEL="true",
        TRUSTED_PROXIES="127.0.0.0/8",
        JWT_SECRET="j" * 32,
    ) as running:
        yield running


async def webhooks(service: Service, text: str) -> None:
    """Put the text into every field, header and URL that a stranger writes."""
    # A header cannot hold a line end; bytes above ASCII it can.
    header = re.sub(r"[\r\n\x00-\x08\x0b-\x1f\x7f]", "", text).encode()[:4000]
    fields = ("From", "To", "CallerName", "CallStatus", "DialCallStatus", "StreamEvent")
    paths = ("/twilio-voice", "/twilio-dial", "/twilio-status", "/twilio-stream-status")
    async with http_client(base_url=service.url) as client:
        for path in paths:
            good = a_call() | dict.fromkeys(fields, text)
            error = a_call() | {"StreamEvent": "stream-error", "StreamError": text}
            for form in (good, error, a_call() | {"CallSid": text}, {**a_call(), text: text}):
                await client.post(path, data=form, headers={"X-Forwarded-For": FORWARDED})
            await client.post(path, data=a_call(), params={"businessId": text, text: text})
        for name in (b"User-Agent", b"X-Forwarded-For", b"X-Twilio-Signature", b"Authorization"):
            for path in ("/twilio-media", "/v1/ingest", "/exotel-stream-url", "/twilio-voice"):
                await client.get(path, headers={name: header})
        await client.get("/twilio-media/" + "".join(f"%{byte:02x}" for byte in text.encode()[:900]))
        for asked in ({"CallSid": text}, {"CallTo": text, "CallFrom": text, "businessId": text}):
            await client.get("/exotel-stream-url", params=asked)


async def sockets(service: Service, text: str) -> None:
    """Put the text into every message that a stranger writes."""
    given = {"from": text[:400], "to": text[:400], "plan": text[:400], text[:200]: "x"}
    twilio_start = json.loads(twilio.start_message("MZ1", "CA1", params=given))
    exotel_start = json.loads(exotel.start_message("ex1", "ex1", from_number=text[:100]))
    conversations: dict[str, list[Any]] = {
        "/twilio-media?businessId=business-1": [
            [{"event": text}, {"event": "connected", "protocol": text}, twilio_start],
            [twilio_start, {"event": "mark", "mark": {"name": text[:400]}}, {"event": "stop"}],
            [{"event": "start", "start": {**twilio_start["start"], "streamSid": text}}],
            [{"event": "start", "start": {**twilio_start["start"], "callSid": text}}],
            [{"event": "start", "start": {**twilio_start["start"], "mediaFormat": text}}],
            [{"event": "start", "start": {**twilio_start["start"], "tracks": [text]}}],
            [b"\xff\xfe not UTF-8 " + text.encode()],
        ],
        "/v1/ingest?businessId=business-1": [
            [exotel_start, {"event": "stop", "stop": {"reason": text[:100]}}],
            [{**exotel_start, "start": {"stream_sid": text, "call_sid": text}}],
            [{**exotel_start, "start": {"media_format": text}}],
        ],
    }
    for path, several in conversations.items():
        for messages in several:
            try:
                async with connect(service.ws_url + path, compression=None) as socket:
                    for message in messages:
                        is_text = isinstance(message, bytes)
                        data = message if is_text else json.dumps(message)
                        await socket.send(data, text=is_text or None)
            except (ConnectionClosed, InvalidStatus):
                pass


def is_a_line_of_ours(line: str, log_format: str) -> bool:
    if log_format == "json":
        return {"at", "level", "logger", "message"} <= set(json.loads(line))
    return bool(re.match(r"20\d\d-\d\d-\d\dT[\d:.]{12}Z (DEBUG|INFO|WARNING) {1,4}\S", line))


@pytest.mark.parametrize("name", HOSTILE)
async def test_text_of_strangers_forges_no_line_and_no_key(service: Service, name: str) -> None:
    log_format = "json" if '{"' in service.logged()[:2] else "console"
    before = len(service.logged())
    await webhooks(service, HOSTILE[name])
    await sockets(service, HOSTILE[name])
    await asyncio.sleep(0.1)
    said = service.logged()[before:]
    assert MARK in said or "F0R" not in HOSTILE[name]
    lines = said.removesuffix("\n").split("\n")
    assert [line for line in lines if not is_a_line_of_ours(line, log_format)] == []
    assert [line for line in lines if line.startswith(("2026-01-01", JSON_LINE[:20]))] == []
    assert {char for char in said if char != "\n" and not char.isprintable()} == set()
    assert {unicodedata.bidirectional(char) for char in said} & {
        "RLO",
        "RLI",
        "LRI",
        "PDF",
    } == set()
    assert max(map(len, lines)) < 5000
    assert "Traceback" not in said
    redis = Redis.from_url(service.redis_url)
    try:
        keys = [key.decode() async for key in redis.scan_iter()]
    finally:
        await redis.aclose()
    assert [key for key in keys if not KEY.fullmatch(key)] == []
