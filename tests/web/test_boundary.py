"""What holds for every request and every answer: headers, both spellings, and hosts."""

import json
from collections.abc import Iterator

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from app.main import create_app
from app.settings import Settings
from tests.server.raw import a_connection
from tests.service import Service, service_alone, signature
from tests.waiting import until

PUBLIC = "https://bridge.example.com"
ANSWERED = [
    ("GET", "/health", 200),
    ("GET", "/health/ready", 200),
    ("GET", "/metrics", 200),
    ("GET", "/openapi.json", 200),
    ("GET", "/docs", 200),
    ("GET", "/redoc", 200),
    ("GET", "/nowhere", 404),
    ("PUT", "/health", 405),
    ("GET", "/twilio-media", 426),
    ("GET", "/v1/ingest", 426),
    ("POST", "/twilio-voice", 403),
    ("GET", "/exotel-stream-url", 401),
    ("GET", "/api/v1/calls", 401),
    ("GET", "/admin", 303),
    ("GET", "/admin/sign-in", 200),
    ("GET", "/admin/static/admin.css", 200),
    ("GET", "/admin/static/nothing.css", 404),
]


@pytest.fixture(scope="module")
def public_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Start an instance whose PUBLIC_URL is an https one."""
    with service_alone(tmp_path_factory.mktemp("public"), PUBLIC_URL=PUBLIC) as running:
        yield running


# ------------------------------------------------------------------------- headers


@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize(("method", "path", "status"), ANSWERED)
async def test_each_answer_has_the_headers_and_both_spellings_are_served_alike(
    public_service: Service, method: str, path: str, status: int, slash: str
) -> None:
    async with httpx.AsyncClient(base_url=public_service.url) as client:
        answer = await client.request(method, path + slash, headers={"Host": "evil.example"})
    assert answer.status_code == status
    assert answer.headers.get_list("x-content-type-options") == ["nosniff"]
    assert answer.headers.get_list("strict-transport-security") == ["max-age=31536000"]
    assert "evil.example" not in str(answer.headers)
    assert not answer.headers.get("location", "/").startswith(("http", "//"))


async def test_without_https_there_is_no_hsts(service: Service) -> None:
    async with httpx.AsyncClient(base_url=service.url) as client:
        answer = await client.get("/health")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "strict-transport-security" not in answer.headers


@pytest.mark.parametrize(
    ("path", "status"), [("/twilio-media", 403), ("/v1/ingest/", 401), ("/nowhere", 404)]
)
async def test_a_refused_handshake_has_the_headers(
    public_service: Service, path: str, status: int
) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with connect(public_service.ws_url + path):
            pass
    response = refused.value.response
    assert response.status_code == status
    assert response.headers.get_all("x-content-type-options") == ["nosniff"]
    assert response.headers.get_all("strict-transport-security") == ["max-age=31536000"]


async def test_what_the_server_refuses_itself_has_the_headers(public_service: Service) -> None:
    async with a_connection(int(public_service.url.rpartition(":")[2])) as peer:
        await peer.send(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
        answered = await peer.gone()
    assert answered.startswith(b"HTTP/1.1 400 ")
    assert b"x-content-type-options: nosniff\r\n" in answered
    assert b"strict-transport-security: max-age=31536000\r\n" in answered


async def test_a_webhook_with_a_slash_is_served_by_the_signature_that_url(
    service: Service,
) -> None:
    form = {"CallSid": "CA" + "0" * 32, "From": "+15550100", "To": "+15559999"}
    async with httpx.AsyncClient() as client:
        url = service.url + "/twilio-voice/"
        for signed, status in ((url, 200), (url[:-1], 403)):
            headers = {"X-Twilio-Signature": signature(signed, form)}
            answer = await client.post(url, data=form, headers=headers)
            assert answer.status_code == status


# --------------------------------------------------------------------- ALLOW_UNSIGNED


@pytest.mark.parametrize(
    ("path", "headers", "error"),
    [
        ("/twilio-voice", {"Host": "evil.example"}, "host_refused"),
        ("/twilio-voice", {"Host": "127.0.0.1.evil.example"}, "host_refused"),
        ("/twilio-voice", {"Host": "localhost.evil.example:8000"}, "host_refused"),
        ("/twilio-voice", {"Host": "[::1].evil.example"}, "host_refused"),
        ("/twilio-voice", {"Host": "[::1]evil.example:8000"}, "host_refused"),
        ("/twilio-voice", {"Origin": "http://[::1].evil.example"}, "origin_refused"),
        ("/twilio-voice", {"Host": "0.0.0.0"}, "host_refused"),
        ("/twilio-voice", {"Host": "192.168.1.5"}, "host_refused"),
        ("/exotel-stream-url", {"Host": "evil.example"}, "host_refused"),
        ("/admin/sign-in", {"Host": "evil.example"}, "host_refused"),
        ("/metrics", {"Host": "evil.example"}, "host_refused"),
        ("/twilio-voice", {"Origin": "https://evil.example"}, "origin_refused"),
        ("/twilio-voice/", {"Origin": "https://evil.example"}, "origin_refused"),
        ("/twilio-status", {"Origin": "null"}, "origin_refused"),
        ("/exotel-stream-url", {"Origin": "http://localhost.evil.example"}, "origin_refused"),
        ("/twilio-voice", {"Sec-Fetch-Site": "cross-site"}, "origin_refused"),
        (
            "/exotel-stream-url",
            {"Origin": "https://evil.example", "Authorization": "Basic a2V5OnRva2Vu"},
            "origin_refused",
        ),
    ],
)
async def test_with_unsigned_allowed_refuses_what_another_sites_page_may_have_sent(
    open_service: Service, path: str, headers: dict[str, str], error: str
) -> None:
    async with httpx.AsyncClient(base_url=open_service.url) as client:
        answer = await client.get(path, params={"CallSid": "c1"}, headers=headers)
    assert (answer.status_code, answer.json()["error"]) == (403, error)


@pytest.mark.parametrize("path", ["/twilio-media", "/v1/ingest"])
@pytest.mark.parametrize("headers", [{"Host": "evil.example"}, {"Origin": "https://evil.example"}])
async def test_with_unsigned_allowed_opens_no_socket_for_another_sites_page(
    open_service: Service, path: str, headers: dict[str, str]
) -> None:
    port = int(open_service.url.rpartition(":")[2])
    sent = {"Host": "localhost", **headers}
    lines = "".join(f"{name}: {value}\r\n" for name, value in sent.items())
    async with a_connection(port) as peer:
        await peer.send(
            f"GET {path} HTTP/1.1\r\n{lines}Upgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            "".encode()
        )
        head, _, body = (await peer.gone()).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 403 ")
    assert json.loads(body)["error"] in ("host_refused", "origin_refused")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Host": "localhost"},
        {"Host": "localhost:9999"},
        {"Host": "bridge.localhost"},
        {"Host": "127.1.2.3:8000"},
        {"Host": "[::1]:8000"},
        {"Host": "[::1]"},
        {"Origin": "http://localhost:3000"},
        {"Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},
    ],
)
async def test_with_unsigned_allowed_serves_this_machine(
    open_service: Service, headers: dict[str, str]
) -> None:
    async with httpx.AsyncClient(base_url=open_service.url) as client:
        answer = await client.get("/twilio-voice", params={"CallSid": "c1"}, headers=headers)
    assert answer.status_code == 200


async def test_with_unsigned_allowed_platforms_ask_for_health_by_any_host(
    open_service: Service,
) -> None:
    async with httpx.AsyncClient(base_url=open_service.url) as client:
        for path in ("/health", "/health/ready"):
            answer = await client.get(path, headers={"Host": "healthcheck.railway.app"})
            assert answer.status_code == 200


async def test_signed_requests_are_served_by_any_host(service: Service) -> None:
    form = {"CallSid": "CA" + "1" * 32, "From": "+15550100", "To": "+15559999"}
    url = service.url + "/twilio-voice"
    headers = {"Host": "internal", "X-Twilio-Signature": signature(url, form)}
    async with httpx.AsyncClient() as client:
        assert (await client.post(url, data=form, headers=headers)).status_code == 200


@pytest.mark.parametrize(
    ("unsigned", "headers", "status"),
    [
        ("public", {"Host": "evil.example", "Origin": "https://evil.example"}, 200),
        ("true", {"Host": "evil.example"}, 403),
        ("true", {"Host": "bridge.internal:8000"}, 200),
        ("true", {"Host": "localhost", "Origin": "http://bridge.internal"}, 200),
    ],
)
async def test_whoever_means_it_is_served_whatever_the_host(
    unsigned: str, headers: dict[str, str], status: int
) -> None:
    settings = Settings.load(
        {
            "PUBLIC_URL": "http://bridge.internal",
            "ALLOW_UNSIGNED": unsigned,
            "PUBSUB_ADAPTER": "memory",
        }
    )
    transport = httpx.ASGITransport(create_app(settings))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        answer = await client.get("/twilio-voice", params={"CallSid": "c1"}, headers=headers)
    assert answer.status_code == status


# --------------------------------------------------------------------------- proxies


async def test_warns_once_of_a_proxy_that_is_not_trusted(service: Service) -> None:
    async with httpx.AsyncClient(base_url=service.url) as client:
        for _ in range(3):
            await client.get("/health", headers={"X-Forwarded-For": "198.51.100.7"})
    await until(lambda: "TRUSTED_PROXIES does not hold 127.0.0.1" in service.logged())
    assert service.logged().count("TRUSTED_PROXIES does not hold") == 1


# ---------------------------------------------------------------------- the log


async def test_refused_webhooks_do_not_flood_the_log(service: Service) -> None:
    def refusals() -> int:
        return service.logged().count("[Voice Webhook] ❌ Refused: signature_invalid")

    async with httpx.AsyncClient(base_url=service.url) as client:
        for _ in range(300):
            headers = {"X-Twilio-Signature": "d3Jvbmc="}
            answer = await client.post("/twilio-voice", data={"CallSid": "c"}, headers=headers)
            assert answer.status_code == 403
    await until(lambda: refusals() > 0)
    assert refusals() < 150
