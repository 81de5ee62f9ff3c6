"""A stand-in for an account at Twilio: its numbers and its alerts.

Written from twilio.com/docs/phone-numbers/api/incomingphonenumber-resource and
twilio.com/docs/usage/monitor-alert; no live account was asked.
"""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

SID = "AC" + "0123456789abcdef" * 2
TOKEN = "12345"
# How the API's parameters are called in its answers.
_FIELDS = {
    "VoiceUrl": "voice_url",
    "VoiceMethod": "voice_method",
    "StatusCallback": "status_callback",
    "StatusCallbackMethod": "status_callback_method",
}


def a_number(number: str, **settings: str | None) -> dict[str, Any]:
    """Make a number as the API gives it."""
    return {
        "sid": "PN" + number[-4:] * 8,
        "account_sid": SID,
        "phone_number": number,
        "friendly_name": "a friendly name",
        "voice_url": "https://demo.twilio.com/welcome/voice/",
        "voice_method": "POST",
        "voice_fallback_url": "https://handler.example.com/sorry",
        "status_callback": "",
        "status_callback_method": "POST",
        "voice_application_sid": None,
        "trunk_sid": None,
        **settings,
    }


def an_alert(code: str, at: str) -> dict[str, Any]:
    """Make an alert as the API gives it."""
    words = "sourceComponent=13400&ErrorCode=" + code
    named = {"sid": "NO1", "error_code": code, "log_level": "error", "alert_text": words}
    return {**named, "date_created": at, "resource_sid": "CA1"}


@dataclass
class TwilioAccount:
    """What the account has; `forgets` takes a change and does not keep it."""

    numbers: list[dict[str, Any]] = field(default_factory=list)
    alerts: list[dict[str, Any]] = field(default_factory=list)
    url: str = ""
    asked: list[str] = field(default_factory=list)
    status: int = 200
    garbage: bytes = b""
    forgets: bool = False

    @property
    def environment(self) -> dict[str, str]:
        """Give the variables by which a program asks it."""
        return {
            "TWILIO_ACCOUNT_SID": SID,
            "TWILIO_AUTH_TOKEN": TOKEN,
            "TWILIO_API_URL": self.url,
            "TWILIO_MONITOR_URL": self.url,
        }

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            try:
                while True:
                    writer.write(await self._answered(reader))
                    await writer.drain()
            finally:
                writer.close()

    async def _answered(self, reader: asyncio.StreamReader) -> bytes:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = head.strip().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        method, target, _ = first.split(" ")
        self.asked.append(f"{method} {target}")
        status, told = self._answer(method, target, headers, body.decode())
        said = self.garbage or json.dumps(told).encode()
        return f"HTTP/1.1 {status} Said\r\nContent-Length: {len(said)}\r\n\r\n".encode() + said

    def _answer(
        self, method: str, target: str, headers: Mapping[str, str], body: str
    ) -> tuple[int, dict[str, Any]]:
        shown = base64.b64decode(headers["authorization"].partition(" ")[2]).decode()
        if self.status != 200 or shown != f"{SID}:{TOKEN}":
            return (self.status if self.status != 200 else 401), {"code": 20003, "message": "no"}
        parts = urlsplit(target)
        asked = parse_qs(parts.query)
        if parts.path == "/v1/Alerts":
            since = asked["StartDate"][0]
            return 200, {"alerts": [one for one in self.alerts if one["date_created"] >= since]}
        base = f"/2010-04-01/Accounts/{SID}/IncomingPhoneNumbers"
        if parts.path == f"{base}.json" and method == "GET":
            # "You can specify partial numbers and use '*' as a wildcard for any digit."
            wanted = asked["PhoneNumber"][0]
            found = [one for one in self.numbers if wanted in one["phone_number"]]
            return 200, {"incoming_phone_numbers": found}
        for number in self.numbers:
            if method == "POST" and parts.path == f"{base}/{number['sid']}.json":
                form = {name: values[0] for name, values in parse_qs(body).items()}
                changed = {_FIELDS[name]: value for name, value in form.items()}
                if not self.forgets:
                    number.update(changed)
                return 200, {**number, **changed}
        return 404, {"code": 20404, "message": "no"}


@asynccontextmanager
async def an_account(**what: Any) -> AsyncIterator[TwilioAccount]:
    """Stand in for an account, on a loopback port."""
    account = TwilioAccount(**what)
    server = await asyncio.start_server(account._serve, "127.0.0.1", 0)
    account.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield account
    finally:
        server.close()
