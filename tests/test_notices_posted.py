"""A notice of a reached limit, from a call to a receiver of the business's: over TLS, once."""

import asyncio
import hashlib
import hmac
import json
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.certificates import certificates
from tests.redis_process import fixed_port
from tests.service import Service, a_call, http_client, lines_with, post
from tests.waiting import until
from tests.web.admins import Caller, administered

SECRET = "a-secret-of-the-business"
# Businesses of `tests.businesses` with a plan of their own: name, which is the plan's too; number.
WIDE = ("wide", "+15005550005")
SLOW = ("slow", "+15005550007")
SHORT = ("short", "+15005550004")


@dataclass
class Receiver:
    """Where a business is told: what came there, as it came."""

    url: str = ""
    connections: int = 0
    came: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            first, *lines = head.strip().split("\r\n")
            assert first == "POST /usage HTTP/1.1"
            headers = {name.lower(): value for name, value in (one.split(": ") for one in lines)}
            body = await reader.readexactly(int(headers["content-length"]))
            self.came.append((headers, body))
            writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def receiving(tls: Path) -> AsyncIterator[Receiver]:
    """Receive notices at `localhost`, with the certificate of this directory."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tls / "server.crt", tls / "server.key")
    port = fixed_port()
    receiver = Receiver(f"https://localhost:{port}/usage")
    server = await asyncio.start_server(receiver.serve, "localhost", port, ssl=context)
    try:
        yield receiver
    finally:
        server.close()


def limited(service: Service, name: str, url: str) -> None:
    """Let a business be told, signed, of its first call of a month."""
    operator = Caller(service)
    for path, edit in (
        (f"/plans/{name}", {"calls_per_month_soft": 1}),
        (f"/businesses/{name}", {"usage_webhook_url": url}),
        (f"/businesses/{name}/secrets", {"usage_webhook_secret": SECRET}),
    ):
        answer = operator("PATCH", path, edit, "*")
        assert answer.status_code == 200, answer.text


async def call(service: Service, number: str) -> None:
    """Ring, and hang up."""
    form = a_call(number)
    assert "<Stream" in (await post(service, "/twilio-voice", form)).text
    await post(service, "/twilio-status", form | {"CallStatus": "completed"})


async def came_of_it(service: Service, outcome: str) -> None:
    """Wait until a notice has come to this."""
    sample = f'bridge_usage_notices_total{{outcome="{outcome}"}} 1.0'
    shown = ""
    async with http_client() as client:

        async def is_counted() -> bool:
            nonlocal shown
            shown = (await client.get(f"{service.url}/metrics")).text
            return sample in shown

        await until(is_counted, lambda: shown)


def is_signed(signature: str, body: bytes, secret: str) -> bool:
    """Check a signature as docs/operations.md tells a receiver to."""
    parts = dict(part.split("=", 1) for part in signature.split(","))
    signed = hmac.new(secret.encode(), parts["t"].encode() + b"." + body, hashlib.sha256)
    is_fresh = abs(time.time() - int(parts["t"])) < 300
    return is_fresh and hmac.compare_digest(signed.hexdigest(), parts["v1"])


def test_the_check_of_a_receiver_tells_a_forgery() -> None:
    at = int(time.time())
    signed = hmac.new(SECRET.encode(), b"%d.{}" % at, hashlib.sha256).hexdigest()
    assert is_signed(f"t={at},v1={signed}", b"{}", SECRET)
    assert not is_signed(f"t={at},v1={signed}", b"[]", SECRET)
    assert not is_signed(f"t={at + 1},v1={signed}", b"{}", SECRET)
    assert not is_signed(f"t={at},v1={signed}", b"{}", SECRET + "x")


@dataclass(frozen=True)
class Told:
    """What came of the calls below: where what was told to whom, and what is logged of it."""

    wide: Receiver
    slow: Receiver
    of_another_name: Receiver
    inside: Receiver
    log: str


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Told:
    """Ring three businesses of an instance, and one of an instance that tells nobody inside.

    All at once: what is used is noted every six seconds.
    """
    directory = tmp_path_factory.mktemp("notices")
    own, other = (
        certificates(directory / name, name) for name in ("localhost", "elsewhere.example")
    )
    trusted = directory / "trusted.crt"
    trusted.write_bytes((own / "ca.crt").read_bytes() + (other / "ca.crt").read_bytes())
    with (
        administered(
            _made(directory / "open"), ALLOW_PRIVATE_WEBHOOKS="true", SSL_CERT_FILE=str(trusted)
        ) as service,
        administered(_made(directory / "careful"), SSL_CERT_FILE=str(trusted)) as careful,
    ):
        return asyncio.run(ring_all(service, careful, own, other))


def _made(directory: Path) -> Path:
    directory.mkdir()
    return directory


async def ring_all(service: Service, careful: Service, own: Path, other: Path) -> Told:
    """Have each business reach its limit, one of them twice."""
    async with (
        receiving(own) as wide,
        receiving(own) as slow,
        receiving(other) as of_another_name,
        receiving(own) as inside,
    ):
        limited(service, WIDE[0], wide.url)
        limited(service, SLOW[0], slow.url)
        limited(service, SHORT[0], of_another_name.url)
        limited(careful, WIDE[0], inside.url)
        for where, number in ((service, WIDE[1]), (service, SHORT[1]), (careful, WIDE[1])):
            await call(where, number)
        await until(lambda: wide.came, service.logged)
        # What is noted of the second call is noted before what another business has used.
        await call(service, WIDE[1])
        await call(service, SLOW[1])
        await until(lambda: slow.came, service.logged)
        await came_of_it(service, "untrusted")
        await came_of_it(careful, "forbidden_address")
        return Told(wide, slow, of_another_name, inside, service.logged())


def test_a_business_is_told_once_of_a_limit_and_knows_by_whom(told: Told) -> None:
    [(headers, body)] = told.wide.came
    assert headers["host"] == told.wide.url.split("/")[2]
    assert headers["content-type"] == "application/json"
    assert is_signed(headers["x-media-bridge-signature"], body, SECRET)
    notice = json.loads(body)
    assert notice["event"] == "usage.soft_limit_reached"
    assert notice["id"] == f"wide:{notice['month']}:calls_per_month_soft:1"
    assert (notice["business_id"], notice["limit"]) == ("wide", "calls_per_month_soft")
    assert (notice["allowed"], notice["used"]) == (1, 1)
    assert len(lines_with(told.log, "Business wide has reached")) == 1
    assert SECRET not in told.log


def test_whoever_has_no_certificate_of_the_name_is_told_nothing(told: Told) -> None:
    assert told.of_another_name.came == []
    assert lines_with(told.log, "short could not be told of", "untrusted")


def test_unless_it_is_allowed_nobody_on_this_machine_is_connected_to(told: Told) -> None:
    assert told.inside.connections == 0
