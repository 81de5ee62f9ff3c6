"""Wrong credentials over real sockets: who guesses is limited, and nobody else is."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from urllib.parse import parse_qs, urlsplit

import httpx
import jwt
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.service import Service, a_call, service_alone, signature
from tests.waiting import WAIT_SECONDS
from tests.web.test_ingest import closing, exotel_call

OPERATOR_TOKEN = "an-operator-token-of-the-tests-0123456789"
METRICS_TOKEN = "a-metrics-token-of-the-tests-0123456789"
JWT_SECRET = "a-jwt-secret-of-the-tests-0123456789abcdef"
PAIR = ("shared-key-of-the-tests", "shared-token-of-the-tests")
GUESSER, NEIGHBOUR = "127.0.0.80", "127.0.0.82"


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Start an instance of two workers on which every way in is open."""
    with service_alone(
        tmp_path_factory.mktemp("limited"),
        "--workers",
        "2",
        ADMIN_TOKEN=OPERATOR_TOKEN,
        METRICS_TOKEN=METRICS_TOKEN,
        JWT_SECRET=JWT_SECRET,
        SUPPORT_EXOTEL="true",
        EXOTEL_API_KEY=PAIR[0],
        EXOTEL_API_TOKEN=PAIR[1],
    ) as running:
        yield running


@asynccontextmanager
async def client_at(service: Service, address: str) -> AsyncIterator[httpx.AsyncClient]:
    """Open a client whose connections come from a loopback address."""
    transport = httpx.AsyncHTTPTransport(local_address=address)
    async with httpx.AsyncClient(
        transport=transport, base_url=service.url, timeout=WAIT_SECONDS
    ) as client:
        yield client


async def upgraded(
    service: Service, address: str, authorization: str = "", path: str = "/v1/ingest"
) -> int:
    """Open a socket at /v1/ingest; return the status of the answer."""
    credentials = f"Authorization: {authorization}\r\n" if authorization else ""
    port = int(service.url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0))
    try:
        writer.write(
            f"GET {path} HTTP/1.1\r\n".encode() + b"Host: localhost\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n" + f"{credentials}\r\n".encode()
        )
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), WAIT_SECONDS)
        if head.startswith(b"HTTP/1.1 429 "):
            assert 1 <= int(head.lower().partition(b"retry-after: ")[2].split()[0]) <= 300
        return int(head.split()[1])
    finally:
        writer.close()


def token(secret: str = JWT_SECRET) -> str:
    return "Bearer " + jwt.encode({"tenant_id": "business-1", "exp": 4e9}, secret)


async def counted(service: Service, way: str, outcome: str) -> int:
    headers = {"Authorization": f"Bearer {METRICS_TOKEN}"}
    async with client_at(service, "127.0.0.99") as client:
        told = (await client.get("/metrics", headers=headers)).text
    line = f'bridge_failed_credentials_total{{outcome="{outcome}",way="{way}"}} '
    return int(sum(float(one[len(line) :]) for one in told.splitlines() if one.startswith(line)))


async def test_wrong_bearers_of_one_address_do_not_close_the_form_for_another(
    limited: Service,
) -> None:
    async with client_at(limited, GUESSER) as guesser:
        wrong = {"Authorization": "Bearer wrong"}
        statuses = [
            (await guesser.get("/api/v1/me", headers=wrong)).status_code for _ in range(1300)
        ]
        assert set(statuses) == {401, 429}
        assert statuses.count(401) <= 20  # ten for each worker, at the most
        refused = await guesser.post("/admin/sign-in", data={"key": OPERATOR_TOKEN})
        assert refused.status_code == 429
        right = {"Authorization": f"Bearer {OPERATOR_TOKEN}"}
        assert (await guesser.get("/api/v1/me", headers=right)).status_code == 200
    async with client_at(limited, NEIGHBOUR) as neighbour:
        signed_in = await neighbour.post("/admin/sign-in", data={"key": OPERATOR_TOKEN})
        assert signed_in.status_code == 303
        assert "set-cookie" in signed_in.headers
    assert await counted(limited, "admin_bearer", "limited") >= 1280


async def test_behind_a_proxy_that_is_not_trusted_the_form_takes_the_right_token(
    limited: Service,
) -> None:
    async with client_at(limited, "127.0.0.83") as proxy:
        forwarded = {"X-Forwarded-For": "198.51.100.7"}
        for _ in range(30):
            await proxy.post("/admin/sign-in", data={"key": "wrong"}, headers=forwarded)
        wrong = await proxy.post("/admin/sign-in", data={"key": "wrong"}, headers=forwarded)
        assert wrong.status_code == 429
        right = await proxy.post("/admin/sign-in", data={"key": OPERATOR_TOKEN}, headers=forwarded)
        assert right.status_code == 303


@pytest.mark.parametrize("kind", ["basic", "jwt"])
async def test_guesses_at_ingest_are_limited_and_only_for_who_guesses(
    limited: Service, kind: str
) -> None:
    address = {"basic": "127.0.0.84", "jwt": "127.0.0.85"}[kind]

    def guess(number: int) -> str:
        if kind == "jwt":
            return token(f"a guess of the secret, number {number:010}")
        pair = httpx.BasicAuth(PAIR[0], f"guess-{number}")
        return next(pair.auth_flow(httpx.Request("GET", "http://a"))).headers["authorization"]

    statuses = [await upgraded(limited, address, guess(number)) for number in range(400)]
    assert set(statuses) == {401, 429}
    assert statuses.count(429) > 300
    assert statuses[:20] == [401] * 20
    right = next(httpx.BasicAuth(*PAIR).auth_flow(httpx.Request("GET", "http://a")))
    for shown in (token(), right.headers["authorization"]):
        for source in (address, NEIGHBOUR):
            assert await upgraded(limited, source, shown) == 101
    assert await upgraded(limited, address, guess(400)) == 429


async def test_guesses_for_a_stream_url_are_limited(limited: Service) -> None:
    async with client_at(limited, "127.0.0.86") as guesser:
        statuses = []
        for number in range(100):
            answer = await guesser.get("/exotel-stream-url", auth=(PAIR[0], f"guess-{number}"))
            statuses.append(answer.status_code)
    assert set(statuses) == {401, 429}
    assert statuses.count(401) < 60
    assert answer.json()["error"] == "too_many_attempts"
    for address in ("127.0.0.86", NEIGHBOUR):
        async with client_at(limited, address) as neighbour:
            asked = {"businessId": "business-1", "CallSid": "c1"}
            answer = await neighbour.get("/exotel-stream-url", auth=PAIR, params=asked)
            assert answer.status_code == 200


async def test_guesses_of_the_metrics_token_are_limited(limited: Service) -> None:
    async with client_at(limited, "127.0.0.87") as guesser:
        statuses = []
        for number in range(100):
            wrong = {"Authorization": f"Bearer guess-{number}"}
            statuses.append((await guesser.get("/metrics", headers=wrong)).status_code)
    assert set(statuses) == {401, 429}
    assert statuses.count(401) < 50
    right = {"Authorization": f"Bearer {METRICS_TOKEN}"}
    for address in ("127.0.0.87", NEIGHBOUR):
        async with client_at(limited, address) as client:
            assert (await client.get("/metrics", headers=right)).status_code == 200
            assert (await client.get("/metrics")).status_code == 401


async def test_wrong_signatures_are_counted_and_refuse_no_right_one(limited: Service) -> None:
    form = a_call()
    url = limited.url + "/twilio-voice"
    async with client_at(limited, "127.0.0.88") as caller:
        for _ in range(100):
            headers = {"X-Twilio-Signature": "d3Jvbmc="}
            assert (await caller.post(url, data=form, headers=headers)).status_code == 403
        headers = {"X-Twilio-Signature": signature(url, form)}
        assert (await caller.post(url, data=form, headers=headers)).status_code == 200
    assert await counted(limited, "twilio_webhook", "refused") == 100


async def test_a_spent_ticket_that_comes_again_is_no_guess(limited: Service) -> None:
    at = "127.0.0.89"
    before = await counted(limited, "ingest", "refused")
    async with client_at(limited, at) as caller:
        asked = {"businessId": "business-1", "CallSid": "call-spent-1"}
        answer = await caller.get("/exotel-stream-url", auth=PAIR, params=asked)
    ticket = parse_qs(urlsplit(answer.json()["url"]).query)["ticket"][0]
    url = f"{limited.ws_url}/v1/ingest?ticket={ticket}"
    async with connect(url, compression=None) as socket:
        await exotel_call(socket, "spent-1", [b"\x00\x00" * 800])
        assert await closing(socket) == (1000, "stop")
    for _ in range(30):
        with pytest.raises(InvalidStatus) as refused:
            async with connect(url):
                pass
        assert refused.value.response.status_code == 401
    assert await counted(limited, "ingest", "refused") == before
    with pytest.raises(InvalidStatus):
        async with connect(f"{limited.ws_url}/v1/ingest?ticket=forged"):
            pass
    assert await counted(limited, "ingest", "refused") == before + 1
