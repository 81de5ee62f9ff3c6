"""`/v1/ingest`, followed through both guides, and refused in every way."""

import asyncio
import base64
import hmac
import json
import math
import shutil
import struct
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import jwt
import numpy as np
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from app.carriers.stream_ids import stream_id
from app.wire import exotel
from tests.service import (
    WAIT_SECONDS,
    Service,
    a_call,
    a_peer,
    adds_up,
    entries_of,
    events_of,
    http_client,
    lines_with,
    logged_line,
    post,
    receipt_of,
    running_service,
    service_alone,
)
from tests.web.test_voice import parameters

SECRET = "j" * 32
INGEST = "/v1/ingest"
GOOD_KEY = "dGhlIHNhbXBsZSBub25jZQ=="  # RFC 6455, 1.2
PAIR = base64.b64encode(b"key:token").decode()
OWN_PAIR = base64.b64encode(b"own-key:own-token").decode()


@pytest.fixture(scope="module")
def ingest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Give an instance that demands credentials of everybody."""
    with service_alone(
        tmp_path_factory.mktemp("ingest"),
        SUPPORT_EXOTEL="true",
        EXOTEL_API_KEY="key,old-key",
        EXOTEL_API_TOKEN="token,old-token",
        EXOTEL_DEFAULT_BUSINESS="business-1",
        JWT_SECRET=SECRET,
    ) as running:
        yield running


@pytest.fixture(scope="module")
def guide(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Give the instance of the guides: SUPPORT_EXOTEL=true, without credentials, locally."""
    with service_alone(
        tmp_path_factory.mktemp("guide"),
        SUPPORT_EXOTEL="true",
        PUBSUB_ADAPTER="redis_streams",
        ALLOW_UNSIGNED="true",
        EXOTEL_DEFAULT_BUSINESS="business-1",
    ) as running:
        yield running


@asynccontextmanager
async def opened(
    service: Service, query: str = "", authorization: str = ""
) -> AsyncIterator[ClientConnection]:
    headers = {"Authorization": authorization} if authorization else {}
    url = service.ws_url + INGEST + query
    async with connect(url, additional_headers=headers, compression=None) as socket:
        yield socket


async def refusal(service: Service, query: str = "", authorization: str = "") -> int:
    with pytest.raises(InvalidStatus) as refused:
        async with opened(service, query, authorization):
            pass
    return refused.value.response.status_code


async def closing(socket: ClientConnection) -> tuple[int, str]:
    async with asyncio.timeout(WAIT_SECONDS):
        try:
            while True:
                await socket.recv()
        except ConnectionClosed:
            return socket.close_code or 0, (socket.close_reason or "").partition(":")[0]


async def stream_of(service: Service, after: int = 0) -> str:
    """Wait for the newest stream that the log tells the end of; `after` were there before."""
    await logged_line(service, " ended - CallSid", times=after + 1)
    ended = lines_with(service.logged(), " ended - CallSid")
    return ended[-1].partition("Stream ")[2].partition(" ")[0]


def ends(service: Service) -> int:
    return len(lines_with(service.logged(), " ended - CallSid"))


def token(**claims: Any) -> str:
    given = {"tenant_id": "business-1", "exp": int(time.time()) + 60, **claims}
    made = {name: value for name, value in given.items() if value is not None}
    return "Bearer " + jwt.encode(made, SECRET, algorithm="HS256")


def tone(rate: int, seconds: float, hertz: float = 440.0) -> bytes:
    count = int(rate * seconds)
    samples = [round(8000 * math.sin(2 * math.pi * hertz * at / rate)) for at in range(count)]
    return struct.pack(f"<{count}h", *samples)


def chunks(audio: bytes, size: int) -> list[bytes]:
    return [audio[at : at + size] for at in range(0, len(audio), size)]


async def exotel_call(
    socket: ClientConnection,
    stream_sid: str,
    frames: Sequence[bytes],
    *,
    rate: int = 8000,
    to: str = "+15005550006",
) -> None:
    await socket.send(exotel.connected_message())
    await socket.send(
        exotel.start_message(
            stream_sid, f"call-{stream_sid}", sample_rate=rate, from_number="+91", to_number=to
        )
    )
    at = 0
    for number, frame in enumerate(frames, 1):
        message = exotel.media_message(
            stream_sid, frame, seq=number + 1, chunk=number, timestamp=at
        )
        await socket.send(message)
        at += len(frame) * 500 // rate
    await socket.send(exotel.stop_message(stream_sid, f"call-{stream_sid}", seq=len(frames) + 2))


# ------------------------------------------------------------------- the guides


async def curl(*arguments: str, lines: int = 1000) -> str:
    """Give what curl shows, to its end or, where there is none, so many lines."""
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    process = await asyncio.create_subprocess_exec(
        *("curl", "-s", "-N", "-D", "-", "-m", str(WAIT_SECONDS), *arguments),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    shown = b""
    while lines and (line := await process.stdout.readline()):
        shown += line
        lines -= 1
    with suppress(ProcessLookupError):
        process.kill()
    await process.communicate()
    return shown.decode()


def upgrade(key: str) -> list[str]:
    headers = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13")
    return [part for header in (*headers, f"Sec-WebSocket-Key: {key}") for part in ("-H", header)]


async def test_the_debugging_guide_can_be_followed(guide: Service) -> None:
    health = await curl(f"{guide.url}/health")
    assert '{"status":"healthy",' in health
    log = guide.logged()
    assert lines_with(log, "[server] ✅ Ingestion server listening on port")
    assert lines_with(log, "[server] supportExotel: true")
    malformed = await curl(*upgrade("test"), guide.url + INGEST)
    assert malformed.startswith("HTTP/1.1 400")
    assert "Sec-WebSocket-Key" in malformed
    await logged_line(guide, "upgrade failed: 400, invalid Sec-WebSocket-Key")
    switched = await curl(*upgrade(GOOD_KEY), guide.url + INGEST, lines=1)
    assert switched.startswith("HTTP/1.1 101")
    before = ends(guide)
    async with opened(guide) as socket:
        for _ in range(100):
            await socket.send(b"\x00\x01" * 480)
    await stream_of(guide, before)
    log = guide.logged()
    wanted = [
        "[server] WebSocket upgrade request received { url: '/v1/ingest', ",
        "[server] ✅ Exotel WebSocket upgrade request accepted",
        "[exotel] New Exotel WebSocket connection",
        "[exotel] Processing binary frames with default config",
        "[exotel] Published binary audio frame { seq: 100, ",
    ]
    places = [log.index(phrase) for phrase in wanted]
    assert places == sorted(places)


async def test_the_fixing_guide_can_be_followed(guide: Service) -> None:
    before = ends(guide)
    async with opened(guide, "?sample-rate=24000") as socket:
        await exotel_call(socket, "guide1", [b"\x01\x00" * 2400] * 3, rate=24000)
        await closing(socket)
    stream_sid = stream_id("exotel", "business-1", "guide1")
    assert await stream_of(guide, before) == stream_sid
    log = guide.logged()
    for phrase in (
        "[server] Exotel WebSocket upgrade request (IP whitelist/Basic Auth)",
        "[exotel] Start event received: { stream_sid: guide1, call_sid: call-guide1 }",
        "[exotel] Published audio frame: { stream_sid: guide1, seq: 1 }",
        "[exotel] Published audio frame: { stream_sid: guide1, seq: 2 }",
    ):
        assert lines_with(log, phrase)
    assert not lines_with(log, "stream_sid: guide1, seq: 3 }")
    assert len(await entries_of(guide, stream_sid)) == 4


async def test_without_support_exotel_the_answer_is_401_and_says_why(service: Service) -> None:
    assert lines_with(service.logged(), "[server] supportExotel: false")
    assert await refusal(service) == 401
    assert lines_with(
        service.logged(), "[server] ❌ Authentication failed: ", "SUPPORT_EXOTEL=true"
    )


async def test_a_service_for_exotel_alone_starts_and_says_what_is_off(
    tmp_path: Path, redis_url: str
) -> None:
    with running_service(
        tmp_path, redis_url, SUPPORT_EXOTEL="true", PUBLIC_URL="", TWILIO_AUTH_TOKEN=""
    ) as alone:
        assert lines_with(alone.logged(), "The Twilio routes are off: PUBLIC_URL is not set")
        async with http_client() as client:
            answer = await client.post(f"{alone.url}/twilio-voice")
            assert (answer.status_code, answer.json()["error"]) == (503, "not_configured")
        with pytest.raises(InvalidStatus) as refused:
            async with connect(alone.ws_url + "/twilio-media"):
                pass
        assert refused.value.response.status_code == 503
        assert await refusal(alone) == 401


async def test_a_trailing_slash_is_served_too(guide: Service) -> None:
    async with connect(guide.ws_url + INGEST + "/", compression=None) as socket:
        assert socket.protocol.state.name == "OPEN"


@pytest.mark.parametrize("size", [9000, 100_000])
async def test_headers_too_large_are_answered_at_once(guide: Service, size: int) -> None:
    port = int(guide.url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        b"GET /v1/ingest HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\nAuthorization: Bearer %s\r\n\r\n"
        % (GOOD_KEY.encode(), b"x" * size)
    )
    async with asyncio.timeout(WAIT_SECONDS):
        answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 431 ")
    writer.close()


# ------------------------------------------------------------------- credentials


@pytest.mark.parametrize(
    "authorization",
    [
        pytest.param("", id="none"),
        pytest.param("Basic " + base64.b64encode(b"key:wrong").decode(), id="wrong pair"),
        pytest.param("Basic %%%", id="no base64"),
        pytest.param("Digest x", id="another scheme"),
        pytest.param("Bearer not.a.token", id="no token"),
        pytest.param(token(exp=1), id="expired"),
        pytest.param(token(exp=None), id="without exp"),
        pytest.param(token(tenant_id=None), id="without tenant"),
        pytest.param(token(iat=2**33), id="from the future"),
    ],
)
async def test_wrong_credentials_are_refused_before_the_upgrade(
    ingest: Service, authorization: str
) -> None:
    before = len(lines_with(ingest.logged(), "[server] ❌ Authentication failed: "))
    assert await refusal(ingest, authorization=authorization) == 401
    log = ingest.logged()
    assert len(lines_with(log, "[server] ❌ Authentication failed: ")) == before + 1
    assert "Traceback" not in log
    assert not lines_with(log, " ERROR ")


async def test_a_header_without_a_scheme_is_not_logged(ingest: Service) -> None:
    assert await refusal(ingest, authorization="canary-bare-secret") == 401
    assert "canary" not in ingest.logged()


async def test_wrong_credentials_are_refused_where_none_are_needed(guide: Service) -> None:
    assert await refusal(guide, authorization=f"Basic {PAIR}") == 401


@pytest.mark.parametrize("pair", [b"key:token", b"old-key:old-token"])
async def test_each_pair_of_a_rotation_admits(ingest: Service, pair: bytes) -> None:
    async with opened(ingest, authorization="Basic " + base64.b64encode(pair).decode()) as socket:
        assert socket.protocol.state.name == "OPEN"


ORIGIN = {"Origin": "https://evil.example"}


async def test_a_browser_is_refused_as_exotel_and_served_with_a_token(ingest: Service) -> None:
    url = ingest.ws_url + INGEST
    with pytest.raises(InvalidStatus) as refused:
        async with connect(url, additional_headers={**ORIGIN, "Authorization": f"Basic {PAIR}"}):
            pass
    assert refused.value.response.status_code == 403
    assert json.loads(refused.value.response.body or b"")["error"] == "origin_refused"
    async with connect(url, additional_headers={**ORIGIN, "Authorization": token()}) as socket:
        await socket.send(json.dumps({"event": "start", "interaction_id": "origin1"}))
        assert json.loads(await socket.recv())["event"] == "started"


async def test_with_unsigned_allowed_exotels_socket_opens_from_a_page_of_this_machine_alone(
    guide: Service,
) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with connect(guide.ws_url + INGEST, additional_headers=ORIGIN):
            pass
    assert json.loads(refused.value.response.body or b"")["error"] == "origin_refused"
    own = {"Origin": "http://localhost:3000"}
    async with connect(guide.ws_url + INGEST, additional_headers=own) as socket:
        assert socket.protocol.state.name == "OPEN"


async def test_an_address_on_the_list_needs_no_header_and_a_forged_one_does_not_help(
    tmp_path: Path, redis_url: str
) -> None:
    forged = {"X-Forwarded-For": "192.0.2.7"}
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    listed = {"SUPPORT_EXOTEL": "true", "EXOTEL_ALLOWED_IPS": "192.0.2.0/24"}
    with running_service(tmp_path / "a", redis_url, **listed) as direct:
        with pytest.raises(InvalidStatus):
            async with connect(direct.ws_url + INGEST, additional_headers=forged):
                pass
    listed["TRUSTED_PROXIES"] = "127.0.0.0/8"
    with running_service(tmp_path / "b", redis_url, **listed) as behind:
        async with connect(behind.ws_url + INGEST, additional_headers=forged):
            pass


async def owner(service: Service, name: str) -> str:
    """Return whose the stream is that its peer calls `name`."""
    started = lines_with(service.logged(), " started - CallSid", f"peer's id: {name}")[0]
    return started.partition("business: ")[2].partition(",")[0]


@pytest.mark.parametrize(
    ("sid", "query", "authorization", "to", "business"),
    [
        ("who1", "?businessId=wide", PAIR, "+918047112345", "wide"),
        ("who2", "", PAIR, "+15005550003", "forwarding"),
        ("who3", "", PAIR, "08047112345", "indian"),
        ("who4", "", PAIR, "+19999999999", "business-1"),
        ("who5", "", OWN_PAIR, "+15005550006", "indian"),
    ],
)
async def test_whose_call_it_is(
    ingest: Service, sid: str, query: str, authorization: str, to: str, business: str
) -> None:
    async with opened(ingest, query, f"Basic {authorization}") as socket:
        await exotel_call(socket, sid, [b"\x00\x00" * 800], to=to)
        assert await closing(socket) == (1000, "stop")
    assert await owner(ingest, sid) == business


async def test_a_business_of_its_own_pair_is_no_other(ingest: Service) -> None:
    assert await refusal(ingest, "?businessId=business-1", f"Basic {OWN_PAIR}") == 403
    async with opened(ingest, "", f"Basic {OWN_PAIR}") as socket:
        params = {"businessId": "business-1"}
        await socket.send(exotel.start_message("other1", "call-other1", params=params))
        assert await closing(socket) == (1008, "business_mismatch")


# --------------------------------------------------------------- stream URLs


async def stream_url(service: Service, **parameters: str) -> httpx.Response:
    async with http_client() as client:
        return await client.get(
            f"{service.url}/exotel-stream-url",
            params=parameters,
            headers={"Authorization": f"Basic {PAIR}"},
        )


async def test_a_stream_url_admits_one_stream_by_its_ticket_alone(ingest: Service) -> None:
    answer = await stream_url(ingest, CallSid="call-url1", CallTo="08047112345")
    assert answer.status_code == 200
    url = answer.json()["url"]
    assert url.startswith(f"{ingest.ws_url}{INGEST}?sample-rate=8000&ticket=")
    assert len(url) < 600  # Exotel's limit of a StreamUrl
    for sid, expected in (("url1b", (1008, "ticket_invalid")), ("url1", (1000, "stop"))):
        async with connect(url, compression=None) as socket:
            await exotel_call(socket, sid, [b"\x00\x00" * 800])
            assert await closing(socket) == expected
    with pytest.raises(InvalidStatus) as refused:
        async with connect(url, compression=None):
            pass
    assert refused.value.response.status_code == 401
    assert await owner(ingest, "url1") == "indian"
    [ticket] = parse_qs(urlsplit(url).query)["ticket"]
    assert ticket not in ingest.logged()


async def test_a_stream_url_keeps_its_business_for_who_shows_a_pair(ingest: Service) -> None:
    url = (await stream_url(ingest, CallSid="call-url9", businessId="wide")).json()["url"]
    headers = {"Authorization": f"Basic {PAIR}"}
    async with connect(url, additional_headers=headers, compression=None) as socket:
        await exotel_call(socket, "url9", [b"\x00\x00" * 800])
        assert await closing(socket) == (1000, "stop")
    assert await owner(ingest, "url9") == "wide"


@pytest.mark.parametrize(
    ("applet", "is_kept"), [("stream", True), ("Stream", True), ("voicebot", False), ("", False)]
)
async def test_a_stream_url_says_that_its_applet_cannot_hear(
    ingest: Service, applet: str, is_kept: bool
) -> None:
    answer = await stream_url(ingest, CallTo="+15005550006", applet=applet)
    assert ("applet=stream" in answer.json()["url"]) is is_kept


async def test_a_stream_url_without_a_call_id_serves_whichever_call_comes(
    ingest: Service,
) -> None:
    url = (await stream_url(ingest, CallTo="+15005550006")).json()["url"]
    async with connect(url, compression=None) as socket:
        await exotel_call(socket, "url2", [b"\x00\x00" * 800])
        assert await closing(socket) == (1000, "stop")
    with pytest.raises(InvalidStatus) as refused:
        async with connect(url, compression=None):
            pass
    assert refused.value.response.status_code == 401


async def test_of_two_sockets_with_one_ticket_one_is_admitted(ingest: Service) -> None:
    url = (await stream_url(ingest, CallTo="+15005550006")).json()["url"]
    async with connect(url, compression=None) as one, connect(url, compression=None) as two:
        await exotel_call(one, "url4", [b"\x00\x00" * 800])
        assert await closing(one) == (1000, "stop")
        await exotel_call(two, "url5", [b"\x00\x00" * 800])
        assert await closing(two) == (1008, "ticket_spent")


@pytest.mark.parametrize(
    "body",
    [
        {"data": {"CallSid": "call-post1", "CallTo": "08047112345"}},
        {"json": {"CallSid": "call-post2", "CallTo": "08047112345"}},
        {"content": b"{broken", "headers": {"Content-Type": "application/json"}},
        {"content": b"\xff" * 20_000},
    ],
)
async def test_exotel_may_ask_by_post_in_any_form(ingest: Service, body: dict[str, Any]) -> None:
    headers = {"Authorization": f"Basic {PAIR}", **body.pop("headers", {})}
    async with http_client() as client:
        answer = await client.post(f"{ingest.url}/exotel-stream-url", headers=headers, **body)
    assert answer.status_code == 200
    assert "ticket=" in answer.json()["url"]


async def test_a_stream_url_of_another_business_is_refused(ingest: Service) -> None:
    async with http_client() as client:
        answer = await client.get(
            f"{ingest.url}/exotel-stream-url",
            params={"businessId": "business-1"},
            headers={"Authorization": f"Basic {OWN_PAIR}"},
        )
    assert (answer.status_code, answer.json()["error"]) == (403, "business_mismatch")


async def test_no_slot_no_url_and_no_credentials_no_answer(ingest: Service) -> None:
    first = await stream_url(ingest, CallSid="call-slot1", CallTo="+15005550002")
    second = await stream_url(ingest, CallSid="call-slot2", CallTo="+15005550002")
    assert (first.status_code, second.status_code) == (200, 503)
    assert second.json()["error"] == "plan_limit_reached"
    async with http_client() as client:
        answer = await client.post(f"{ingest.url}/exotel-stream-url", data={"CallSid": "x"})
    assert answer.status_code == 401


# --------------------------------------------------------------------- protocols


async def test_an_own_client_is_answered_and_its_frames_acknowledged(ingest: Service) -> None:
    frames = [struct.pack("<h", number) * 4800 for number in range(25)]
    async with opened(ingest, authorization=token(interaction_id="int-123")) as socket:
        await socket.send(
            json.dumps(
                {
                    "event": "start",
                    "interaction_id": "int-123",
                    "tenant_id": "business-1",
                    "sample_rate": 24000,
                    "encoding": "pcm16",
                }
            )
        )
        async with asyncio.timeout(WAIT_SECONDS):
            assert json.loads(await socket.recv()) == {
                "event": "started",
                "interaction_id": "int-123",
            }
            for frame in frames:
                await socket.send(frame)
            answers = [json.loads(await socket.recv()) for _ in range(2)]
        assert answers == [{"event": "ack", "seq": 10}, {"event": "ack", "seq": 20}]
        await socket.send(json.dumps({"event": "stop"}))
        assert await closing(socket) == (1000, "stop")
    receipt = await receipt_of(ingest, stream_id("client", "business-1", "int-123"))
    assert (receipt["received"], receipt["published"]) == (25, 25)
    assert adds_up(receipt)
    events = await events_of(ingest, "int-123", at_least=2)
    assert [name for name, _ in events] == ["stream.started", "stream.stopped"]


@pytest.mark.parametrize(
    ("claims", "start", "code", "reason"),
    [
        ({}, {"tenant_id": "business-2"}, 1008, "business_mismatch"),
        ({"interaction_id": "a"}, {"interaction_id": "b"}, 1008, "business_mismatch"),
        ({"tenant_id": "nobody"}, {"tenant_id": "nobody"}, 1008, "unknown_business"),
        ({}, {"interaction_id": "a b"}, 1008, "invalid_identifier"),
        ({}, {"sample_rate": 44100}, 1003, "unsupported_format"),
        ({}, {"encoding": "opus"}, 1003, "unsupported_format"),
    ],
)
async def test_a_start_must_be_what_the_token_says(
    ingest: Service, claims: dict[str, str], start: dict[str, object], code: int, reason: str
) -> None:
    async with opened(ingest, authorization=token(**claims)) as socket:
        said = {"event": "start", "interaction_id": "int-9", "tenant_id": "business-1", **start}
        await socket.send(json.dumps(said))
        assert await closing(socket) == (code, reason)


@pytest.mark.parametrize("rate", [8000, 16000, 24000])
async def test_pitch_and_length_are_right_after_conversion(guide: Service, rate: int) -> None:
    seconds = 2.0
    frames = chunks(tone(rate, seconds), rate // 5)  # 100 ms each
    before = ends(guide)
    async with opened(guide, f"?sample_rate={rate}&businessId=wide") as socket:
        await exotel_call(socket, f"tone{rate}", frames, rate=rate)
        await closing(socket)
    stream_sid = await stream_of(guide, before)
    entries = await entries_of(guide, stream_sid)
    audio = b"".join(entry.get("audio", b"") for entry in entries)
    samples = np.frombuffer(audio, "<i2").astype(float)
    assert abs(len(samples) - 16000 * seconds) <= 1600
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples)), 2**20))
    assert np.argmax(spectrum) * 16000 / 2**20 == pytest.approx(440, rel=0.001)
    receipt = await receipt_of(guide, stream_sid)
    assert (receipt["published"], receipt["format_mismatch"]) == (len(frames), 0)


async def test_audio_that_is_not_what_it_declares_is_told_once(guide: Service) -> None:
    frames = chunks(tone(16000, 3.0), 3200)
    before = ends(guide)
    async with opened(guide) as socket:
        await socket.send(exotel.start_message("truth1", "call-truth1", sample_rate=8000))
        for number, frame in enumerate(frames, 1):
            await socket.send(
                exotel.media_message(
                    "truth1", frame, seq=number + 1, chunk=number, timestamp=(number - 1) * 100
                )
            )
        await socket.send(exotel.stop_message("truth1", "call-truth1", seq=len(frames) + 2))
        await closing(socket)
    stream_sid = await stream_of(guide, before)
    assert (await receipt_of(guide, stream_sid))["format_mismatch"] == 1
    told = lines_with(guide.logged(), f"Stream {stream_sid} declares pcm16 at 8000 Hz")
    assert len(told) == 1
    assert "16000 Hz" in told[0]


async def test_bad_input_is_counted_and_does_not_end_a_call(guide: Service) -> None:
    def media(seq: object, payload: bytes = b"\x00\x00" * 80) -> str:
        return json.dumps(
            {
                "event": "media",
                "sequence_number": seq,
                "stream_sid": "bad1",
                "media": {"payload": base64.b64encode(payload).decode()},
            }
        )

    before = ends(guide)
    async with opened(guide) as socket:
        await socket.send(media("1"))
        await socket.send(exotel.start_message("bad1", "call-bad1"))
        for message in (
            media("2"),
            media("2"),
            media("5"),
            media(-7, b"\x01\x00"),
            media(2**70, b"\x02\x00"),
            media("text", b"\x03\x00"),
            media("9", b"\x00"),
            media("10", b""),
            '{"event":"media","media":{"payload":"%%"}}',
            '{"event":"clear"}',
            "{broken",
        ):
            await socket.send(message)
        await socket.send(exotel.stop_message("bad1", "call-bad1", seq=11))
        assert await closing(socket) == (1000, "stop")
    receipt = await receipt_of(guide, await stream_of(guide, before))
    assert adds_up(receipt)
    assert receipt["duplicates"] == 1
    assert receipt["seq_resets"] >= 1
    assert {"before_start", "odd_length", "empty_payload", "bad_base64", "broken_json"} == set(
        receipt["rejected"]
    )


async def test_three_kinds_of_calls_side_by_side_lose_nothing(ingest: Service) -> None:
    said = parameters((await post(ingest, "/twilio-voice", a_call())).text)

    async def by_twilio() -> str:
        async with a_peer(ingest, call_sid=said["callSid"]) as peer:
            await peer.start(said)
            for _ in range(50):
                await peer.media()
                await asyncio.sleep(0.01)
            await peer.stop()
            await peer.closed()
        return peer.stream_sid

    async def by_exotel() -> str:
        async with opened(ingest, authorization=f"Basic {PAIR}") as socket:
            await exotel_call(socket, "side1", [b"\x00\x01" * 800] * 50)
            await closing(socket)
        return stream_id("exotel", "business-1", "side1")

    async def by_client() -> str:
        async with opened(ingest, authorization=token()) as socket:
            await socket.send(json.dumps({"event": "start", "interaction_id": "side2"}))
            for _ in range(50):
                await socket.send(b"\x00\x01" * 4800)
            await socket.send(json.dumps({"event": "stop"}))
            await closing(socket)
        return stream_id("client", "business-1", "side2")

    for stream_sid in await asyncio.gather(by_twilio(), by_exotel(), by_client()):
        receipt: Mapping[str, Any] = await receipt_of(ingest, stream_sid)
        assert (receipt["received"], receipt["published"]) == (50, 50), stream_sid
        assert (receipt["dropped"], receipt["carrier_gaps"]) == ({}, 0)


# -------------------------------------------------------------- published keys


class KeySite:
    """A place on loopback that publishes a key set, and counts who asks."""

    def __init__(self, body: bytes) -> None:
        self.asked = 0
        self._body = body

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        self.asked += 1
        head = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
        writer.write(head % len(self._body) + self._body)
        await writer.drain()
        writer.close()


async def test_tokens_by_published_keys_are_taken_and_others_refused(
    tmp_path: Path, redis_url: str
) -> None:
    ours, other = (rsa.generate_private_key(65537, 2048) for _ in range(2))
    published = json.loads(RSAAlgorithm.to_jwk(ours.public_key())) | {"kid": "k1"}
    site = KeySite(json.dumps({"keys": [published]}).encode())
    server = await asyncio.start_server(site.answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    claims = {"tenant_id": "business-1", "exp": int(time.time()) + 60}

    def signed(key: rsa.RSAPrivateKey, kid: str) -> str:
        return "Bearer " + jwt.encode(claims, key, algorithm="RS256", headers={"kid": kid})

    jwks_url = f"http://127.0.0.1:{port}/jwks.json"
    with running_service(tmp_path, redis_url, JWT_JWKS_URL=jwks_url) as service:
        for _ in range(3):
            async with opened(service, authorization=signed(ours, "k1")) as socket:
                assert socket.protocol.state.name == "OPEN"
        assert site.asked == 1
        assert await refusal(service, authorization=signed(other, "k1")) == 401
        assert await refusal(service, authorization=signed(ours, "k2")) == 401
    server.close()


async def test_a_public_key_on_one_line_is_read(tmp_path: Path, redis_url: str) -> None:
    key = rsa.generate_private_key(65537, 2048)
    pem = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    claims = {"tenant_id": "business-1", "exp": int(time.time()) + 60}
    bearer = "Bearer " + jwt.encode(claims, key, algorithm="RS256")
    one_line = pem.decode().replace("\n", "\\n")
    with running_service(tmp_path, redis_url, JWT_PUBLIC_KEY=one_line) as service:
        async with opened(service, authorization=bearer) as socket:
            assert socket.protocol.state.name == "OPEN"
        swapped = hmac_signed(pem, claims)
        assert await refusal(service, authorization=f"Bearer {swapped}") == 401


def hmac_signed(secret: bytes, claims: Mapping[str, object]) -> str:
    """Sign as the algorithm swap does: HS256 with the public key for a secret."""
    parts = [
        base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=")
        for part in ({"alg": "HS256", "typ": "JWT"}, claims)
    ]
    made = hmac.digest(secret, b".".join(parts), "sha256")
    return b".".join([*parts, base64.urlsafe_b64encode(made).rstrip(b"=")]).decode()
