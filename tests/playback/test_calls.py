"""Callers who hear what workers play: whole services, simulated carriers, a real Redis."""

import asyncio
import json
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import jwt
import pytest
from redis.asyncio import Redis
from websockets.asyncio.client import connect

from app.audio import pcm16_to_mulaw
from app.carriers.stream_ids import stream_id
from app.store.remembered import FRESH_SECONDS
from tests.playback.listener import Listener, listening
from tests.playback.talking import (
    ACCOUNT,
    TALKING,
    Talk,
    exotel_call,
    speech,
    twilio_call,
)
from tests.redis_process import RedisProcess
from tests.service import (
    Service,
    a_call,
    a_peer,
    adds_up,
    http_client,
    lines_with,
    logged_line,
    post,
    receipt_of,
    running_service,
    service_alone,
)
from tests.twilio_stand_in import Answer, StandIn, problem, standing_in
from tests.waiting import until
from tests.web.test_voice import parameters

# ---------------------------------------------------------------------- what is heard


async def test_a_twilio_caller_hears_a_mulaw_recording_bit_for_bit(service: Service) -> None:
    recording = pcm16_to_mulaw(speech(1.013))  # no whole number of frames
    async with twilio_call(service) as talk:
        await talk.command("play", audio=recording, encoding="mulaw", id="r1")
        [played] = await talk.told("stream.played")
        assert talk.listener.sent == recording
        assert played == {
            "id": "r1",
            "plays": 1,
            "durationMs": 1013,
            "playedMs": 1013,
            "heard": True,
        }


@pytest.mark.parametrize("rate", [8000, 16000, 24000])
async def test_an_exotel_caller_hears_a_pcm16_recording_bit_for_bit(
    service: Service, rate: int
) -> None:
    recording = speech(1.013, rate)
    async with exotel_call(service, rate=rate) as talk:
        await talk.command("play", audio=recording, sampleRate=rate, id="r1")
        await talk.told("stream.played")
        heard = talk.listener.sent
        assert heard[: len(recording)] == recording
        assert not any(heard[len(recording) :])
        assert {len(payload) for payload in talk.listener.of("media")} == {3200}


async def test_a_recording_in_many_pieces_is_heard_as_one_and_answered_once(talk: Talk) -> None:
    recording = speech(0.8)
    for at in range(0, len(recording), 320):
        await talk.command("play", audio=recording[at : at + 320])
    [played] = await talk.told("stream.played")
    expected = pcm16_to_mulaw(recording) if talk.listener.is_twilio else recording
    assert talk.listener.sent[: len(expected)] == expected
    assert (played["plays"], played["durationMs"], played["heard"]) == (40, 800, True)


async def test_audio_is_sent_in_real_time_a_short_lead_ahead(talk: Talk) -> None:
    await talk.command("play", audio=speech(2.0), id="r1")
    await talk.told("stream.played")
    times = [at for at, event, _ in talk.listener.messages if event == "media"]
    # 2 s of audio: the last of it goes out when little more than the lead is left.
    assert times[-1] - times[0] > 1.5


# --------------------------------------------------------------- barge-in and marks


async def test_a_clear_ends_what_waits_and_what_the_carrier_has(talk: Talk) -> None:
    await talk.command("play", audio=speech(40.0), id="long", mark="end")
    await talk.command("mark", mark="after", id="m1")
    await talk.listener.heard(bytes(1600))
    await talk.command("clear", id="c1")
    [cleared] = await talk.told("stream.cleared")
    [played] = await talk.told("stream.played")
    marks = await talk.told("stream.mark", 2)
    assert talk.listener.of("clear") == [None]
    assert talk.listener.messages[-1][1] == "clear"
    assert (cleared["id"], cleared["plays"]) == ("c1", 1)
    assert (played["id"], played["heard"], played["durationMs"]) == ("long", False, 40_000)
    assert 0 <= played["playedMs"] < 40_000
    assert [(mark["id"], mark["name"], mark["heard"]) for mark in marks] == [
        ("long", "end", False),
        ("m1", "after", False),
    ]


async def test_a_mark_that_is_echoed_after_a_clear_does_not_count_as_heard(talk: Talk) -> None:
    await talk.command("play", audio=speech(0.15), id="short")
    await until(lambda: talk.listener.of("mark"))
    await talk.command("clear", id="c1")
    await talk.command("mark", mark="next", id="m2")
    [mark] = await talk.told("stream.mark")
    played = await talk.told("stream.played")
    assert mark == {"id": "m2", "name": "next", "heard": True}
    # The carrier has echoed the mark of the play as well by now: it is told of once.
    assert [(one["id"], one["heard"]) for one in played] in (
        [("short", False)],
        [("short", True)],  # it was over before the clear was read
    )


async def test_what_is_played_after_a_clear_is_heard(talk: Talk) -> None:
    await talk.command("play", audio=speech(40.0))
    await talk.listener.heard(bytes(1600))
    await talk.command("clear")
    await until(lambda: talk.listener.of("clear"))
    before = len(talk.listener.sent)
    again = speech(0.4)
    await talk.command("play", audio=again, id="again")
    await until(lambda: talk.told("stream.played", 2))
    expected = pcm16_to_mulaw(again) if talk.listener.is_twilio else again
    assert talk.listener.sent[before:][: len(expected)] == expected


async def test_marks_are_told_in_their_order_with_the_plays_before(talk: Talk) -> None:
    await talk.command("play", audio=speech(0.2), mark="one")
    entry = await talk.command("play", audio=speech(0.2))
    await talk.command("mark", mark="two")
    marks = await talk.told("stream.mark", 2)
    assert [mark["name"] for mark in marks] == ["one", "two"]
    played = await talk.told("stream.played", 2)
    assert played[1]["id"] == entry


# ----------------------------------------------------------------- hang-up and the end


async def test_a_hang_up_waits_for_the_goodbye(talk: Talk) -> None:
    goodbye = speech(0.5)
    await talk.command("play", audio=goodbye, id="goodbye")
    await talk.command("hangup")
    assert await talk.listener.closed() == (1000, "hangup")
    receipt = await receipt_of(talk.service, talk.stream_sid)
    [played] = await talk.told("stream.played")
    assert played["heard"] is True
    assert receipt["end_reason"] == "hangup"
    playback = receipt["playback"]
    assert (playback["queued_ms"], playback["sent_ms"], playback["lost_ms"]) == (500, 500, 0)
    assert adds_up(receipt)


async def test_what_was_not_done_before_the_end_is_told_and_counted(service: Service) -> None:
    async with twilio_call(service) as talk:
        await talk.command("play", audio=speech(40.0), id="unheard")
        await talk.listener.heard(bytes(800))
    [error] = await talk.told("stream.error")
    assert error == {"id": "unheard", "command": "play", "reason": "stream_ended"}
    playback = (await receipt_of(service, talk.stream_sid))["playback"]
    assert playback["lost_ms"] > 0
    assert playback["queued_ms"] == 40_000 == playback["sent_ms"] + playback["lost_ms"]


async def test_a_command_that_comes_after_the_end_is_refused(service: Service) -> None:
    async with twilio_call(service) as talk:
        pass
    await talk.told("stream.stopped")
    async with Redis.from_url(service.redis_url) as redis:
        late: Any = {"command": "play", "audio": b"\xff" * 160, "encoding": "mulaw", "id": "late"}
        await redis.xadd(f"control:{{{talk.stream_sid}}}", late, nomkstream=True)
    [error] = await talk.told("stream.error")
    assert (error["id"], error["reason"]) == ("late", "stream_ended")


async def test_a_command_is_taken_out_when_it_was_read_and_the_key_expires(
    service: Service,
) -> None:
    async with twilio_call(service) as talk:
        key = f"control:{{{talk.stream_sid}}}"
        assert await talk.redis.ttl(key) > 0
        await talk.command("mark", mark="one")
        await talk.told("stream.mark")

        async def is_empty() -> bool:
            return await talk.redis.xlen(key) == 0

        await until(is_empty)


# ------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("command", ["play", "mark", "clear", "hangup", "transfer", "dtmf"])
async def test_without_return_audio_nothing_is_allowed(service: Service, command: str) -> None:
    async with twilio_call(service, "?businessId=listening") as talk:
        await talk.command(command, audio=speech(0.1), mark="m", id="i1", to="+15005550001")
        [error] = await talk.told("stream.error")
        assert error == {"id": "i1", "command": command, "reason": "not_allowed"}
        assert talk.listener.messages == []
    assert (await receipt_of(service, talk.stream_sid))["playback"]["refused"] == 1


async def test_a_stream_that_only_listens_is_not_spoken_into(service: Service) -> None:
    for call in (
        twilio_call(service, "?businessId=forwarding"),
        twilio_call(service, tracks=("inbound", "outbound")),
        exotel_call(service, "?applet=stream"),
    ):
        async with call as talk:
            await talk.command("play", audio=speech(0.1), id="p1")
            await talk.command("clear", id="c1")
            errors = await talk.told("stream.error", 2)
            assert {error["reason"] for error in errors} == {"one_way"}
            assert talk.listener.messages == []


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"command": "play"}, "bad_audio"),
        ({"command": "play", "audio": b"\x00\x01\x02"}, "bad_audio"),
        ({"command": "play", "audio": b"\x00\x01", "encoding": "opus"}, "bad_format"),
        ({"command": "play", "audio": b"\x00\x01", "sampleRate": 44100}, "bad_format"),
        ({"command": "play", "audio": bytes(1024 * 1024 + 2)}, "too_large"),
        ({"command": "mark"}, "bad_field"),
        ({"command": "dtmf", "digits": "1"}, "not_supported"),
        ({"command": "sing"}, "unknown_command"),
    ],
)
async def test_what_cannot_be_done_is_refused_and_the_call_goes_on(
    service: Service, fields: dict[str, Any], reason: str
) -> None:
    async with twilio_call(service) as talk:
        entry = await talk.command(**fields)
        [error] = await talk.told("stream.error")
        assert (error["id"], error["reason"]) == (entry, reason)
        assert talk.listener.messages == []
        await talk.command("mark", mark="still there")
        await talk.told("stream.mark")


async def test_more_than_three_minutes_are_refused_whole(service: Service) -> None:
    async with twilio_call(service) as talk:
        minute = bytes(480_000)
        for number in range(4):
            await talk.command("play", audio=minute, encoding="mulaw", id=f"m{number}")
            await asyncio.sleep(0)
        errors = await talk.told("stream.error", 1)
        assert [(error["id"], error["reason"]) for error in errors][-1] == ("m3", "queue_full")
        await talk.command("clear", id="c1")
        [cleared] = await talk.told("stream.cleared")
        assert cleared["plays"] == 3


# --------------------------------------------------------------- Twilio's REST API


@asynccontextmanager
async def signing(
    tmp_path: Path, settings: Mapping[str, str], *answers: Answer
) -> AsyncIterator[tuple[Service, StandIn]]:
    """Run a service that enforces signatures, and asks a stand-in of Twilio's."""
    async with standing_in(answers) as stand_in:
        given = {**settings, "ALLOW_UNSIGNED": "false", "TWILIO_ACCOUNT_SID": ACCOUNT}
        given["TWILIO_API_URL"] = stand_in.url
        with service_alone(tmp_path, **given) as service:
            yield service, stand_in


@asynccontextmanager
async def signed_call(service: Service) -> AsyncIterator[Talk]:
    call = a_call(TALKING)
    answer = await post(service, "/twilio-voice", call)
    async with (
        a_peer(service, call_sid=call["CallSid"]) as peer,
        Redis.from_url(service.redis_url) as redis,
    ):
        await peer.start(parameters(answer.text), account_sid=ACCOUNT)
        async with listening(peer.socket, peer.stream_sid) as listener:
            talk = Talk(service, redis, listener, call["CallSid"])
            await talk.started()
            yield talk


async def test_a_call_is_transferred_or_ended_at_twilio_and_one_it_refuses_goes_on(
    tmp_path: Path, settings: Mapping[str, str]
) -> None:
    answers = (problem(400, 21212), Answer())
    async with signing(tmp_path, settings, *answers) as (service, stand_in):
        async with signed_call(service) as talk:
            await talk.command("transfer", to="+14155550177", id="t1")
            [error] = await talk.told("stream.error")
            assert error == {"id": "t1", "command": "transfer", "reason": "carrier_refused"}
            await talk.command("play", audio=speech(0.2), id="p1")
            await talk.told("stream.played")
            await talk.command("transfer", to="+14155550177")
            assert await talk.listener.closed() == (1000, "transfer")
        own_words = "<Response><Say>Wait</Say></Response>"
        async with signed_call(service) as talk:
            await talk.command("transfer", twiml=own_words)
            assert await talk.listener.closed() == (1000, "transfer")
        # At once: its TwiML would say that we are sorry.
        async with signed_call(service) as talk:
            await talk.command("hangup", id="h1")
            assert await talk.listener.closed() == (1000, "hangup")
        refused, *asked = stand_in.asked
        log = service.logged()
    dialled = (
        '<?xml version="1.0" encoding="UTF-8"?>'
        "<Response><Dial><Number>+14155550177</Number></Dial></Response>"
    )
    assert refused.form == {"Twiml": [dialled]}
    assert [one.form for one in asked] == [
        {"Twiml": [dialled]},
        {"Twiml": [own_words]},
        {"Status": ["completed"]},
    ]
    path = f"/2010-04-01/Accounts/{ACCOUNT}/Calls/{talk.call_sid}.json"
    assert asked[-1].path == path
    assert not lines_with(log, "5550077")


ABROAD = "+18765550199"  # Jamaica: another country, and the same country code


async def test_a_call_is_transferred_only_where_its_plan_allows_at_that_moment(
    tmp_path: Path, settings: Mapping[str, str]
) -> None:
    async with signing(tmp_path, settings, Answer(), Answer()) as (service, stand_in):
        async with signed_call(service) as talk, Redis.from_url(service.redis_url) as redis:
            for number, given in enumerate(
                (
                    {"to": ABROAD},
                    {"to": "+19005551234"},
                    {"twiml": f"<Response><Dial>{ABROAD}</Dial></Response>"},
                    {"twiml": "<Response><Redirect>https://example.com/</Redirect></Response>"},
                    {"twiml": "<Response><Dial><Conference>a</Conference></Dial></Response>"},
                ),
                1,
            ):
                await talk.command("transfer", id=f"t{number}", **given)
                error = (await talk.told("stream.error", number))[-1]
                assert (error["id"], error["reason"]) == (f"t{number}", "destination_not_allowed")
                assert "5550199" not in error["detail"]
            # The plan is narrowed while the call is live: what was allowed is not any more.
            await redis.hset("plan:{talking}", "allowed_destinations", "GB")  # type: ignore[misc]
            await asyncio.sleep(FRESH_SECONDS)
            await talk.command("transfer", id="t6", to="+14155550177")
            error = (await talk.told("stream.error", 6))[-1]
            assert (error["id"], error["reason"]) == ("t6", "destination_not_allowed")
            await redis.hset("plan:{talking}", "allowed_destinations", "own")  # type: ignore[misc]
            await asyncio.sleep(FRESH_SECONDS)
            await talk.command("transfer", to="+14155550177")
            assert await talk.listener.closed() == (1000, "transfer")
        [asked] = stand_in.asked
        assert "4155550177" in asked.form["Twiml"][0]
        log = service.logged()
    assert len(lines_with(log, "refused: its plan does not allow where")) == 6
    assert not lines_with(log, "5550199")


async def test_a_call_by_hand_cannot_be_transferred(service: Service) -> None:
    async with twilio_call(service) as talk:
        await talk.command("transfer", to="+14155550177", id="t1")
        [error] = await talk.told("stream.error")
        assert error["reason"] == "no_credentials"


async def test_an_exotel_call_cannot_be_transferred(service: Service) -> None:
    async with exotel_call(service) as talk:
        await talk.command("transfer", to="+14155550177", id="t1")
        [error] = await talk.told("stream.error")
        assert error["reason"] == "not_supported"


# --------------------------------------------------------------------------- metrics


async def test_what_was_played_is_counted_without_names(service: Service) -> None:
    async with twilio_call(service) as talk:
        await talk.command("play", audio=speech(0.2), id="secret-id")
        await talk.told("stream.played")
    await talk.told("stream.stopped")
    async with http_client() as client:
        metrics = (await client.get(f"{service.url}/metrics")).text
    assert 'bridge_commands_total{command="play",outcome="taken"}' in metrics
    assert 'bridge_playback_seconds_total{fate="sent"}' in metrics
    assert "secret-id" not in metrics
    assert "secret-id" not in service.logged()


# ------------------------------------------------------------------ drains and faults


async def test_a_drain_lets_playback_end_and_tells_of_what_it_cut(
    tmp_path: Path, settings: Mapping[str, str]
) -> None:
    with service_alone(tmp_path, **settings, DRAIN_SECONDS="1") as service:
        async with twilio_call(service) as talk:
            await talk.command("play", audio=speech(0.5), id="short")
            await talk.command("play", audio=speech(60.0), id="long")
            await talk.listener.heard(b"\xff")
            stopping = asyncio.create_task(asyncio.to_thread(service.stop))
            await logged_line(service, "Draining")
            # Commands are read until the calls are over.
            await talk.command("mark", mark="late", id="m")
            assert await talk.listener.closed() == (1001, "drain")
            assert await stopping == 0
            played = await talk.told("stream.played")
            errors = await talk.told("stream.error", 2)
        receipt = await receipt_of(service, talk.stream_sid)
    assert [one["id"] for one in played] == ["short"]
    assert [(one["id"], one["command"], one["reason"]) for one in errors] == [
        ("long", "play", "stream_ended"),
        ("m", "mark", "stream_ended"),
    ]
    playback = receipt["playback"]
    assert playback["lost_ms"] > 50_000
    assert playback["queued_ms"] == 60_500 == playback["sent_ms"] + playback["lost_ms"]


async def test_a_caller_goes_on_hearing_while_redis_is_away(
    tmp_path: Path, settings: Mapping[str, str]
) -> None:
    with (
        RedisProcess(tmp_path / "redis") as server,
        running_service(tmp_path, server.url, **settings) as service,
    ):
        async with twilio_call(service) as talk:
            await talk.command("play", audio=speech(1.0), id="before")
            await talk.listener.heard(b"\xff")
            server.freeze()
            await talk.listener.heard(bytes(8000))  # all of it
            await until(lambda: talk.listener.of("mark"))
            server.thaw()
            await talk.command("play", audio=speech(0.2), id="after")
            played = await talk.told("stream.played", 2)
        assert [(one["id"], one["heard"]) for one in played] == [("before", True), ("after", True)]
        assert len(talk.listener.sent) == 9600  # nothing was lost or said twice
        assert not lines_with(service.logged(), "Traceback")


async def test_a_second_stream_of_the_same_id_hears_nothing_of_the_first(
    service: Service,
) -> None:
    async with twilio_call(service) as talk:
        await talk.told("stream.started")
        first = talk.stream_sid
    await talk.told("stream.stopped")
    async with (
        a_peer(service, "/twilio-media?businessId=talking", headers={}) as peer,
        Redis.from_url(service.redis_url) as redis,
    ):
        # A worker that has not noticed the end: this is of the call before.
        stale: Any = {"command": "play", "audio": speech(0.5), "id": "stale"}
        await redis.xadd(f"control:{{{first}}}", stale, nomkstream=True)
        peer.stream_sid = first
        await peer.start()
        async with listening(peer.socket, first) as listener:
            again = Talk(service, redis, listener, peer.call_sid)
            await again.started()
            await again.command("play", audio=speech(0.2), id="fresh")
            await again.told("stream.played")
            assert len(listener.sent) == 1600


async def test_an_own_client_is_not_spoken_to(service: Service) -> None:
    claims = {"tenant_id": "talking", "exp": int(time.time()) + 60}
    token = jwt.encode(claims, "j" * 32, algorithm="HS256")
    interaction = secrets.token_hex(8)
    headers = {"Authorization": f"Bearer {token}"}
    url = f"{service.ws_url}/v1/ingest"
    async with connect(url, additional_headers=headers) as socket:
        await socket.send(json.dumps({"event": "start", "interaction_id": interaction}))
        assert json.loads(await socket.recv())["event"] == "started"
        async with Redis.from_url(service.redis_url) as redis:
            stream_sid = stream_id("client", "talking", interaction)
            talk = Talk(service, redis, Listener(socket, stream_sid), interaction)
            await talk.started()
            await talk.command("play", audio=speech(0.2), id="p")
            [error] = await talk.told("stream.error")
    assert error == {"id": "p", "command": "play", "reason": "not_supported"}


async def test_binary_audio_without_a_start_is_not_answered(service: Service) -> None:
    call_sid = secrets.token_hex(16)
    async with connect(f"{service.ws_url}/v1/ingest?callSid={call_sid}") as socket:
        await socket.send(speech(0.1))
        async with Redis.from_url(service.redis_url) as redis:
            talk = Talk(service, redis, Listener(socket, ""), call_sid)
            await talk.started()
            found: Any = await redis.xrange("calls")
            [talk.listener.stream_sid] = [
                fields[b"streamSid"].decode()
                for _, fields in found
                if fields[b"callSid"] == call_sid.encode()
            ]
            await talk.command("play", audio=speech(0.2), id="p")
            [error] = await talk.told("stream.error")
    assert error["reason"] == "one_way"


async def test_too_many_commands_are_refused_with_one_answer_a_second(service: Service) -> None:
    async with twilio_call(service) as talk:
        key = f"control:{{{talk.stream_sid}}}"
        async with talk.redis.pipeline(transaction=False) as pipeline:
            for _ in range(700):
                pipeline.xadd(key, {"command": "sing"})
            await pipeline.execute()
        await talk.command("play", audio=speech(0.1))  # needs no answer of its own
        await talk.told("stream.played")
        errors = await talk.told("stream.error", 500)
    reasons = Counter(error["reason"] for error in errors)
    assert reasons["unknown_command"] >= 500
    assert 1 <= reasons["too_many"] <= 5


async def test_commands_are_read_where_audio_goes_to_channels(
    tmp_path: Path, settings: Mapping[str, str]
) -> None:
    given = {**settings, "PUBSUB_ADAPTER": "redis_pubsub"}
    with service_alone(tmp_path, **given) as service:
        async with (
            a_peer(service, "/twilio-media?businessId=talking", headers={}) as peer,
            Redis.from_url(service.redis_url) as redis,
        ):
            key = f"control:{{{peer.stream_sid}}}"
            await peer.start()
            async with listening(peer.socket, peer.stream_sid) as listener:
                # Written before the stream is there, by one who knows its id.
                early: Any = {"command": "play", "audio": speech(0.2)}
                await redis.xadd(key, early)
                await listener.heard(bytes(1600))
                await until(lambda: listener.of("mark"))

            async def expires() -> bool:
                return bool(await redis.ttl(key) > 0)

            await until(expires)
