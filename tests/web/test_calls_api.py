"""Calls by the API: a simulated call from its ringing to its erasure, for who may and may not."""

import asyncio
import io
import json
import re
import wave
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np
import pytest
from redis.asyncio import Redis

from app.audio import mulaw_to_pcm16
from app.media import Track
from app.tools.caller import speech_frames
from app.wire import twilio
from tests.service import (
    Peer,
    Service,
    a_call,
    a_peer,
    http_client,
    post,
    receipt_of,
    started,
    written,
)
from tests.waiting import WAIT_SECONDS, until
from tests.web.admins import API, OPERATOR, Caller, administered, bearer
from tests.web.test_voice import parameters

SPEECH = speech_frames()[:150]
QUIET = b"\xff" * 160
DIGIT = "7"
CALLER = "+12763659195"


@dataclass(frozen=True)
class House:
    """An instance, and a key of each of two businesses."""

    service: Service
    own: Caller
    other: Caller
    own_key: str


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with administered(tmp_path_factory.mktemp("calls")) as service:
        operator = Caller(service)
        own, other = (operator.new_key(one)["key"] for one in ("business-1", "business-2"))
        yield House(service, Caller(service, bearer(own)), Caller(service, bearer(other)), own)


@asynccontextmanager
async def a_live_call(service: Service) -> AsyncIterator[Peer]:
    """Ring, and begin the stream."""
    said = parameters((await post(service, "/twilio-voice", a_call())).text)
    async with a_peer(service, call_sid=said["callSid"]) as peer:
        await peer.start(said, tracks=tuple(Track))
        await started(service, peer.stream_sid)
        yield peer


async def speak(peer: Peer, ms: int, inbound: bytes | None, outbound: bytes | None) -> None:
    """Send what is said on each track at a time."""
    for track, payload in ((Track.INBOUND, inbound), (Track.OUTBOUND, outbound)):
        if payload is not None:
            peer.seq += 1
            place = {"seq": peer.seq, "chunk": ms // 20 + 1, "timestamp": ms, "track": track}
            await peer.socket.send(twilio.media_message(peer.stream_sid, payload, **place))


async def a_call_that_is_over(service: Service) -> Peer:
    """Leave a call: speech inbound, a word outbound, a key pressed, and a gap."""
    async with a_live_call(service) as peer:
        for number, payload in enumerate(SPEECH):
            await speak(peer, 20 * number, payload, payload if number < 50 else None)
        peer.seq += 1
        await peer.socket.send(twilio.dtmf_message(peer.stream_sid, DIGIT, seq=peer.seq))
        peer.seq += 5  # they never come
        await speak(peer, 20 * (len(SPEECH) + 5), SPEECH[0], None)
        await peer.stop()
        await receipt_of(service, peer.stream_sid)
    await until(lambda: Caller(service)("GET", f"/calls/{peer.call_sid}").json()["ended_at"])
    return peer


def samples_of(content: bytes) -> np.ndarray:
    with wave.open(io.BytesIO(content)) as file:
        assert (file.getsampwidth(), file.getframerate()) == (2, 8000)
        frames = file.readframes(file.getnframes())
        return np.frombuffer(frames, "<i2").reshape(-1, file.getnchannels())


def expected_samples() -> np.ndarray:
    speech = np.frombuffer(mulaw_to_pcm16(b"".join(SPEECH)), "<i2")
    mixed = np.zeros(((len(SPEECH) + 6) * 160, 2), "<i2")
    mixed[: len(speech), 0] = speech
    mixed[-160:, 0] = speech[:160]
    mixed[: 50 * 160, 1] = speech[: 50 * 160]
    return mixed


# ----------------------------------------------------------------- a call that is over


@pytest.fixture(scope="module")
def over(house: House) -> Peer:
    return asyncio.run(a_call_that_is_over(house.service))


def test_a_call_is_listed_for_its_business_and_the_operator(house: House, over: Peer) -> None:
    for caller, query in (
        (house.own, ""),
        (house.own, "?business=business-1"),
        (house.own, "?state=ended&from=2763659195&limit=200"),
        (Caller(house.service), ""),
        (Caller(house.service), "?business=business-1"),
    ):
        items = caller("GET", f"/calls{query}").json()["items"]
        assert over.call_sid in [item["call_sid"] for item in items], query
    for caller, query in (
        (house.other, ""),
        (house.own, "?state=live"),
        (house.own, "?after=9000000000000"),
        (house.own, "?before=1"),
        (house.own, "?to=000000000"),
        (Caller(house.service), "?business=business-2"),
    ):
        items = caller("GET", f"/calls{query}").json()["items"]
        assert over.call_sid not in [item["call_sid"] for item in items], query


def test_a_call_tells_what_became_of_its_audio(house: House, over: Peer) -> None:
    call = house.own("GET", f"/calls/{over.call_sid}").json()
    assert (call["state"], call["business_id"], call["plan"]) == ("ended", "business-1", "premium")
    assert (call["from"], call["to"], call["dtmf"]) == (CALLER, "+15005550006", 1)
    [stream] = call["streams"]
    assert stream["tracks"] == ["inbound", "outbound"]
    assert stream["receipt"]["published"] == 201
    assert stream["words"] == (
        "201 of 201 frames delivered; 5 never came from the carrier; the carrier ended it."
    )
    assert call["kept_streams"] == [over.stream_sid]
    given = call["parameters"][over.stream_sid]
    assert given["callSid"] == over.call_sid
    assert "ticket" not in given


def test_its_events_are_told_in_order_and_without_the_digit(house: House, over: Peer) -> None:
    answer = house.own("GET", f"/calls/{over.call_sid}/events")
    events = answer.json()["items"]
    assert [event["event"] for event in events] == [
        "call.incoming",
        "stream.started",
        "stream.dtmf",
        "stream.stopped",
    ]
    assert set(events[2]["data"]) == {"seq"}


def test_its_audio_is_what_was_said_on_each_track(house: House, over: Peer) -> None:
    answer = house.own("GET", f"/calls/{over.call_sid}/audio.wav")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "audio/wav"
    assert int(answer.headers["content-length"]) == len(answer.content)
    assert answer.headers["x-audio-begins-at-ms"] == "0"
    assert answer.headers["x-audio-trimmed"] == "false"
    assert "no-store" in answer.headers["cache-control"]
    assert np.array_equal(samples_of(answer.content), expected_samples())


def test_a_player_may_seek_in_it(house: House, over: Peer) -> None:
    path = f"/calls/{over.call_sid}/audio.wav"
    whole = house.own("GET", path)
    size = len(whole.content)
    for asked, first, last in (
        ("bytes=0-", 0, size - 1),
        ("bytes=44-47", 44, 47),
        (f"bytes={size - 3}-", size - 3, size - 1),
        ("bytes=-1001", size - 1001, size - 1),
    ):
        part = house.own("GET", path, headers={"Range": asked})
        assert part.status_code == 206
        assert part.headers["content-range"] == f"bytes {first}-{last}/{size}"
        assert part.content == whole.content[first : last + 1]
    none = house.own("GET", path, headers={"Range": f"bytes={size}-"})
    assert (none.status_code, none.headers["content-range"]) == (416, f"bytes */{size}")
    etag = whole.headers["etag"]
    for condition, status in ((etag, 206), ('"another"', 200)):
        headers = {"Range": "bytes=0-9", "If-Range": condition}
        assert house.own("GET", path, headers=headers).status_code == status


def test_its_waveform_marks_the_gap(house: House, over: Peer) -> None:
    waveform = house.own("GET", f"/calls/{over.call_sid}/waveform?buckets=156").json()
    assert waveform["duration_ms"] == 156 * 20
    inbound, outbound = waveform["tracks"]
    loud = np.abs(expected_samples().astype(int)).reshape(156, 160, 2).max(axis=1)
    assert inbound["peaks"] == loud[:, 0].tolist()
    assert outbound["peaks"] == loud[:, 1].tolist()
    [gap] = waveform["gaps"]
    assert (gap["from_ms"], gap["to_ms"]) == (3000, 3100)
    assert (gap["frames"], gap["reason"]) == (5, "carrier")


@pytest.mark.parametrize(
    "path", ["", "/events", "/audio.wav", "/waveform", "/live.pcm", "/audio.wav?stream=MZ-none"]
)
def test_nobody_else_is_shown_any_of_it(house: House, over: Peer, path: str) -> None:
    ours = f"/calls/{over.call_sid}{path}"
    named = f"{ours}{'&' if '?' in ours else '?'}business=business-1"
    for asked in (ours, named):
        answer = house.other("GET", asked)
        assert answer.status_code == 404, answer.text
        assert over.stream_sid not in answer.text
        assert CALLER not in answer.text


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/calls?state=other", "state"),
        ("/calls?limit=0", "limit"),
        ("/calls?limit=201", "limit"),
        ("/calls?after=yesterday", "after"),
        ("/calls?before=-1", "before"),
        ("/calls?cursor=x", "cursor"),
        ("/calls?cursor=" + "x" * 600, "cursor"),
        ("/calls?from=" + "1" * 65, "from"),
        ("/calls?business=%3Cb%3E", "business"),
        ("/calls/CA%00", "call_sid"),
        ("/calls/" + "C" * 129, "call_sid"),
        ("/calls/CA1%E2%80%AE", "call_sid"),
        ("/calls/CA1/audio.wav?stream=%7Bx%7D", "stream"),
        ("/calls/CA1/waveform?buckets=0", "buckets"),
        ("/calls/CA1/waveform?buckets=2001", "buckets"),
    ],
)
def test_a_bad_parameter_is_named(house: House, path: str, field: str) -> None:
    answer = house.own("GET", path)
    assert (answer.status_code, answer.json()["error"]) == (422, "fields_invalid")
    assert set(answer.json()["fields"]) == {field}


def test_an_unknown_call_is_not_there(house: House) -> None:
    for caller in (house.own, Caller(house.service)):
        for path in ("", "/events", "/audio.wav", "/waveform", "/live.pcm"):
            assert caller("GET", f"/calls/CA0{path}").status_code == 404
        assert caller("DELETE", "/calls/CA0").status_code == 404


# ------------------------------------------------------------------------- live calls


async def test_a_live_call_is_heard_as_it_goes_on(house: House) -> None:
    service = house.service
    async with a_live_call(service) as peer, http_client() as client:
        loud, low = b"\x00" * 160, b"\x80" * 160  # -32124 and 32124
        for number in range(10):
            await speak(peer, 20 * number, QUIET, QUIET)
        await written(service, peer.stream_sid, 20)
        url = f"{service.url}{API}/calls/{peer.call_sid}/live.pcm"
        async with client.stream("GET", url, headers=bearer(house.own_key)) as answer:
            assert answer.status_code == 200
            about = answer.headers["x-sample-rate"], answer.headers["x-channels"]
            assert about == ("8000", "2")
            for number in range(10, 30):
                await speak(peer, 20 * number, loud, low)
            await peer.stop()
            heard = b"".join([block async for block in answer.aiter_raw()])
    samples = np.frombuffer(heard, "<i2").reshape(-1, 2)
    assert samples[0].tolist() == [0, 0]
    assert [-32124, 32124] in samples.tolist()


async def test_who_listens_hears_no_more_when_their_key_is_revoked(house: House) -> None:
    operator = Caller(house.service)
    key = operator.new_key("business-1")
    async with a_live_call(house.service) as peer, http_client() as client:
        url = f"{house.service.url}{API}/calls/{peer.call_sid}/live.pcm"
        async with client.stream("GET", url, headers=bearer(key["key"])) as answer:
            assert answer.status_code == 200
            operator("DELETE", f"/businesses/business-1/keys/{key['id']}")
            async for _ in answer.aiter_raw():
                pass  # the call goes on, and so would this
        assert house.own("GET", f"/calls/{peer.call_sid}").json()["state"] == "live"


async def test_a_live_call_is_listed_at_once_and_is_not_erased(house: House) -> None:
    async with a_live_call(house.service) as peer:
        await speak(peer, 0, SPEECH[0], None)
        await written(house.service, peer.stream_sid, 1)

        def is_listed() -> bool:
            items = house.own("GET", "/calls?state=live").json()["items"]
            return peer.call_sid in [item["call_sid"] for item in items]

        await until(is_listed)
        refused = house.own("DELETE", f"/calls/{peer.call_sid}")
        assert (refused.status_code, refused.json()["error"]) == (409, "call_is_live")
        audio = house.own("GET", f"/calls/{peer.call_sid}/audio.wav")
        assert audio.headers["accept-ranges"] == "none"
        assert "content-length" not in audio.headers
        assert audio.content[44:46] == mulaw_to_pcm16(SPEECH[0])[:2]
        assert house.own("GET", f"/calls/{peer.call_sid}/waveform").json()["live"]


async def test_a_rejected_call_says_why(house: House) -> None:
    first, second = a_call("+15005550002"), a_call("+15005550002")
    await post(house.service, "/twilio-voice", first)
    await post(house.service, "/twilio-voice", second)

    def rejected() -> Any:
        items = house.other("GET", "/calls?state=rejected").json()["items"]
        return [item for item in items if item["call_sid"] == second["CallSid"]]

    [item] = await until(rejected)
    assert item["refused"] == "plan_limit_reached"
    await post(house.service, "/twilio-status", {**first, "CallStatus": "completed"})


# --------------------------------------------------------------------------- erasure


async def test_an_erased_call_leaves_nothing_but_the_proof(house: House) -> None:
    peer = await a_call_that_is_over(house.service)
    path = f"/calls/{peer.call_sid}"
    house.own("GET", f"{path}/waveform")
    assert house.other("DELETE", path).status_code == 404
    answer = house.own("DELETE", path)
    assert answer.status_code == 200
    erased = answer.json()["erased"]
    counts = {kind: part["count"] for kind, part in erased.items()}
    assert counts["events"] == counts["log"] == 4
    assert counts["audio"] == 203  # 201 frames, a gap and the end
    assert counts["waveforms"] == counts["records"] == 1
    assert erased["audio"]["bytes"] > 200 * 320
    again = house.own("DELETE", path)
    assert again.status_code == 404
    for method, gone in (("GET", path), ("GET", f"{path}/audio.wav"), ("GET", f"{path}/events")):
        assert Caller(house.service)(method, gone).status_code == 404
    entries = house.own("GET", "/audit").json()["items"]
    of_call = [one for one in entries if one["target"] == peer.call_sid]
    [entry] = [one for one in of_call if one["action"] == "call.erased"]
    assert entry["action"] == "call.erased"
    assert entry["data"]["audio_count"] == 203
    assert entry["data"]["events_bytes"] == erased["events"]["bytes"]
    assert json.dumps(CALLER) not in json.dumps(entry)
    async with Redis.from_url(house.service.redis_url) as redis:
        keys: list[bytes] = [key async for key in redis.scan_iter(count=1000)]
        announced: Any = await redis.xrange("calls")
    names = (peer.call_sid.encode(), peer.stream_sid.encode())
    left = {key for key in keys if any(name in key for name in names)}
    # That it was counted is usage, which stays, and that it has ended refuses a replayed
    # webhook; so these marks do until they expire.
    marks = {key for key in left if re.search(rb":(counted|metered|ended):", key)}
    assert left - marks == {f"live:{{business-1}}:erased:{peer.call_sid}".encode()}
    assert not [one for _, one in announced if one[b"callSid"].decode() == peer.call_sid]


# ----------------------------------------------------------------------------- a drain


async def test_a_drain_ends_listening_while_the_call_goes_on(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    directory = tmp_path_factory.mktemp("drained")
    with administered(directory, DRAIN_SECONDS="60") as service:
        async with a_live_call(service) as peer, http_client() as client:
            url = f"{service.url}{API}/calls/{peer.call_sid}/live.pcm"
            async with client.stream("GET", url, headers=OPERATOR) as answer:
                assert answer.status_code == 200
                service.process.terminate()
                async for _ in answer.aiter_raw():
                    pass
            await speak(peer, 0, SPEECH[0], None)
            await written(service, peer.stream_sid, 1)
            await peer.stop()
            assert (await receipt_of(service, peer.stream_sid))["end_reason"] == "stop"


def test_without_a_key_there_is_no_audio(house: House, over: Peer) -> None:
    for path in ("audio.wav", "live.pcm"):
        answer = httpx.get(f"{house.service.url}{API}/calls/{over.call_sid}/{path}")
        assert answer.status_code == 401


async def ring_again_and_again(service: Service) -> None:
    while True:
        call = a_call()
        await post(service, "/twilio-voice", call)
        await post(service, "/twilio-status", {**call, "CallStatus": "completed"})
        await asyncio.sleep(0.1)


async def test_what_happens_in_a_call_is_told_to_those_who_watch_it(house: House) -> None:
    # The reader begins a moment after the watcher, and nobody is told when.
    ringing = asyncio.create_task(ring_again_and_again(house.service))
    url = f"{house.service.url}{API}/live/events"
    async with (
        asyncio.timeout(WAIT_SECONDS),
        http_client() as client,
        client.stream("GET", url, headers=bearer(house.own_key)) as answer,
    ):
        async for line in answer.aiter_lines():
            if line.startswith("data: {") and "call.status" in line:
                break
    ringing.cancel()
    await asyncio.gather(ringing, return_exceptions=True)
    told = json.loads(line.removeprefix("data: "))
    assert (told["business_id"], told["data"]["status"]) == ("business-1", "completed")
