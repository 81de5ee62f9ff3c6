"""Media sockets, spoken to as Twilio speaks, and as it never would."""

import asyncio
import json
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from app.audio import mulaw_to_pcm16
from tests.service import (
    FRAME,
    Peer,
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
    signature,
    started,
    written,
)
from tests.web.test_voice import parameters

CAPTURES = Path(__file__).parent.parent / "captures"
QUERY = "/twilio-media?businessId=business-1"


async def ticketed(service: Service, to_number: str = "+15005550006") -> dict[str, str]:
    """Call the webhook; give the parameters that `start` must carry."""
    return parameters((await post(service, "/twilio-voice", a_call(to_number))).text)


# ------------------------------------------------------------------- handshake


@pytest.mark.parametrize("path", ["/twilio-media", "/twilio-media/"])
@pytest.mark.parametrize("signed_slash", ["", "/"])
async def test_the_handshake_is_signed_with_or_without_a_trailing_slash(
    service: Service, path: str, signed_slash: str
) -> None:
    url = service.ws_url + "/twilio-media" + signed_slash
    headers = {"X-Twilio-Signature": signature(url)}
    async with a_peer(service, path, headers=headers) as peer:
        assert peer.socket.protocol.state.name == "OPEN"


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({}, id="missing"),
        pytest.param({"X-Twilio-Signature": "d3Jvbmc="}, id="wrong"),
        pytest.param({"X-Twilio-Signature": "http"}, id="over http://"),
    ],
)
async def test_a_handshake_twilio_did_not_sign_is_forbidden(
    service: Service, headers: dict[str, str]
) -> None:
    if headers.get("X-Twilio-Signature") == "http":
        headers = {"X-Twilio-Signature": signature(service.url + "/twilio-media")}
    with pytest.raises(InvalidStatus) as refused:
        async with a_peer(service, headers=headers):
            pass
    assert refused.value.response.status_code == 403


ORIGIN = {"Origin": "https://evil.example"}


@pytest.mark.parametrize("path", ["/twilio-voice", "/twilio-medai", "/v1/ingests", "/"])
async def test_a_socket_on_a_path_that_has_none_is_refused_and_logged(
    service: Service, path: str
) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with a_peer(service, path=path + "?token=canary-2"):
            pass
    assert refused.value.response.status_code == 404
    assert json.loads(refused.value.response.body or b"")["error"] == "not_found"
    shown = lines_with(service.logged(), f"❌ No WebSocket is served at {path}")
    assert [line for line in shown if line.endswith(path)]
    assert "canary-2" not in service.logged()
    assert "Traceback" not in service.logged()


async def test_a_browser_is_refused_where_a_carrier_is_expected(service: Service) -> None:
    url = service.ws_url + "/twilio-media"
    with pytest.raises(InvalidStatus) as refused:
        async with a_peer(service, headers={"X-Twilio-Signature": signature(url), **ORIGIN}):
            pass
    assert refused.value.response.status_code == 403
    assert json.loads(refused.value.response.body or b"")["error"] == "origin_refused"
    assert lines_with(service.logged(), "Handshake refused: origin_refused")


async def test_with_unsigned_allowed_only_a_browser_at_a_page_of_this_machine_is_served(
    open_service: Service,
) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with a_peer(open_service, QUERY, headers=ORIGIN):
            pass
    assert json.loads(refused.value.response.body or b"")["error"] == "origin_refused"
    own = {"Origin": "http://localhost:3000"}
    async with a_peer(open_service, QUERY, headers=own) as peer:
        await peer.start()
        await peer.media(3)
        await peer.stop()
        assert await peer.closed() == (1000, "stop")


async def test_with_unsigned_allowed_a_wrong_signature_is_still_refused(
    open_service: Service,
) -> None:
    with pytest.raises(InvalidStatus):
        async with a_peer(open_service, headers={"X-Twilio-Signature": "d3Jvbmc="}):
            pass


async def test_a_plain_request_is_told_to_upgrade_and_logged(service: Service) -> None:

    async with http_client() as client:
        answer = await client.get(
            f"{service.url}/twilio-media?to=%2B12763659195&businessId=b",
            headers={"Authorization": "Bearer canary-1"},
        )
    assert answer.status_code == 426
    log = service.logged()
    assert lines_with(log, "[Request] GET /twilio-media?to=***&businessId=b")
    assert lines_with(log, "[Request] Headers: {", '"authorization": "***"')
    assert lines_with(log, "[Request] Is WebSocket upgrade: false")
    assert "canary-1" not in log


async def test_the_guides_log_lines_tell_of_an_upgrade(service: Service) -> None:
    async with a_peer(service):
        pass
    log = service.logged()
    assert lines_with(log, "[Request] GET /twilio-media")
    assert lines_with(log, "[Request] Is WebSocket upgrade: true")
    assert lines_with(log, "[WebSocket] 🔌 Connection attempt received")


# -------------------------------------------------------------- a call, whole


async def test_a_call_comes_out_of_redis_bit_exact(service: Service) -> None:
    said = await ticketed(service)
    payloads = [bytes([number]) * 160 for number in range(50)]
    async with a_peer(service, call_sid=said["callSid"]) as peer:
        await peer.start(said)
        for payload in payloads:
            await peer.media(1, payload)
        await peer.stop()
        assert await peer.closed() == (1000, "stop")
    receipt = await receipt_of(service, peer.stream_sid)
    entries = await entries_of(service, peer.stream_sid)
    assert [entry.get("audio") for entry in entries[:-1]] == [
        mulaw_to_pcm16(payload) for payload in payloads
    ]
    assert [int(entry["seq"]) for entry in entries[:-1]] == list(range(2, 52))
    assert entries[-1] == {"event": b"end", "reason": b"stop"}
    assert (receipt["received"], receipt["published"], receipt["carrier_gaps"]) == (50, 50, 0)
    assert receipt["end_reason"] == "stop"
    assert adds_up(receipt)


async def test_a_call_tells_its_life_in_order(service: Service) -> None:
    said = await ticketed(service)
    async with a_peer(service, call_sid=said["callSid"]) as peer:
        await peer.start(said)
        await peer.media(3)
        await peer.stop()
    receipt = await receipt_of(service, peer.stream_sid)
    events = await events_of(service, said["callSid"], at_least=3)
    assert [name for name, _ in events] == ["call.incoming", "stream.started", "stream.stopped"]
    assert events[-1][1] == {"receipt": receipt}
    assert "ticket" not in json.dumps(events)


@pytest.mark.parametrize("name", ["speech", "two_tracks"])
async def test_a_pasted_capture_arrives_whole_and_again(open_service: Service, name: str) -> None:
    lines = (CAPTURES / f"{name}.jsonl").read_text().splitlines()
    stream_sid = json.loads(lines[1])["streamSid"]
    media = sum('"event":"media"' in line for line in lines)
    ended = f"Stream {stream_sid} ended"
    for _ in range(2):
        before = len(lines_with(open_service.logged(), ended))
        async with a_peer(open_service, QUERY, headers={}) as peer:
            for line in lines:
                await peer.socket.send(line)
            await peer.closed()
        await logged_line(open_service, ended, times=before + 1)
        receipt = await receipt_of(open_service, stream_sid)
        entries = await entries_of(open_service, stream_sid)
        assert len(entries) == media + 1
        assert (receipt["published"], receipt["dropped"], receipt["rejected"]) == (media, {}, {})


async def test_ten_minutes_pasted_at_once_are_slowed_and_lose_nothing(
    open_service: Service,
) -> None:
    async with a_peer(open_service, QUERY, headers={}) as peer:
        await peer.start()
        await peer.media(30_000)
        await peer.stop()
        await peer.closed()
    receipt = await receipt_of(open_service, peer.stream_sid)
    assert (receipt["received"], receipt["published"], receipt["dropped"]) == (30_000, 30_000, {})


async def test_the_guides_url_admits_a_stream_when_unsigned_is_allowed(
    open_service: Service,
) -> None:
    path = f"{QUERY}&callSid=test123&plan=basic&to={quote('+12763659195')}"
    async with a_peer(open_service, path, headers={}) as peer:
        await peer.start()
        await peer.media(5)
        await peer.stop()
        await peer.closed()
    assert (await receipt_of(open_service, peer.stream_sid))["published"] == 5
    started = dict(await events_of(open_service, peer.call_sid))["stream.started"]
    assert started["to"] == "+12763659195"


async def test_the_dialled_number_finds_the_business_and_its_own_plan_wins(
    open_service: Service,
) -> None:
    async with a_peer(open_service, "/twilio-media?plan=free", headers={}) as peer:
        await peer.start({"to": "+15005550002", "plan": "also-free"})
        await peer.media()
        await peer.stop()
        await peer.closed()
    await receipt_of(open_service, peer.stream_sid)
    log = lines_with(open_service.logged(), f"Stream {peer.stream_sid} started")
    assert "business: business-2, plan: tiny" in log[0]


# ------------------------------------------------------------------- refusals


async def refused(peer: Peer) -> str:
    code, reason = await peer.closed()
    assert code == 1008
    return reason.partition(":")[0]


async def test_a_stream_without_a_ticket_is_refused(service: Service) -> None:
    async with a_peer(service) as peer:
        await peer.start({"businessId": "business-1"})
        assert await refused(peer) == "ticket_missing"


async def test_a_ticket_admits_one_stream_of_its_own_call(service: Service) -> None:
    said = await ticketed(service)
    async with a_peer(service) as stranger:
        await stranger.start(said)
        assert await refused(stranger) == "ticket_invalid"
    async with a_peer(service, call_sid=said["callSid"]) as peer:
        await peer.start(said)
        await peer.stop()
        assert await peer.closed() == (1000, "stop")
    async with a_peer(service, call_sid=said["callSid"]) as again:
        await again.start(said)
        assert await refused(again) == "ticket_spent"


async def test_a_ticket_of_one_business_does_not_open_another(service: Service) -> None:
    said = await ticketed(service)
    async with a_peer(service, call_sid=said["callSid"]) as peer:
        await peer.start({**said, "businessId": "business-2"})
        assert await refused(peer) == "business_mismatch"


async def test_a_stream_of_nobody_is_refused(open_service: Service) -> None:
    async with a_peer(open_service, "/twilio-media", headers={}) as peer:
        await peer.start()
        assert await refused(peer) == "unknown_business"


async def test_a_second_socket_for_a_live_stream_is_refused_and_the_first_goes_on(
    open_service: Service,
) -> None:
    async with a_peer(open_service, QUERY, headers={}) as first:
        await first.start()
        await first.media(5)
        async with a_peer(open_service, QUERY, headers={}) as second:
            second.stream_sid = first.stream_sid
            await started(open_service, first.stream_sid)
            await second.start()
            assert await refused(second) == "stream_already_live"
        await first.media(5)
        await first.stop()
        assert await first.closed() == (1000, "stop")
    receipt = await receipt_of(open_service, first.stream_sid)
    assert (receipt["received"], receipt["published"]) == (10, 10)


async def test_a_start_that_is_too_late_is_refused(tmp_path: Path, redis_url: str) -> None:
    with running_service(
        tmp_path, redis_url, ALLOW_UNSIGNED="true", STREAM_START_TIMEOUT_SECONDS="0.3"
    ) as hasty:
        async with a_peer(hasty, QUERY, headers={}) as peer:
            assert await refused(peer) == "start_timeout"


@pytest.mark.parametrize(
    ("start", "code", "reason"),
    [
        ({"streamSid": "a{b}", "callSid": "CA1"}, 1008, "invalid_identifier"),
        ({"streamSid": "x" * 129, "callSid": "CA1"}, 1008, "invalid_identifier"),
        ({"callSid": "CA1"}, 1008, "malformed_request"),
        ("text", 1008, "malformed_request"),
        (
            {"streamSid": "MZ1", "callSid": "CA1", "mediaFormat": {"encoding": "opus"}},
            1003,
            "unsupported_format",
        ),
    ],
)
async def test_a_start_that_no_stream_can_be_made_of_is_refused(
    open_service: Service, start: object, code: int, reason: str
) -> None:
    async with a_peer(open_service, QUERY, headers={}) as peer:
        form = {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1}
        if isinstance(start, dict):
            start = {"mediaFormat": form, **start}
        await peer.socket.send(json.dumps({"event": "start", "start": start}))
        given, text = await peer.closed()
    assert (given, text.partition(":")[0]) == (code, reason)


# ------------------------------------------------------- bad input, call goes on


async def test_one_bad_message_of_each_kind_does_not_end_a_call(open_service: Service) -> None:
    async with a_peer(open_service, QUERY, headers={}) as peer:
        await peer.socket.send(json.dumps({"event": "media", "media": {"payload": "AAAA"}}))
        await peer.start()
        await peer.media()
        for message in (
            "{broken",
            "[1]",
            "{}",
            "",
            json.dumps({"event": "dance"}),
            json.dumps({"event": "media", "media": {"payload": "%%%"}}),
            json.dumps({"event": "media", "media": {"payload": 7}}),
            json.dumps({"event": "media", "media": {"payload": ""}}),
            json.dumps({"event": "dtmf", "dtmf": {"digit": "long"}}),
            b"\x00\x01binary",
            "[" * 5000,
        ):
            await peer.socket.send(message)
            await peer.media()
        await peer.start()
        peer.seq = 13
        await peer.media()
        await peer.stop()
        assert await peer.closed() == (1000, "stop")
    receipt = await receipt_of(open_service, peer.stream_sid)
    assert adds_up(receipt)
    assert receipt["published"] == 13
    assert receipt["carrier_gaps"] == 0
    assert receipt["rejected"] == {
        "before_start": 1,
        "broken_json": 2,
        "not_an_object": 1,
        "no_event": 1,
        "bad_base64": 1,
        "bad_media": 1,
        "empty_payload": 1,
        "binary_frame": 1,
    }


async def test_text_that_is_not_utf8_closes_with_1007_and_stands_in_the_receipt(
    open_service: Service,
) -> None:
    async with a_peer(open_service, QUERY, headers={}) as peer:
        await peer.start()
        await peer.media(3)
        await peer.socket.send(b"\xff" * 100, text=True)
        code, _ = await peer.closed()
        assert code == 1007
    receipt = await receipt_of(open_service, peer.stream_sid)
    assert (receipt["end_reason"], receipt["rejected"]) == ("disconnected", {"not_utf8": 1})
    assert receipt["published"] == 3
    assert adds_up(receipt)


async def test_a_message_over_64_kib_closes_with_1009_and_a_receipt(
    open_service: Service,
) -> None:
    async with a_peer(open_service, QUERY, headers={}) as peer:
        await peer.start()
        await peer.media(3)
        await peer.socket.send("x" * (64 * 1024 + 1))
        code, _ = await peer.closed()
        assert code == 1009
    receipt = await receipt_of(open_service, peer.stream_sid)
    assert receipt["end_reason"] == "message_too_big"
    assert receipt["rejected"] == {"message_too_big": 1}
    assert receipt["published"] == 3
    assert adds_up(receipt)


async def test_a_message_of_64_kib_is_read(open_service: Service) -> None:
    payload = b"\xff" * 48_000  # 64,000 characters of base64
    async with a_peer(open_service, QUERY, headers={}) as peer:
        await peer.start()
        await peer.media(1, payload)
        await peer.stop()
        assert await peer.closed() == (1000, "stop")
    assert (await receipt_of(open_service, peer.stream_sid))["published"] == 1


async def test_a_socket_that_dies_without_stop_has_a_receipt_too(open_service: Service) -> None:
    async with connect(open_service.ws_url + QUERY, compression=None) as socket:
        peer = Peer(socket, "CAdies")
        await peer.start()
        await peer.media(7)
        await written(open_service, peer.stream_sid, 7)
        socket.transport.abort()
    receipt = await receipt_of(open_service, peer.stream_sid)
    assert (receipt["published"], receipt["end_reason"]) == (7, "disconnected")
    assert (await entries_of(open_service, peer.stream_sid))[-1]["reason"] == b"disconnected"


async def test_nothing_but_bad_messages_closes_the_socket(open_service: Service) -> None:
    async with a_peer(open_service, QUERY, headers={}) as peer:
        await peer.start()
        await peer.media(2)
        with suppress(ConnectionClosed):
            for _ in range(1000):
                await peer.socket.send("{broken")
                await asyncio.sleep(0)
        await peer.socket.wait_closed()
        assert peer.socket.close_code == 1008
    receipt = await receipt_of(open_service, peer.stream_sid)
    assert receipt["end_reason"] == "too_many_bad_messages"
    assert receipt["published"] == 2
    assert adds_up(receipt)


async def test_a_stream_ends_when_the_plans_longest_call_is_over(open_service: Service) -> None:
    async with a_peer(open_service, "/twilio-media?businessId=short", headers={}) as peer:
        await peer.start()
        await peer.media(5)
        assert await peer.closed() == (1000, "max_call_seconds")
    receipt = await receipt_of(open_service, peer.stream_sid)
    assert (receipt["published"], receipt["end_reason"]) == (5, "max_call_seconds")


async def test_keys_are_told_and_never_logged(open_service: Service) -> None:
    from app.wire import twilio

    async with a_peer(open_service, QUERY, headers={}) as peer:
        await peer.start()
        await peer.socket.send(twilio.dtmf_message(peer.stream_sid, "7", seq=2))
        await peer.socket.send(twilio.mark_message(peer.stream_sid, "label", seq=3))
        await peer.socket.send(twilio.stop_message(peer.stream_sid, peer.call_sid, seq=4))
        await peer.closed()
    await receipt_of(open_service, peer.stream_sid)
    told = dict(await events_of(open_service, peer.call_sid, at_least=4))
    assert told["stream.dtmf"]["digit"] == "7"
    assert told["stream.mark"]["name"] == "label"
    assert not lines_with(open_service.logged(), "dtmf")


async def test_the_plans_slots_hold_for_streams_too(open_service: Service) -> None:
    path = "/twilio-media?businessId=business-2"
    async with a_peer(open_service, path, headers={}) as first:
        await first.start()
        await first.media()
        await started(open_service, first.stream_sid)
        async with a_peer(open_service, path, headers={}) as second:
            await second.start()
            code, reason = await second.closed()
            assert (code, reason.partition(":")[0]) == (1013, "plan_limit_reached")
        await first.stop()
        await first.closed()
    await receipt_of(open_service, first.stream_sid)
    async with a_peer(open_service, path, headers={}) as third:
        await third.start()
        await third.media(1, FRAME)
        await third.stop()
        assert await third.closed() == (1000, "stop")
