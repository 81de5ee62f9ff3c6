"""Twilio's messages: what each means, in any order, and in any form they may come."""

import base64
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.audio import mulaw_to_pcm16
from app.errors import InvalidIdentifier, MalformedRequest, RemoteError, UnsupportedFormat
from app.events import (
    Connected,
    DtmfReceived,
    Ignored,
    MarkReceived,
    MediaReceived,
    MediaRejected,
    StreamStarted,
    StreamStopped,
    Unreadable,
    WireEvent,
)
from app.media import Encoding, MediaFormat, Track
from app.wire.base import StreamState
from app.wire.capture import read_capture
from app.wire.twilio import (
    TwilioWire,
    connected_message,
    dtmf_message,
    mark_message,
    media_message,
    start_message,
    stop_message,
)
from tests.captures.make_captures import DIRECTORY, SPOKEN, speech_frames
from tests.examples import examples
from tests.messages import damaged

STREAM = "MZ0123456789abcdef0123456789abcdef"
CALL = "CA0123456789abcdef0123456789abcdef"
ACCOUNT = "AC0123456789abcdef0123456789abcdef"
PAYLOAD = bytes(range(160))
MEDIA = {"track": "inbound", "chunk": "2", "timestamp": "20", "payload": "AAECAw=="}


def started(**media_format: Any) -> TwilioWire:
    wire = TwilioWire()
    assert isinstance(wire.receive(a_start(mediaFormat=MULAW | media_format)), StreamStarted)
    return wire


MULAW: dict[str, Any] = {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1}


def a_start(**changes: Any) -> str:
    """Write a `start` with some fields of its body changed; `...` takes one out."""
    body: dict[str, Any] = {"streamSid": STREAM, "callSid": CALL, "accountSid": ACCOUNT}
    body |= {"mediaFormat": MULAW, "tracks": ["inbound"], "customParameters": {}} | changes
    body = {name: value for name, value in body.items() if value is not ...}
    return json.dumps({"event": "start", "sequenceNumber": "1", "start": body})


def a_media(seq: Any = "4", **changes: Any) -> str:
    """Write a media message with some fields of `media` changed; `...` takes one out."""
    media = {name: value for name, value in (MEDIA | changes).items() if value is not ...}
    return json.dumps({"event": "media", "sequenceNumber": seq, "media": media})


def read(message: str | bytes) -> WireEvent:
    """Read a message in the middle of a call."""
    return started().receive(message)


# ------------------------------------------------------- what Twilio's page prints


def test_the_messages_of_the_page_are_written_to_the_letter() -> None:
    params = {"FirstName": "Jane"}
    start = start_message(STREAM, CALL, account_sid=ACCOUNT, params=params)
    media = media_message(STREAM, b"\x9e\x8f\x89", seq=4, chunk=2, timestamp=5)
    stop = stop_message(STREAM, CALL, seq=5, account_sid=ACCOUNT)
    assert connected_message() == '{"event":"connected","protocol":"Call","version":"1.0.0"}'
    assert start == (
        f'{{"event":"start","sequenceNumber":"1","start":{{"accountSid":"{ACCOUNT}",'
        f'"streamSid":"{STREAM}","callSid":"{CALL}","tracks":["inbound"],'
        '"mediaFormat":{"encoding":"audio/x-mulaw","sampleRate":8000,"channels":1},'
        f'"customParameters":{{"FirstName":"Jane"}}}},"streamSid":"{STREAM}"}}'
    )
    assert media == (
        '{"event":"media","sequenceNumber":"4","media":{"track":"inbound","chunk":"2",'
        f'"timestamp":"5","payload":"no+J"}},"streamSid":"{STREAM}"}}'
    )
    assert dtmf_message(STREAM, "1", seq=5) == (
        f'{{"event":"dtmf","streamSid":"{STREAM}","sequenceNumber":"5",'
        '"dtmf":{"track":"inbound_track","digit":"1"}}'
    )
    assert mark_message(STREAM, "my label", seq=4) == (
        f'{{"event":"mark","sequenceNumber":"4","streamSid":"{STREAM}",'
        '"mark":{"name":"my label"}}'
    )
    assert stop == (
        f'{{"event":"stop","sequenceNumber":"5","stop":{{"accountSid":"{ACCOUNT}",'
        f'"callSid":"{CALL}"}},"streamSid":"{STREAM}"}}'
    )


def test_what_is_written_is_read_back() -> None:
    wire = TwilioWire()
    params = {"to": "+15005550006", "name": 'Zoë "Z" <&>\n'}
    start = start_message(
        STREAM, CALL, account_sid=ACCOUNT, tracks=tuple(Track), params=params, sample_rate=16000
    )
    assert wire.receive(connected_message()) == Connected("Call", "1.0.0")
    assert wire.receive(start) == StreamStarted(
        STREAM,
        CALL,
        MediaFormat(Encoding.MULAW, 16000),
        tuple(Track),
        params,
        account_sid=ACCOUNT,
        seq=1,
    )
    for track in Track:
        media = media_message(STREAM, PAYLOAD, seq=2, chunk=1, timestamp=7, track=track)
        assert wire.receive(media) == MediaReceived(PAYLOAD, track, 2, 7)
    assert wire.receive(dtmf_message(STREAM, "#", seq=3)) == DtmfReceived("#", 3)
    assert wire.receive(mark_message(STREAM, "my label", seq=4)) == MarkReceived("my label", 4)
    assert wire.receive(stop_message(STREAM, CALL, seq=5)) == StreamStopped(5)


@given(
    payload=st.binary(min_size=1, max_size=400),
    seq=st.integers(-(2**63), 2**63 - 1),
    timestamp=st.integers(-(2**63), 2**63 - 1),
    track=st.sampled_from(Track),
)
def test_any_media_is_read_back(payload: bytes, seq: int, timestamp: int, track: Track) -> None:
    message = media_message(STREAM, payload, seq=seq, chunk=1, timestamp=timestamp, track=track)
    assert read(message) == MediaReceived(payload, track, seq, timestamp)


def test_twilio_always_sends_start_and_is_answered_nothing() -> None:
    wire = TwilioWire()
    assert wire.implied_start(PAYLOAD) is None
    wire.receive(start_message(STREAM, CALL))
    assert wire.started_reply() is None
    assert wire.ack(10) is None


# ------------------------------------------------------------------------- media


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (a_media(), MediaReceived(b"\0\1\2\3", Track.INBOUND, 4, 20)),
        (a_media(seq=4, timestamp=20), MediaReceived(b"\0\1\2\3", Track.INBOUND, 4, 20)),
        (a_media(seq="-4", timestamp=20.0), MediaReceived(b"\0\1\2\3", Track.INBOUND, -4, 20)),
        (a_media(track="outbound"), MediaReceived(b"\0\1\2\3", Track.OUTBOUND, 4, 20)),
        (a_media(track="outbound_track"), MediaReceived(b"\0\1\2\3", Track.OUTBOUND, 4, 20)),
        (a_media(track=...), MediaReceived(b"\0\1\2\3", Track.INBOUND, 4, 20)),
        (a_media(track=None), MediaReceived(b"\0\1\2\3", Track.INBOUND, 4, 20)),
        (a_media(timestamp=...), MediaReceived(b"\0\1\2\3", Track.INBOUND, 4, None)),
        (a_media(timestamp=[]), MediaReceived(b"\0\1\2\3", Track.INBOUND, 4, None)),
        (
            a_media(timestamp="2025-06-01T12:00:00Z"),
            MediaReceived(b"\0\1\2\3", Track.INBOUND, 4, None),
        ),
        (a_media(seq=None), MediaReceived(b"\0\1\2\3", Track.INBOUND, None, 20)),
        (a_media(seq=2**70), MediaReceived(b"\0\1\2\3", Track.INBOUND, None, 20)),
        (a_media(chunk=..., extra={"a": [1]}), MediaReceived(b"\0\1\2\3", Track.INBOUND, 4, 20)),
        (
            '{"media":{"payload":"\\u0041AECAw=="},"event":"media"}',
            MediaReceived(b"\0\1\2\3", Track.INBOUND, None, None),
        ),
        # Of two equal keys the last counts.
        (
            '{"event":"stop","event":"media","media":{"payload":"!","payload":"AAAA"}}',
            MediaReceived(b"\0\0\0", Track.INBOUND, None, None),
        ),
    ],
)
def test_media_is_read_in_every_form_that_makes_sense(
    message: str, expected: MediaReceived
) -> None:
    assert read(message) == expected


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ('{"event":"media","sequenceNumber":"4"}', MediaRejected("bad_media", None, 4)),
        ('{"event":"media","media":null}', MediaRejected("bad_media", None, None)),
        ('{"event":"media","media":["AAAA"]}', MediaRejected("bad_media", None, None)),
        (a_media(payload=...), MediaRejected("bad_media", Track.INBOUND, 4)),
        (a_media(payload=None), MediaRejected("bad_media", Track.INBOUND, 4)),
        (a_media(payload=7, track="outbound"), MediaRejected("bad_media", Track.OUTBOUND, 4)),
        (a_media(payload={"a": 1}), MediaRejected("bad_media", Track.INBOUND, 4)),
        (a_media(track="sideways"), MediaRejected("bad_track", None, 4)),
        (a_media(track=["inbound"]), MediaRejected("bad_track", None, 4)),
        (a_media(track=""), MediaRejected("bad_track", None, 4)),
        (a_media(payload=""), MediaRejected("empty_payload", Track.INBOUND, 4)),
        (a_media(seq="x", payload=""), MediaRejected("empty_payload", Track.INBOUND, None)),
    ],
)
def test_media_that_cannot_be_used_is_rejected_and_keeps_its_number(
    message: str, expected: MediaRejected
) -> None:
    assert read(message) == expected


@pytest.mark.parametrize(
    "payload",
    [
        *("A", "AA", "AAA", "AAAAA", "A===", "=", "====", "AA=A", "AAAA=", "AA==AA=="),
        *("AA AA", "AAAA\n", "-_AA", "AA!A", "ÿAAA", "AAAÀ", "AAA\0", "ＡＡＡＡ", "😀"),
    ],
)
def test_base64_is_read_strictly(payload: str) -> None:
    expected = MediaRejected("bad_base64", Track.OUTBOUND, 4)
    assert read(a_media(payload=payload, track="outbound")) == expected


def test_half_a_sample_is_rejected_where_samples_have_two_bytes() -> None:
    odd = a_media(payload=base64.b64encode(bytes(321)).decode())
    even = a_media(payload=base64.b64encode(bytes(320)).decode())
    linear = started(encoding="audio/x-l16", sampleRate=16000)
    assert linear.receive(odd) == MediaRejected("odd_length", Track.INBOUND, 4)
    assert linear.receive(even) == MediaReceived(bytes(320), Track.INBOUND, 4, 20)
    assert started().receive(odd) == MediaReceived(bytes(321), Track.INBOUND, 4, 20)


# -------------------------------------------------- messages that are not even media


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("", Ignored("empty_message")),
        (" \t\r\n", Ignored("empty_message")),
        (b"", Unreadable("binary_frame")),
        (a_media().encode(), Unreadable("binary_frame")),
        (b"\xff\xfe", Unreadable("binary_frame")),
        ("Hello?", Unreadable("broken_json")),
        (a_media()[:-1], Unreadable("broken_json")),
        (a_media() + "}", Unreadable("broken_json")),
        ("\ufeff" + a_media(), Unreadable("broken_json")),
        (a_media().replace("}", "\ud800}"), Unreadable("broken_json")),
        ('{"event":"\\ud800"}', Unreadable("broken_json")),
        ('{"event":"media","sequenceNumber":NaN}', Unreadable("broken_json")),
        ('{"event":"stop","sequenceNumber":1e999}', Unreadable("broken_json")),
        ("[" * 60000, Unreadable("broken_json")),
        ('{"event":"stop","a":' + "[" * 30000 + "]" * 30000 + "}", Unreadable("broken_json")),
        ("[]", Unreadable("not_an_object")),
        ('"media"', Unreadable("not_an_object")),
        ("null", Unreadable("not_an_object")),
        ("17", Unreadable("not_an_object")),
        ("{}", Unreadable("no_event")),
        ('{"media":{"payload":"AAAA"}}', Unreadable("no_event")),
        ('{"event":null}', Unreadable("no_event")),
        ('{"event":["media"]}', Unreadable("no_event")),
        ('{"event":"rewind","sequenceNumber":"9"}', Ignored("unknown_event", 9)),
        ('{"event":"Media","media":{"payload":"AAAA"}}', Ignored("unknown_event")),
        ('{"event":""}', Ignored("unknown_event")),
    ],
)
def test_every_other_message_has_its_answer(message: str | bytes, expected: WireEvent) -> None:
    wire = started()
    assert wire.receive(message) == expected
    assert wire.state is StreamState.STARTED
    assert isinstance(wire.receive(a_media()), MediaReceived)


@pytest.mark.parametrize("digit", [*"0123456789*#ABCD", 5])
def test_a_key_has_a_digit(digit: object) -> None:
    message = json.dumps({"event": "dtmf", "sequenceNumber": 5, "dtmf": {"digit": digit}})
    assert read(message) == DtmfReceived(str(digit), 5)


@pytest.mark.parametrize("dtmf", [None, [], "1", {}, *({"digit": x} for x in ("", "12", "E", 10))])
def test_a_key_without_a_digit_is_ignored(dtmf: object) -> None:
    message = json.dumps({"event": "dtmf", "sequenceNumber": 5, "dtmf": dtmf})
    assert read(message) == Ignored("bad_dtmf", 5)


@pytest.mark.parametrize(
    "mark", [None, [], "a", {}, {"name": ""}, {"name": 7}, {"name": "a" * 501}]
)
def test_a_mark_without_a_name_is_ignored(mark: object) -> None:
    message = json.dumps({"event": "mark", "sequenceNumber": 5, "mark": mark})
    assert read(message) == Ignored("bad_mark", 5)


def test_a_mark_may_have_a_long_name() -> None:
    assert read(mark_message(STREAM, "é" * 500, seq=5)) == MarkReceived("é" * 500, 5)


def test_a_bare_connected_and_a_bare_stop_are_enough() -> None:
    assert TwilioWire().receive('{"event":"connected","version":1}') == Connected()
    assert read('{"event":"stop"}') == StreamStopped()


# ------------------------------------------------------------------------- start


def start_of(**changes: Any) -> StreamStarted:
    event = TwilioWire().receive(a_start(**changes))
    assert isinstance(event, StreamStarted)
    return event


@pytest.mark.parametrize(
    ("declared", "expected"),
    [
        (MULAW, MediaFormat(Encoding.MULAW, 8000)),
        (MULAW | {"sampleRate": "8000", "channels": "1"}, MediaFormat(Encoding.MULAW, 8000)),
        (MULAW | {"encoding": "audio/X-MULAW"}, MediaFormat(Encoding.MULAW, 8000)),
        (MULAW | {"encoding": "audio/x-l16"}, MediaFormat(Encoding.PCM16, 8000)),
        (MULAW | {"encoding": "audio/L16"}, MediaFormat(Encoding.PCM16, 8000)),
        (MULAW | {"encoding": "audio/x-raw"}, MediaFormat(Encoding.PCM16, 8000)),
        *(
            (MULAW | {"sampleRate": r}, MediaFormat(Encoding.MULAW, r))
            for r in (16000, 24000, 48000)
        ),
        ({"encoding": "audio/x-mulaw", "sampleRate": 8000}, MediaFormat(Encoding.MULAW, 8000)),
    ],
)
def test_the_format_is_what_start_declares(declared: dict[str, Any], expected: MediaFormat) -> None:
    assert start_of(mediaFormat=declared).format == expected


@pytest.mark.parametrize(
    ("declared", "named"),
    [
        (..., "mediaFormat"),
        (None, "mediaFormat"),
        ("audio/x-mulaw", "mediaFormat"),
        ({}, "encoding"),
        (MULAW | {"encoding": "audio/opus"}, "encoding"),
        (MULAW | {"encoding": 5}, "encoding"),
        *((MULAW | {"sampleRate": r}, "sampleRate") for r in (None, 0, -8000, 44100, "8k", 8e9)),
        *((MULAW | {"channels": n}, "channels") for n in (0, 2, None, "stereo")),
    ],
)
def test_a_format_that_cannot_be_read_is_refused_by_name(declared: object, named: str) -> None:
    wire = TwilioWire()
    with pytest.raises(UnsupportedFormat, match=named):
        wire.receive(a_start(mediaFormat=declared))
    assert wire.state is StreamState.CONNECTING


@pytest.mark.parametrize("field", ["streamSid", "callSid"])
@pytest.mark.parametrize(
    ("value", "error"),
    [
        (..., MalformedRequest),
        (None, MalformedRequest),
        ("", MalformedRequest),
        (7, InvalidIdentifier),
        (["MZ1"], InvalidIdentifier),
        ("MZ 1", InvalidIdentifier),
        ("MZ1\n", InvalidIdentifier),
        ("a:b{c}", InvalidIdentifier),
        ("é", InvalidIdentifier),
        ("a" * 129, InvalidIdentifier),
    ],
)
def test_a_start_must_name_its_stream_and_its_call(
    field: str, value: object, error: type[RemoteError]
) -> None:
    with pytest.raises(error, match=field):
        TwilioWire().receive(a_start(**{field: value}))


@pytest.mark.parametrize("start", [None, [], "MZ1", 5])
def test_a_start_without_a_body_is_malformed(start: object) -> None:
    with pytest.raises(MalformedRequest):
        TwilioWire().receive(json.dumps({"event": "start", "start": start}))


def test_the_stream_sid_may_stand_outside_only() -> None:
    message = json.loads(a_start(streamSid=...)) | {"streamSid": "MZ.outside_1-a"}
    event = TwilioWire().receive(json.dumps(message))
    assert isinstance(event, StreamStarted)
    assert event.stream_sid == "MZ.outside_1-a"


@pytest.mark.parametrize(
    ("tracks", "expected"),
    [
        (["inbound"], (Track.INBOUND,)),
        (["outbound"], (Track.OUTBOUND,)),
        (["outbound", "inbound", "inbound"], (Track.INBOUND, Track.OUTBOUND)),
        (["inbound_track", "sideways", 7, {}], (Track.INBOUND,)),
        (["sideways"], (Track.INBOUND,)),
        ([], (Track.INBOUND,)),
        ({}, (Track.INBOUND,)),
        ("outbound", (Track.INBOUND,)),
        (None, (Track.INBOUND,)),
        (..., (Track.INBOUND,)),
    ],
)
def test_tracks_are_read_and_default_to_the_caller(
    tracks: object, expected: tuple[Track, ...]
) -> None:
    assert start_of(tracks=tracks).tracks == expected


@pytest.mark.parametrize("params", [..., None, [], "a=b", [["a", "b"]], 5])
def test_parameters_that_are_no_mapping_are_none(params: object) -> None:
    assert start_of(customParameters=params).params == {}


def test_parameters_become_text_and_nested_ones_are_left_out() -> None:
    params = {"a": "b", "n": 5, "f": 1.5, "t": True, "x": None, "l": [1], "m": {"a": 1}, "": ""}
    expected = {"a": "b", "n": "5", "f": "1.5", "t": "true", "": ""}
    assert start_of(customParameters=params).params == expected


def test_a_parameter_that_is_too_long_is_left_out_and_the_call_goes_on() -> None:
    params = {"fits": "a" * 496, "long": "a" * 497, "k" * 501: "", "after": "b"}
    assert start_of(customParameters=params).params == {"fits": "a" * 496, "after": "b"}


def test_at_most_64_parameters_are_kept() -> None:
    params = {f"name{number}": str(number) for number in range(70)}
    assert start_of(customParameters=params).params == dict(list(params.items())[:64])


def test_an_account_that_is_no_id_is_not_taken_along() -> None:
    assert start_of(accountSid="a b").account_sid == ""
    assert start_of(accountSid=...).account_sid == ""


# ------------------------------------------------------------------------- order

ONE_OF_EACH = {
    "connected": connected_message(),
    "start": a_start(),
    "media": a_media(),
    "dtmf": dtmf_message(STREAM, "1", seq=5),
    "mark": mark_message(STREAM, "a", seq=5),
    "stop": stop_message(STREAM, CALL, seq=5),
}


@pytest.mark.parametrize("name", ["dtmf", "mark", "stop"])
def test_before_start_a_message_is_ignored(name: str) -> None:
    assert TwilioWire().receive(ONE_OF_EACH[name]) == Ignored("before_start", 5)


def test_before_start_media_is_rejected_and_a_bad_one_says_why() -> None:
    wire = TwilioWire()
    assert wire.receive(a_media()) == MediaRejected("before_start", Track.INBOUND, 4)
    assert wire.receive(a_media(payload="!")) == MediaRejected("bad_base64", Track.INBOUND, 4)
    assert wire.state is StreamState.CONNECTING


def test_connected_is_harmless_before_start_and_ignored_after() -> None:
    wire = TwilioWire()
    assert [wire.receive(connected_message()) for _ in range(3)] == [Connected("Call", "1.0.0")] * 3
    assert isinstance(wire.receive(a_start()), StreamStarted)
    assert wire.receive(connected_message()) == Ignored("late_connected")


@pytest.mark.parametrize(
    "second",
    [a_start(), a_start(streamSid="MZother"), a_start(callSid=...), a_start(mediaFormat=0)],
)
def test_a_second_start_is_ignored_however_broken(second: str) -> None:
    wire = started(encoding="audio/x-l16")
    assert wire.receive(second) == Ignored("second_start", 1)
    # The first one's format stands.
    assert wire.receive(a_media(payload="AAAA")) == MediaRejected("odd_length", Track.INBOUND, 4)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("connected", Ignored("after_stop")),
        ("start", Ignored("after_stop", 1)),
        ("media", MediaRejected("after_stop", Track.INBOUND, 4)),
        ("dtmf", Ignored("after_stop", 5)),
        ("mark", Ignored("after_stop", 5)),
        ("stop", Ignored("after_stop", 5)),
    ],
)
def test_nothing_counts_after_stop(name: str, expected: WireEvent) -> None:
    wire = started()
    wire.receive(ONE_OF_EACH["stop"])
    assert wire.receive(ONE_OF_EACH[name]) == expected
    assert wire.state is StreamState.STOPPED


def test_a_start_that_is_refused_leaves_room_for_a_good_one() -> None:
    wire = TwilioWire()
    with pytest.raises(UnsupportedFormat):
        wire.receive(a_start(mediaFormat=None))
    assert isinstance(wire.receive(a_start()), StreamStarted)


# ---------------------------------------------------------------------- captures


CAPTURES = [
    path for path in sorted(DIRECTORY.glob("*.jsonl")) if not path.name.startswith("exotel_")
]


def told(path: Path) -> list[WireEvent]:
    wire = TwilioWire()
    return [wire.receive(message.message) for message in read_capture(path)]


def summary(events: list[WireEvent]) -> Counter[str]:
    """Count events by their kind, and by their reason where they have one."""
    return Counter(
        event.reason
        if isinstance(event, MediaRejected | Ignored | Unreadable)
        else re.sub(r"Received$|^Stream", "", type(event).__name__)
        for event in events
    )


CALL_OF: Counter[str] = Counter(Connected=1, Started=1, Stopped=1)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("speech", Counter(Media=454)),
        ("two_tracks", Counter(Media=200)),
        ("dtmf_and_mark", Counter(Media=3, Dtmf=2, Mark=1)),
        ("no_stop", Counter(Media=3, Stopped=-1)),
        ("media_before_start", Counter(Media=2, before_start=2)),
        ("second_start", Counter(Media=2, second_start=1)),
        ("unknown_event", Counter(Media=2, unknown_event=1)),
        ("broken_json", Counter(Media=2, broken_json=4)),
        ("truncated_base64", Counter(Media=2, bad_base64=6, empty_payload=1)),
        (
            "wrong_types",
            Counter(Media=6, not_an_object=3, no_event=2, bad_media=5, bad_track=2),
        ),
        *((name, Counter(Media=4)) for name in ("seq_gap", "seq_repeat", "seq_jump")),
        ("seq_negative", Counter(Media=4)),
    ],
)
def test_each_capture_tells_its_case(name: str, expected: Counter[str]) -> None:
    counts = summary(told(DIRECTORY / f"{name}.jsonl"))
    counts.subtract(CALL_OF)
    assert {key: count for key, count in counts.items() if count} == expected


def test_every_capture_has_its_case() -> None:
    marks = test_each_capture_tells_its_case.pytestmark  # type: ignore[attr-defined]
    assert {f"{case[0]}.jsonl" for case in marks[0].args[1]} == {path.name for path in CAPTURES}


def test_the_speech_comes_out_of_its_capture_frame_by_frame() -> None:
    media = [event for event in told(DIRECTORY / "speech.jsonl") if type(event) is MediaReceived]
    assert [event.payload for event in media] == speech_frames()
    assert [event.seq for event in media] == list(range(2, 456))
    assert [event.ts for event in media] == list(range(0, 9080, 20))


def test_two_tracks_are_told_apart() -> None:
    media = [
        event for event in told(DIRECTORY / "two_tracks.jsonl") if type(event) is MediaReceived
    ]
    spoken = speech_frames()[SPOKEN:]
    tracks = {track: [event.payload for event in media if event.track is track] for track in Track}
    assert tracks == {Track.INBOUND: spoken[:100], Track.OUTBOUND: spoken[200:300]}


def test_a_frame_decodes_to_the_samples_that_its_codes_stand_for() -> None:
    message = (
        '{"event":"media","sequenceNumber":"2","media":{"track":"inbound","chunk":"1",'
        '"timestamp":"171","payload":"/37+ffzvgABvqlUq"},"streamSid":"MZ1"}'
    )
    event = read(message)
    assert isinstance(event, MediaReceived)
    audio = mulaw_to_pcm16(event.payload)
    samples = [int.from_bytes(audio[at : at + 2], "little", signed=True) for at in range(0, 24, 2)]
    assert samples == [0, -8, 8, -16, 24, 132, 32124, -32124, -132, 5372, -716, -5372]


# ------------------------------------------------------------------ anything at all

REAL = [
    text for path in CAPTURES for text in [message.message for message in read_capture(path)][:12]
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(REAL),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=4,
)
NAMES = st.sampled_from(["connected", "start", "media", "dtmf", "mark", "stop", "clear", ""])
KEYS = ["streamSid", "callSid", "accountSid", "tracks", "mediaFormat", "customParameters"]
KEYS += ["track", "chunk", "timestamp", "payload", "digit", "name", "encoding", "sampleRate"]
BODIES = st.dictionaries(st.sampled_from([*KEYS, "channels"]), JSON, max_size=4) | JSON
MESSAGES = st.fixed_dictionaries(
    {"event": NAMES | JSON},
    optional={"sequenceNumber": JSON}
    | {name: BODIES for name in ("start", "media", "dtmf", "mark", "stop")},
).map(json.dumps)


ANYTHING = st.one_of(
    st.text(st.characters(categories=None)),
    st.binary(),
    JSON.map(json.dumps),
    MESSAGES,
    damaged(REAL),
    st.sampled_from(REAL),
)


@settings(max_examples=examples(1000))
@given(message=ANYTHING, is_started=st.booleans())
def test_whatever_comes_is_answered_by_an_event_or_a_refused_start(
    message: str | bytes, is_started: bool
) -> None:
    wire = started() if is_started else TwilioWire()
    before = wire.state
    try:
        event = wire.receive(message)
    except (MalformedRequest, InvalidIdentifier, UnsupportedFormat):
        assert before is wire.state is StreamState.CONNECTING
    else:
        assert isinstance(event, WireEvent)
        assert not isinstance(event, MediaReceived) or (is_started and event.payload)
