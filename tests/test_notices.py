"""Notices of reached limits: what is posted, how often, and where never."""

import asyncio
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import msgspec
import pytest

from app import notices as module
from app.hosts import is_public_address
from app.metrics import Metrics
from app.notices import SIGNATURE, Endpoint, Notice, Notices, notice_of
from tests.waiting import until

NOTICE = notice_of(
    "shop", "2026-11", "calls_per_month_soft", 9000.0, 9001, 1_796_083_199_000, is_hard=False
)
SECRET = "a-secret-of-the-shop"


class Receiver:
    """A server that answers what it is told to, and remembers what came, and where to."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses) or [204]
        self.requests: list[httpx.Request] = []
        self.metrics = Metrics()
        self.pauses: list[float] = []
        self.addresses = ["93.184.216.34"]
        self.endpoint: Endpoint | None = Endpoint("https://shop.example:8443/hook?a=b", SECRET)

    async def answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        if not status:
            raise httpx.ConnectError("refused")
        return httpx.Response(status, headers={"Location": "http://127.0.0.1/"})

    async def endpoint_of(self, business_id: str) -> Endpoint | None:
        return self.endpoint

    async def resolve(self, host: str, port: int) -> list[str]:
        assert (host, port) == ("shop.example", 8443)
        return self.addresses

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)

    def came_of_it(self, outcome: str) -> int:
        found = self.metrics.registry.get_sample_value(
            "bridge_usage_notices_total", {"outcome": outcome}
        )
        return int(found or 0)


@asynccontextmanager
async def posting(receiver: Receiver, *, allow_private: bool = False) -> AsyncIterator[Notices]:
    http = httpx.AsyncClient(transport=httpx.MockTransport(receiver.answer))
    notices = Notices(
        receiver.endpoint_of,
        http,
        receiver.metrics,
        allow_private=allow_private,
        wall_clock=lambda: 1_796_083_200.9,
        jitter=lambda: 0.5,
        resolve=receiver.resolve,
        sleep=receiver.sleep,
    )
    running = asyncio.create_task(notices.run())
    yield notices
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await notices.close()


async def post(receiver: Receiver, outcome: str, *, allow_private: bool = False) -> None:
    async with posting(receiver, allow_private=allow_private) as notices:
        notices.put(NOTICE)
        await until(lambda: receiver.came_of_it(outcome) == 1, receiver.metrics.exposition)


async def test_a_notice_says_what_was_reached_and_is_signed() -> None:
    receiver = Receiver()
    await post(receiver, "sent")
    [request] = receiver.requests
    assert json.loads(request.content) == {
        "event": "usage.soft_limit_reached",
        "id": "shop:2026-11:calls_per_month_soft:9000",
        "business_id": "shop",
        "month": "2026-11",
        "limit": "calls_per_month_soft",
        "allowed": 9000.0,
        "used": 9001,
        "at": "2026-11-30T23:59:59Z",
    }
    signed = hmac.new(SECRET.encode(), b"1796083200." + request.content, hashlib.sha256)
    assert request.headers[SIGNATURE] == f"t=1796083200,v1={signed.hexdigest()}"


async def test_the_connection_is_to_the_address_that_was_checked() -> None:
    receiver = Receiver()
    receiver.addresses = ["10.0.0.1", "93.184.216.34"]
    await post(receiver, "sent")
    [request] = receiver.requests
    assert str(request.url) == "https://93.184.216.34:8443/hook?a=b"
    assert request.headers["Host"] == "shop.example:8443"
    assert request.extensions["sni_hostname"] == "shop.example"


async def test_without_a_secret_nothing_is_signed() -> None:
    receiver = Receiver()
    receiver.endpoint = Endpoint("https://shop.example:8443/")
    await post(receiver, "sent")
    assert SIGNATURE not in receiver.requests[0].headers


async def test_a_business_without_a_url_is_told_nothing() -> None:
    receiver = Receiver()
    receiver.endpoint = None
    await post(receiver, "no_url")
    assert receiver.requests == []


@pytest.mark.parametrize(
    ("statuses", "outcome", "tries"),
    [
        ((200,), "sent", 1),
        ((503, 0, 204), "sent", 3),
        ((429, 204), "sent", 2),
        ((500,), "unreachable", 4),
        ((0,), "unreachable", 4),
        ((404,), "refused", 1),
        ((302,), "refused", 1),
    ],
)
async def test_what_may_change_is_tried_again_with_growing_pauses(
    statuses: tuple[int, ...], outcome: str, tries: int
) -> None:
    receiver = Receiver(*statuses)
    await post(receiver, outcome)
    assert len(receiver.requests) == tries
    assert receiver.pauses == [2.0, 8.0, 32.0][: tries - 1]


@pytest.mark.parametrize("addresses", [["127.0.0.1"], ["169.254.169.254", "::1"], []])
async def test_nothing_is_posted_inwards(addresses: list[str]) -> None:
    receiver = Receiver()
    receiver.addresses = addresses
    await post(receiver, "forbidden_address")
    assert receiver.requests == []


async def test_where_it_is_allowed_a_private_address_is_posted_to() -> None:
    receiver = Receiver()
    receiver.addresses = ["10.0.0.1"]
    await post(receiver, "sent", allow_private=True)


async def test_what_waits_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_WAITING", 2)
    receiver = Receiver()
    async with posting(receiver) as notices:
        for _ in range(5):
            notices.put(NOTICE)
        await until(lambda: receiver.came_of_it("sent") == 2)
        assert receiver.came_of_it("no_room") == 3


async def test_a_business_whose_receiver_hangs_holds_up_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MAX_OF_BUSINESS", 6)
    receiver = Receiver()
    hanging = asyncio.Event()
    at_once = 0

    async def endpoint_of(business_id: str) -> Endpoint:
        nonlocal at_once
        if business_id == "hangs":
            at_once += 1
            await hanging.wait()
        return Endpoint("https://shop.example:8443/")

    receiver.endpoint_of = endpoint_of  # type: ignore[assignment]
    async with posting(receiver) as notices:
        for number in range(10):
            notices.put(msgspec.structs.replace(NOTICE, business_id="hangs", id=str(number)))
        for number in range(6):
            notices.put(msgspec.structs.replace(NOTICE, business_id=f"good-{number}"))
        await until(lambda: receiver.came_of_it("sent") == 6)
        assert at_once == 1
        assert receiver.came_of_it("no_room") == 4
        hanging.set()
        await until(lambda: receiver.came_of_it("sent") == 12)


async def test_a_notice_that_fails_in_no_foreseen_way_stops_no_other() -> None:
    receiver = Receiver()
    async with posting(receiver) as notices:
        receiver.endpoint = Endpoint("not a url at all", SECRET)
        notices.put(NOTICE)
        await until(lambda: receiver.came_of_it("unreachable") == 1)
        receiver.endpoint = Endpoint("https://shop.example:8443/")
        notices.put(NOTICE)
        await until(lambda: receiver.came_of_it("sent") == 1)


@pytest.mark.parametrize(
    ("address", "is_it"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1:248:1893:25c8:1946", True),
        ("64:ff9b::5db8:d822", True),
        ("127.0.0.1", False),
        ("127.9.9.9", False),
        ("0.0.0.0", False),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("100.64.0.1", False),
        ("169.254.169.254", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("::", False),
        ("::1", False),
        ("fe80::1%eth0", False),
        ("fc00::1", False),
        ("ff02::1", False),
        ("::ffff:127.0.0.1", False),
        ("::ffff:10.0.0.1", False),
        ("64:ff9b::7f00:1", False),
        ("2002:7f00:1::", False),
        ("2001:0:4136:e378:8000:63bf:3fff:fdd2", False),
        ("0.1.2.3", False),
        ("100.127.255.255", False),
        ("100.128.0.1", True),
        ("192.0.0.9", False),
        ("192.0.1.1", True),
        ("192.88.99.1", False),
        ("192.175.48.6", False),
        ("198.19.255.255", False),
        ("198.20.0.1", True),
        ("203.0.113.5", False),
        ("239.255.255.255", False),
        ("240.0.0.1", False),
        ("172.31.255.255", False),
        ("172.32.0.1", True),
        ("::7f00:1", False),  # IPv4-compatible
        ("::5db8:d822", False),
        ("::ffff:93.184.216.34", True),
        ("::ffff:169.254.169.254", False),
        ("::ffff:0:127.0.0.1", False),  # IPv4-translated
        ("64:ff9b::a9fe:a9fe", False),
        ("64:ff9b:1::5db8:d822", False),
        ("64:ff9b:1:ffff::1", False),
        ("100::1", False),
        ("2001::1", False),
        ("2001:2::1", False),
        ("2001:10::1", False),
        ("2001:20::1", False),
        ("2001:db8::1", False),
        ("2001:4860:4860::8888", True),
        ("2002:0a00:0001::1", False),
        ("2002:a9fe:a9fe::1", False),
        ("2002:5db8:d822::1", True),
        ("2620:4f:8000::1", False),
        ("3fff::1", False),
        ("4000::1", False),
        ("5f00::1", False),
        ("fd00::1", False),
        ("fec0::1", False),
        ("feff::1", False),
        ("2606:2800:220:1:0:5efe:7f00:1", False),  # ISATAP
        ("2606:2800:220:1:200:5efe:a00:1", False),
        ("2606:2800:220:1::5eff:7f00:1", True),
        ("2606:2800:220:1:248:1893:25c8:1946%eth0", False),
        ("0177.0.0.1", False),
        ("2130706433", False),
        ("127.1", False),
        ("shop.example", False),
        ("", False),
    ],
)
def test_an_address_is_public_or_not(address: str, is_it: bool) -> None:
    assert is_public_address(address) is is_it


def test_a_secret_is_not_shown() -> None:
    assert SECRET not in repr(Endpoint("https://shop.example", SECRET))
    assert isinstance(NOTICE, Notice)
