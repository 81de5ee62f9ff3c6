"""A real instance of the service, and a peer that talks to it by hand."""

import asyncio
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
from redis.asyncio import Redis
from twilio.request_validator import RequestValidator
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from app.tools.embedded import EmbeddedRedis
from app.wire import twilio
from tests.businesses import BUSINESSES, NUMBER
from tests.redis_process import fixed_port
from tests.waiting import WAIT_SECONDS, until

TOKEN = "12345"
FRAME = b"\xff" * 160


@dataclass(frozen=True)
class Service:
    """A running instance: where it is, what it logs, and its Redis."""

    url: str
    redis_url: str
    log: Path
    process: "subprocess.Popen[bytes]"

    @property
    def ws_url(self) -> str:
        return self.url.replace("http", "ws", 1)

    def logged(self) -> str:
        return self.log.read_text(encoding="utf-8")

    def stop(self, sig: int = signal.SIGTERM) -> int:
        self.process.send_signal(sig)
        return self.process.wait(WAIT_SECONDS)


@contextmanager
def running_service(
    directory: Path,
    redis_url: str,
    *arguments: str,
    has_store: bool = True,
    code: Path | None = None,
    **variables: str,
) -> Iterator[Service]:
    """Start `python -m app serve` with these variables, until the block ends.

    `code` is the directory that holds the service's `app`, this checkout unless it is given.

    It has a process group of its own, as a command in a terminal has. It is up when
    its businesses are loaded; without a store (`has_store`) as soon as it answers.
    """
    port = fixed_port()
    url = f"http://127.0.0.1:{port}"
    businesses = directory / "businesses.toml"
    businesses.write_text(BUSINESSES, encoding="utf-8")
    environment = {
        "PATH": os.environ["PATH"],
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "PUBLIC_URL": url,
        "REDIS_URL": redis_url,
        "TWILIO_AUTH_TOKEN": TOKEN,
        "SECRET_KEY": "s" * 32,
        "BUSINESSES_FILE": str(businesses),
        **variables,
    }
    log = directory / "log.txt"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "app", "serve", *arguments],
            cwd=code,
            env=environment,
            stdout=output,
            stderr=output,
            process_group=0,
        )
        try:
            _wait_until_up(url, process, log, has_store=has_store)
            yield Service(url, redis_url, log, process)
        finally:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(WAIT_SECONDS)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


@contextmanager
def service_alone(directory: Path, *arguments: str, **variables: str) -> Iterator[Service]:
    """Run an instance on a Redis of its own."""
    with (
        EmbeddedRedis(directory / "redis", persistent=False) as redis,
        running_service(directory, redis.url, *arguments, **variables) as service,
    ):
        yield service


def _wait_until_up(
    url: str, process: "subprocess.Popen[bytes]", log: Path, *, has_store: bool
) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    with httpx.Client(verify=False, timeout=WAIT_SECONDS) as client:
        while time.monotonic() < deadline and process.poll() is None:
            with suppress(httpx.HTTPError):
                checks = client.get(f"{url}/health/ready").json()["checks"]
                if checks["businesses"] == "ok" or not has_store:
                    return
            time.sleep(0.02)
    raise AssertionError(f"the service did not start: {log.read_text()}")


def http_client(**options: Any) -> httpx.AsyncClient:
    """Make a patient client; without TLS, whose certificates take longer to read than a call."""
    return httpx.AsyncClient(verify=False, **{"timeout": WAIT_SECONDS, **options})


def signature(url: str, form: Mapping[str, str] | None = None, token: str = TOKEN) -> str:
    """Sign as Twilio does."""
    made: str = RequestValidator(token).compute_signature(url, dict(form or {}))
    return made


def a_call(to_number: str = NUMBER) -> dict[str, str]:
    """Make the form of an incoming call, blank fields included."""
    return {
        "CallSid": "CA" + secrets.token_hex(16),
        "AccountSid": "AC" + "0" * 32,
        "From": "+12763659195",
        "To": to_number,
        "CallStatus": "ringing",
        "CallerZip": "",
    }


async def post(
    service: Service,
    path: str,
    form: Mapping[str, str],
    *,
    headers: Mapping[str, str] | None = None,
) -> httpx.Response:
    """Post a form, signed unless `headers` are given."""
    if headers is None:
        headers = {"X-Twilio-Signature": signature(service.url + path, form)}
    content = urlencode(form)
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    async with http_client() as client:
        return await client.post(service.url + path, content=content, headers={**kind, **headers})


class Peer:
    """A carrier by hand: sends what it is told, and remembers what came back."""

    def __init__(self, socket: ClientConnection, call_sid: str) -> None:
        self.socket = socket
        self.call_sid = call_sid
        self.stream_sid = "MZ" + secrets.token_hex(16)
        self.seq = 0

    async def start(self, params: Mapping[str, str] | None = None, **form: Any) -> None:
        self.seq = 1
        await self.socket.send(twilio.connected_message())
        await self.socket.send(
            twilio.start_message(self.stream_sid, self.call_sid, params=params or {}, **form)
        )

    async def media(self, count: int = 1, payload: bytes = FRAME) -> None:
        for _ in range(count):
            self.seq += 1
            await self.socket.send(
                twilio.media_message(
                    self.stream_sid,
                    payload,
                    seq=self.seq,
                    chunk=self.seq - 1,
                    timestamp=(self.seq - 2) * 20,
                )
            )

    async def stop(self) -> None:
        self.seq += 1
        await self.socket.send(twilio.stop_message(self.stream_sid, self.call_sid, seq=self.seq))

    async def closed(self) -> tuple[int, str]:
        """Wait for the service's close; no message may come before it."""
        async with asyncio.timeout(WAIT_SECONDS):
            with pytest.raises(ConnectionClosed):
                raise AssertionError(f"a message came: {await self.socket.recv()!r}")
        return self.socket.close_code or 0, self.socket.close_reason or ""


@asynccontextmanager
async def a_peer(
    service: Service,
    path: str = "/twilio-media",
    *,
    headers: Mapping[str, str] | None = None,
    call_sid: str = "",
) -> AsyncIterator[Peer]:
    """Open a media socket, signed unless `headers` are given."""
    url = service.ws_url + path
    signed = {"X-Twilio-Signature": signature(url)} if headers is None else headers
    async with connect(url, additional_headers=dict(signed), compression=None) as socket:
        yield Peer(socket, call_sid or "CA" + secrets.token_hex(16))


async def receipt_of(service: Service, stream_sid: str) -> dict[str, Any]:
    """Wait for a stream's receipt, as it stands in its record."""
    async with Redis.from_url(service.redis_url) as redis:
        found: Any = await until(lambda: redis.hget(f"stream:{{{stream_sid}}}", "receipt"))
    receipt: dict[str, Any] = json.loads(found)
    return receipt


async def entries_of(service: Service, stream_sid: str) -> list[dict[str, bytes]]:
    """Read a stream's entries by a client of our own."""
    async with Redis.from_url(service.redis_url) as redis:
        found: Any = await redis.xrange(f"audio:{{{stream_sid}}}")
    return [{name.decode(): value for name, value in fields.items()} for _, fields in found]


async def written(service: Service, stream_sid: str, count: int) -> None:
    """Wait until a stream has so many entries."""
    async with Redis.from_url(service.redis_url) as redis:

        async def are_there() -> bool:
            return await redis.xlen(f"audio:{{{stream_sid}}}") >= count

        await until(are_there)


async def events_of(
    service: Service, call_sid: str, at_least: int = 0
) -> list[tuple[str, dict[str, Any]]]:
    """Read a call's lifecycle events, as soon as there are so many: names and data."""
    async with Redis.from_url(service.redis_url) as redis:
        events: list[tuple[str, dict[str, Any]]] = []

        async def are_told() -> bool:
            found: Any = await redis.xrange("calls")
            events[:] = [
                (fields[b"event"].decode(), json.loads(fields[b"data"]))
                for _, fields in found
                if fields[b"callSid"].decode() == call_sid
            ]
            return len(events) >= at_least

        await until(are_told)
    return events


def adds_up(receipt: Mapping[str, Any]) -> bool:
    """Tell whether a receipt accounts for every message."""
    counted: int = sum(receipt["dropped"].values()) + sum(receipt["rejected"].values())
    return bool(receipt["received"] == receipt["published"] + counted + receipt["duplicates"])


def lines_with(log: str, *parts: str) -> Sequence[str]:
    """Find the log lines that have all these parts."""
    return [line for line in log.splitlines() if all(part in line for part in parts)]


async def logged_line(service: Service, *parts: str, times: int = 1) -> None:
    """Wait until the service has logged a line that has all these parts, or so many."""
    await until(lambda: len(lines_with(service.logged(), *parts)) >= times, service.logged)


async def started(service: Service, stream_sid: str) -> None:
    """Wait until a stream is admitted."""
    await logged_line(service, f"Stream {stream_sid} started")
