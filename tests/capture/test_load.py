"""Captures read whole: whose they are, when each message is due, and which line is damaged."""

import json
from pathlib import Path

import pytest

from app.errors import CaptureError
from app.tools.capture import load
from app.tools.capture.fresh import FreshCall, fresh_call, fresh_messages, start_message
from app.tools.capture.load import load_capture
from app.wire.capture import CaptureFacts, capture_line, facts_path, write_facts
from tests.captures.make_captures import CALL_SID, DIRECTORY, STREAM_SID

SPEECH = DIRECTORY / "speech.jsonl"
CALL = FreshCall("CAnew", "MZnew", "ACnew")


def copied(directory: Path, *lines: str | bytes, name: str = "call.jsonl") -> Path:
    path = directory / name
    path.write_bytes(b"".join((x if isinstance(x, bytes) else x.encode()) + b"\n" for x in lines))
    return path


def lines_of(name: str) -> list[str]:
    return (DIRECTORY / f"{name}.jsonl").read_text().splitlines()


@pytest.mark.parametrize(
    ("name", "carrier"),
    [
        ("speech", "twilio"),
        ("two_tracks", "twilio"),
        ("exotel_speech", "exotel"),
        ("exotel_flat", "exotel"),
        ("exotel_camel_case", "exotel"),
        ("exotel_beta", "exotel"),
    ],
)
def test_a_capture_tells_whose_it_is(name: str, carrier: str) -> None:
    assert load_capture(DIRECTORY / f"{name}.jsonl").carrier == carrier


def test_binary_audio_alone_is_exotels_and_lasts_as_long_as_its_samples(tmp_path: Path) -> None:
    path = copied(tmp_path, *[capture_line(b"\1\0" * 2400) for _ in range(3)])
    capture = load_capture(path)
    assert (capture.carrier, capture.start, capture.good) == ("exotel", None, 3)
    assert capture.due == pytest.approx((0.0, 0.1, 0.2))


def test_media_time_tells_when_messages_are_due() -> None:
    capture = load_capture(SPEECH)
    assert capture.due[:5] == pytest.approx((0, 0, 0, 0.02, 0.04))
    assert capture.seconds == pytest.approx(453 * 0.02)
    assert (capture.good, capture.bad, capture.stops) == (454, 0, True)


@pytest.mark.parametrize("ts", ["-5", "99999999999", "1700000000000"])
def test_a_media_time_that_no_carrier_has_does_not_hold_up_a_call(tmp_path: Path, ts: str) -> None:
    lines = lines_of("speech")[:6]
    lines[4] = lines[4].replace('"timestamp":"40"', f'"timestamp":"{ts}"')
    assert load_capture(copied(tmp_path, *lines)).seconds <= 0.2


def test_what_follows_stop_is_left_out(tmp_path: Path) -> None:
    lines = lines_of("no_stop")
    stop = lines_of("speech")[-1]
    capture = load_capture(copied(tmp_path, *lines, stop, lines[-1], lines[-1]))
    assert (capture.good, len(capture.messages)) == (3, len(lines) + 1)


# --------------------------------------------------------------------------- damage


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"event":"media","media":{"payl', "line 4: no JSON object"),
        ("[1]", "line 4: no JSON object"),
        (b"\xff\xfe", "line 4: not UTF-8"),
        ('{"binary":"no base64!"}', "line 4: begins as a wrapped message"),
        ('{"text":"a","event":"media"}', "line 4: begins as a wrapped message"),
        ("a" * 65537, "line 4: longer than 64 KiB"),
    ],
)
def test_a_damaged_line_is_named(tmp_path: Path, line: str | bytes, words: str) -> None:
    lines = lines_of("speech")
    path = copied(tmp_path, *lines[:3], line, *lines[3:6])
    with pytest.raises(CaptureError, match=rf"call\.jsonl, {words}"):
        load_capture(path)


def test_a_line_that_came_broken_is_no_damage(tmp_path: Path) -> None:
    lines = lines_of("broken_json")
    bad = [n for n, line in enumerate(lines, 1) if load.object_in(line) is None]
    path = copied(tmp_path, *lines)
    with pytest.raises(CaptureError, match=f"line {bad[0]}: no JSON"):
        load_capture(path)
    assert load_capture(path, take_damaged=True).bad == len(bad)
    facts_path(path).write_bytes(write_facts(CaptureFacts(carrier="twilio", bad_lines=bad)))
    assert load_capture(path).bad == len(bad)


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([], "holds no message"),
        (lines_of("speech")[:1], "holds no `start`"),
        (['{"event":"media"}'], "holds no `start`"),
        (['{"event":"start","start":{"streamSid":"MZ1","callSid":"CA1"}}'], "line 1: no stream of"),
        (['{"event":"start","start":{"stream_sid":"a b"}}'], "line 1: no stream of exotel's"),
    ],
)
def test_what_makes_no_call_is_refused(tmp_path: Path, lines: list[str], words: str) -> None:
    with pytest.raises(CaptureError, match=words):
        load_capture(copied(tmp_path, *lines))


def test_another_carriers_capture_is_refused() -> None:
    with pytest.raises(CaptureError, match="no stream of twilio's begins so"):
        load_capture(DIRECTORY / "exotel_speech.jsonl", carrier="twilio")


def test_a_capture_that_is_too_large_is_not_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(load, "MAX_BYTES", 100)
    with pytest.raises(CaptureError, match="the most that is read is 100"):
        load_capture(SPEECH)


@pytest.mark.parametrize(
    ("beside", "words"),
    [
        (b"{", "cannot be read"),
        (b'{"carrier":"telnyx"}', "cannot be read"),
        (b'{"version":2,"carrier":"twilio"}', "is of version 2"),
        (b'{"carrier":"twilio","arrivals_ms":[0,1]}', "the times of 2"),
    ],
)
def test_a_damaged_file_beside_it_is_named(tmp_path: Path, beside: bytes, words: str) -> None:
    path = copied(tmp_path, *lines_of("no_stop"))
    facts_path(path).write_bytes(beside)
    with pytest.raises(CaptureError, match=words):
        load_capture(path)


# ------------------------------------------------------------------------ fresh calls


def test_every_message_of_a_fresh_call_has_its_ids() -> None:
    capture = load_capture(SPEECH)
    start = start_message(capture, CALL, {"ticket": "new"})
    messages = list(fresh_messages(capture, CALL, start))
    text = "\n".join(one for one in messages if isinstance(one, str))
    assert len(messages) == len(capture.messages)
    assert STREAM_SID not in text
    assert CALL_SID not in text
    assert text.count('"MZnew"') == 457
    said = json.loads(start)["start"]
    assert (said["callSid"], said["accountSid"]) == ("CAnew", "ACnew")
    assert said["customParameters"] == {
        **{"businessId": "business-1", "plan": "premium"},
        "ticket": "new",
    }


def test_a_masked_parameter_is_not_said_again(tmp_path: Path) -> None:
    lines = lines_of("no_stop")
    lines[1] = lines[1].replace('"customParameters":{', '"customParameters":{"ticket":"***",')
    capture = load_capture(copied(tmp_path, *lines))
    said = json.loads(start_message(capture, CALL, {}))["start"]["customParameters"]
    assert "ticket" not in said


def test_two_fresh_calls_differ() -> None:
    capture = load_capture(SPEECH)
    assert fresh_call(capture).call_sid != fresh_call(capture).call_sid
