"""Exotel's messages: what each means, in all the forms that its pages and samples show."""

import base64
import json
from collections import Counter
from collections.abc import Mapping
from itertools import count
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import InvalidIdentifier, UnsupportedFormat
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
from app.wire.exotel import (
    ExotelWire,
    connected_message,
    dtmf_message,
    mark_message,
    media_message,
    start_message,
    stop_message,
)
from tests.captures.make_captures import DIRECTORY, exotel_frames, speech_frames
from tests.examples import examples
from tests.messages import damaged

STREAM = "f3b1c2d4e5a60718293a4b5c6d7e8f90"
CALL = "0a1b2c3d4e5f60718293a4b5c6d7e8f9"
ACCOUNT = "example1m"
PAYLOAD = bytes(range(160))
PCM16_8K = MediaFormat(Encoding.PCM16, 8000)
MULAW_8K = MediaFormat(Encoding.MULAW, 8000)
RAW: dict[str, Any] = {"encoding": "audio/x-raw", "sample_rate": "8000", "bit_rate": "16"}


def pcm16(sample_rate: int) -> MediaFormat:
    return MediaFormat(Encoding.PCM16, sample_rate)


def a_wire(query: Mapping[str, str] | None = None, default_sample_rate: int = 24000) -> ExotelWire:
    numbers = count(1)
    return ExotelWire(
        new_id=lambda: f"id{next(numbers)}",
        default_sample_rate=default_sample_rate,
        query=query or {},
    )


def a_start(**changes: Any) -> str:
    """Write a `start` with some fields of its body changed; `...` takes one out."""
    body = {"stream_sid": STREAM, "call_sid": CALL, "account_sid": ACCOUNT, "media_format": RAW}
    body |= {"from": "+919876500001", "to": "+918047400002", "custom_parameters": {}} | changes
    body = {name: value for name, value in body.items() if value is not ...}
    return json.dumps({"event": "start", "sequence_number": "1", "start": body})


def a_media(seq: Any = "4", **changes: Any) -> str:
    """Write a media message with some fields of `media` changed; `...` takes one out."""
    media = {"chunk": "2", "timestamp": "200", "payload": "AAECAw=="} | changes
    media = {name: value for name, value in media.items() if value is not ...}
    return json.dumps({"event": "media", "sequence_number": seq, "media": media})


def started(query: Mapping[str, str] | None = None, **changes: Any) -> ExotelWire:
    wire = a_wire(query)
    assert isinstance(wire.receive(a_start(**changes)), StreamStarted)
    return wire


def read(message: str | bytes) -> WireEvent:
    """Read a message in the middle of a call."""
    return started().receive(message)


def start_of(
    message: str | None = None, *, query: Mapping[str, str] | None = None, **changes: Any
) -> StreamStarted:
    event = a_wire(query).receive(message or a_start(**changes))
    assert isinstance(event, StreamStarted)
    return event


# ------------------------------------------------------ what Exotel's page prints


def test_the_messages_of_the_page_are_written_to_the_letter() -> None:
    start = start_message(
        "S", "C", account_sid="A", from_number="+91", to_number="+92", params={"key1": "value1"}
    )
    assert connected_message() == '{"event":"connected"}'
    assert start == (
        '{"event":"start","sequence_number":"1","stream_sid":"S","start":{"stream_sid":"S",'
        '"call_sid":"C","account_sid":"A","from":"+91","to":"+92",'
        '"custom_parameters":{"key1":"value1"},"media_format":{"encoding":"audio/x-raw",'
        '"sample_rate":"8000","bit_rate":"16"}}}'
    )
    assert media_message("S", b"\x9e\x8f\x89", seq=3, chunk=2, timestamp=200) == (
        '{"event":"media","sequence_number":"3","stream_sid":"S",'
        '"media":{"chunk":"2","timestamp":"200","payload":"no+J"}}'
    )
    assert dtmf_message("S", "5", seq=7) == (
        '{"event":"dtmf","sequence_number":"7","stream_sid":"S",'
        '"dtmf":{"digit":"5","duration":"100"}}'
    )
    assert mark_message("S", "my-label", seq=15) == (
        '{"event":"mark","sequence_number":"15","stream_sid":"S","mark":{"name":"my-label"}}'
    )
    assert stop_message("S", "C", seq=20, account_sid="A") == (
        '{"event":"stop","sequence_number":"20","stream_sid":"S",'
        '"stop":{"call_sid":"C","account_sid":"A","reason":"callended"}}'
    )


def test_what_is_written_is_read_back() -> None:
    wire = a_wire()
    params = {"agent": "7", "name": 'Zoë "Z" <&>\n'}
    start = start_message(
        STREAM,
        CALL,
        account_sid=ACCOUNT,
        from_number="+919876500001",
        to_number="08047400002",
        params=params,
        sample_rate=16000,
    )
    assert wire.receive(connected_message()) == Connected()
    assert wire.receive(start) == StreamStarted(
        STREAM,
        CALL,
        pcm16(16000),
        (Track.INBOUND,),
        params,
        ACCOUNT,
        1,
        "+919876500001",
        "08047400002",
    )
    media = media_message(STREAM, PAYLOAD, seq=2, chunk=1, timestamp=100)
    assert wire.receive(media) == MediaReceived(PAYLOAD, Track.INBOUND, 2, 100)
    assert wire.receive(dtmf_message(STREAM, "#", seq=3)) == DtmfReceived("#", 3)
    assert wire.receive(mark_message(STREAM, "my-label", seq=4)) == MarkReceived("my-label", 4)
    assert wire.receive(stop_message(STREAM, CALL, seq=5)) == StreamStopped(5, "callended")


def test_exotel_is_answered_nothing() -> None:
    wire = started()
    assert wire.started_reply() is None
    assert wire.ack(10) is None


# ------------------------------------------------------------------------- media


@pytest.mark.parametrize(
    ("message", "seq", "ts"),
    [
        (a_media(), 4, 200),
        (a_media(seq=4, timestamp=200, chunk=2), 4, 200),
        (a_media().replace("sequence_number", "sequenceNumber"), 4, 200),
        (a_media(seq=0).replace("}}", '},"sequenceNumber":9}'), 0, 200),
        (a_media(seq=None).replace("}}", '},"sequenceNumber":9}'), 9, 200),
        (a_media().replace("payload", "Payload").replace("event", "Event"), 4, 200),
        ('{"Event":"Media","sequence_number":4,"timestamp":"200","Payload":"AAECAw=="}', 4, 200),
        ('{"event":"media","sequenceNumber":"4","payload":"AAECAw=="}', 4, None),
        (a_media(timestamp="2025-06-01T12:00:00Z"), 4, None),
        (a_media(timestamp=...), 4, None),
        (a_media(timestamp=None, track=None), 4, None),
        (a_media(seq="-7"), -7, 200),
        (a_media(seq=-7), -7, 200),
        (a_media(seq=2**70), None, 200),
        (a_media(seq="9" * 30), None, 200),
        (a_media(seq="four"), None, 200),
        (a_media(seq=None), None, 200),
    ],
)
@pytest.mark.parametrize("as_binary", [False, True])
def test_media_is_read_in_every_spelling(
    message: str, seq: int | None, ts: int | None, as_binary: bool
) -> None:
    expected = MediaReceived(b"\0\1\2\3", Track.INBOUND, seq, ts)
    assert read(message.encode() if as_binary else message) == expected


@pytest.mark.parametrize("name", ["inbound", "outbound"])
def test_the_beta_pages_track_is_read(name: str) -> None:
    assert read(a_media(track=name)) == MediaReceived(b"\0\1\2\3", Track(name), 4, 200)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ('{"event":"media","sequence_number":"4"}', MediaRejected("bad_media", Track.INBOUND, 4)),
        (a_media(payload=...), MediaRejected("bad_media", Track.INBOUND, 4)),
        (a_media(payload=None), MediaRejected("bad_media", Track.INBOUND, 4)),
        (a_media(payload=7), MediaRejected("bad_media", Track.INBOUND, 4)),
        (a_media(payload=["AAAA"]), MediaRejected("bad_media", Track.INBOUND, 4)),
        ('{"event":"media","media":["AAAA"]}', MediaRejected("bad_media", Track.INBOUND, None)),
        (a_media(track="sideways"), MediaRejected("bad_track", None, 4)),
        (a_media(track=7), MediaRejected("bad_track", None, 4)),
        (a_media(payload="AAE"), MediaRejected("bad_base64", Track.INBOUND, 4)),
        (a_media(payload="AA!A"), MediaRejected("bad_base64", Track.INBOUND, 4)),
        (a_media(payload="AAECAw==\n"), MediaRejected("bad_base64", Track.INBOUND, 4)),
        (a_media(payload=""), MediaRejected("empty_payload", Track.INBOUND, 4)),
        (a_media(payload="AAEC"), MediaRejected("odd_length", Track.INBOUND, 4)),
        (b"", MediaRejected("empty_payload", Track.INBOUND)),
        (b"abc", MediaRejected("odd_length", Track.INBOUND)),
    ],
)
def test_media_that_cannot_be_used_is_rejected_and_keeps_its_number(
    message: str | bytes, expected: MediaRejected
) -> None:
    assert read(message) == expected


@pytest.mark.parametrize("size", [2, 160, 320, 322, 1600, 3200, 40000])
def test_frames_may_have_any_even_length(size: int) -> None:
    payload = bytes(size)
    message = media_message(STREAM, payload, seq=2, chunk=1, timestamp=0)
    assert read(message) == MediaReceived(payload, Track.INBOUND, 2, 0)
    assert read(payload) == MediaReceived(payload)


def test_mulaw_may_have_an_odd_length() -> None:
    wire = started(media_format="mulaw")
    assert wire.receive(a_media(payload="AAEC")) == MediaReceived(b"\0\1\2", Track.INBOUND, 4, 200)
    assert wire.receive(b"abc") == MediaReceived(b"abc")


@given(
    payload=st.binary(min_size=1, max_size=400).map(lambda audio: audio + audio),
    seq=st.integers(-(2**63), 2**63 - 1),
    timestamp=st.integers(-(2**63), 2**63 - 1),
)
def test_any_media_is_read_back(payload: bytes, seq: int, timestamp: int) -> None:
    message = media_message(STREAM, payload, seq=seq, chunk=1, timestamp=timestamp)
    assert read(message) == MediaReceived(payload, Track.INBOUND, seq, timestamp)


# ----------------------------------------------------------------- binary frames


@pytest.mark.parametrize(
    "audio",
    [
        *(b"{}", b"{\xff", b'{"event":7}', b'{"a":"media"}', b'{"event":"media"', b"[]", b"7 "),
        b'{"event":"\xff\xff"}',
    ],
)
def test_a_binary_frame_that_is_no_message_is_audio(audio: bytes) -> None:
    even = audio + b" " * (len(audio) % 2)
    assert read(even) == MediaReceived(even)


@pytest.mark.parametrize("message", ["start", " \t\r\n start"])
def test_a_start_in_a_binary_frame_is_read(message: str) -> None:
    wire = a_wire()
    binary = message.replace("start", a_start()).encode()
    assert wire.implied_start(binary) is None
    assert isinstance(wire.receive(binary), StreamStarted)


@pytest.mark.parametrize(
    ("query", "default", "rate"),
    [
        ({}, 24000, 24000),
        ({}, 16000, 16000),
        ({"sample-rate": "8000"}, 24000, 8000),
        ({"sample_rate": "16000"}, 24000, 16000),
        ({"sample-rate": "16kHz"}, 24000, 16000),
        ({"sample-rate": ""}, 24000, 24000),
    ],
)
def test_binary_audio_without_a_start_starts_a_stream(
    query: dict[str, str], default: int, rate: int
) -> None:
    wire = a_wire(query, default)
    started = wire.implied_start(PAYLOAD)
    assert started == StreamStarted("exotel-id1", "exotel-id1", pcm16(rate))
    assert wire.state is StreamState.STARTED
    assert wire.receive(PAYLOAD) == MediaReceived(PAYLOAD)
    assert wire.implied_start(PAYLOAD) is None
    assert wire.receive(b"abc") == MediaRejected("odd_length", Track.INBOUND)
    assert wire.receive(a_start()) == Ignored("second_start", 1)


def test_an_implied_stream_takes_its_call_and_its_parameters_from_the_url() -> None:
    started = a_wire({"callSid": CALL, "agent": "7", "ticket": "t"}).implied_start(PAYLOAD)
    assert started is not None
    assert (started.call_sid, started.params) == (CALL, {"agent": "7"})


@pytest.mark.parametrize(
    "message", ["", "AAAA", a_media(), a_start(), b"", b"abc", a_media().encode()]
)
def test_nothing_but_whole_samples_implies_a_start(message: str | bytes) -> None:
    wire = a_wire()
    assert wire.implied_start(message) is None
    assert wire.state is StreamState.CONNECTING


def test_after_stop_binary_audio_starts_nothing() -> None:
    wire = started()
    wire.receive(stop_message(STREAM, CALL, seq=5))
    assert wire.implied_start(PAYLOAD) is None
    assert wire.receive(PAYLOAD) == MediaRejected("after_stop", Track.INBOUND)


@pytest.mark.parametrize(
    ("query", "error"),
    [
        ({"sample-rate": "44100"}, UnsupportedFormat),
        ({"sample-rate": "fast"}, UnsupportedFormat),
        ({"callSid": "a b"}, InvalidIdentifier),
    ],
)
def test_a_url_that_cannot_be_read_starts_nothing(
    query: dict[str, str], error: type[Exception]
) -> None:
    wire = a_wire(query)
    with pytest.raises(error):
        wire.implied_start(PAYLOAD)
    assert wire.state is StreamState.CONNECTING


# ------------------------------------------------------------------------- start


@pytest.mark.parametrize(
    ("declared", "expected"),
    [
        (..., PCM16_8K),
        (None, PCM16_8K),
        ({}, PCM16_8K),
        ([], PCM16_8K),
        ("", PCM16_8K),
        *(
            (RAW | {"encoding": name}, PCM16_8K)
            for name in ("raw", "audio/x-raw", "raw/slin", "audio/x-l16", "base64", "RAW", None)
        ),
        ("raw/slin", PCM16_8K),
        ("audio/L16;rate=16000", pcm16(16000)),
        *(
            (RAW | {"encoding": name}, MULAW_8K)
            for name in ("audio/x-mulaw", "mulaw", "audio/x-mulaw;rate=8000", "audio/X-MULAW")
        ),
        ("audio/x-mulaw;rate=8000", MULAW_8K),
        ("audio/x-mulaw; rate=16000; channels=1", MediaFormat(Encoding.MULAW, 16000)),
        ({"encoding": "audio/L16;rate=16000", "sample_rate": "24000"}, pcm16(24000)),
        *((RAW | {"sample_rate": rate}, PCM16_8K) for rate in ("8000", 8000, "8000Hz", "8kHz")),
        *((RAW | {"sample_rate": rate}, PCM16_8K) for rate in (None, "", " 8000 hz ", "8k")),
        *((RAW | {"sample_rate": r}, pcm16(16000)) for r in ("16kHz", 16000.0)),
        ({"encoding": "raw", "sampleRate": "24000"}, pcm16(24000)),
        *((RAW | {"bit_rate": rate}, PCM16_8K) for rate in ("128", "128kbps", 16, None, [])),
        (RAW | {"channels": "1"}, PCM16_8K),
    ],
)
def test_the_format_is_read_in_every_form(declared: object, expected: MediaFormat) -> None:
    assert start_of(media_format=declared).format == expected


@pytest.mark.parametrize("name", ["sample-rate", "sample_rate"])
def test_the_urls_rate_holds_where_start_names_none(name: str) -> None:
    url = {name: "24000"}
    assert start_of(query=url, media_format=...).format.sample_rate == 24000
    assert start_of(query=url, media_format="mulaw").format.sample_rate == 24000
    assert start_of(query=url, media_format="mulaw;rate=8000").format.sample_rate == 8000
    assert start_of(query=url).format.sample_rate == 8000


@pytest.mark.parametrize(
    "declared",
    [
        *(RAW | {"sample_rate": r} for r in (0, "0", -8000, 11025, "44.1kHz", 48000, 8e9, [8000])),
        *(RAW | {"encoding": name} for name in ("audio/opus", "g729", 5, ["raw"])),
        *(RAW | {"channels": channels} for channels in (0, 2, "stereo")),
        "audio/opus",
        "audio/x-mulaw;rate=fast",
    ],
)
def test_a_format_that_cannot_be_read_is_refused(declared: object) -> None:
    wire = a_wire()
    with pytest.raises(UnsupportedFormat):
        wire.receive(a_start(media_format=declared))
    assert wire.state is StreamState.CONNECTING
    assert isinstance(wire.receive(a_start()), StreamStarted)


def test_a_bad_rate_in_the_url_is_refused_where_it_counts() -> None:
    with pytest.raises(UnsupportedFormat):
        start_of(query={"sample-rate": "44100"}, media_format=...)
    assert start_of(query={"sample-rate": "44100"}).format == PCM16_8K


def test_start_may_be_flat_nested_or_both_and_in_either_spelling() -> None:
    expected = start_of()
    nested: dict[str, Any] = json.loads(a_start())
    flat = {**nested, **nested["start"]}
    del flat["start"]
    assert start_of(json.dumps(flat)) == expected
    assert start_of(json.dumps(flat | {"start": None})) == expected
    assert start_of(json.dumps(flat | {"start": {"call_sid": CALL}})) == expected
    camel = (
        a_start()
        .replace("stream_sid", "streamSid")
        .replace("call_sid", "callSid")
        .replace("account_sid", "accountSid")
        .replace("media_format", "mediaFormat")
        .replace("sample_rate", "sampleRate")
        .replace("custom_parameters", "customParameters")
        .replace("sequence_number", "sequenceNumber")
        .replace('"event"', '"Event"')
    )
    assert start_of(camel) == expected


def test_a_flat_start_may_name_its_format_beside_its_ids() -> None:
    message = '{"event":"start","stream_sid":"S","sample_rate":24000,"encoding":"pcm16"}'
    assert start_of(message).format == pcm16(24000)


def test_the_numbers_are_taken_as_text_and_a_silly_one_is_left_out() -> None:
    started = start_of(a_start(**{"from": 919876500001, "to": "1" * 129}))
    assert (started.from_number, started.to_number) == ("919876500001", "")
    started = start_of(a_start(**{"from": ["+91"], "to": ...}))
    assert (started.from_number, started.to_number) == ("", "")


@pytest.mark.parametrize("missing", [..., None, ""])
def test_ids_that_are_missing_are_made(missing: object) -> None:
    started = start_of(stream_sid=missing, call_sid=missing)
    assert (started.stream_sid, started.call_sid) == ("exotel-id1", "exotel-id1")
    assert start_of(call_sid=missing).call_sid == STREAM
    assert start_of(query={"callSid": "C1"}, call_sid=missing).call_sid == "C1"
    assert start_of(query={"callSid": "C1"}).call_sid == CALL


def test_an_id_may_be_a_number() -> None:
    started = start_of(stream_sid=17, call_sid=18)
    assert (started.stream_sid, started.call_sid) == ("17", "18")


@pytest.mark.parametrize("field", ["stream_sid", "call_sid"])
@pytest.mark.parametrize("value", ["a b", "a\n", "a:b{c}", "é", "a" * 129, ["S"], {"a": 1}])
def test_an_id_that_is_none_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(InvalidIdentifier, match=field):
        start_of(a_start(**{field: value}))


def test_an_account_that_is_no_id_is_not_taken_along() -> None:
    assert start_of(account_sid="a b").account_sid == ""


@pytest.mark.parametrize(
    ("tracks", "expected"),
    [
        (["inbound", "outbound"], (Track.INBOUND, Track.OUTBOUND)),
        (["outbound_track"], (Track.OUTBOUND,)),
        *((tracks, (Track.INBOUND,)) for tracks in (..., None, [], "both", ["sideways", 7])),
    ],
)
def test_tracks_default_to_the_caller(tracks: object, expected: tuple[Track, ...]) -> None:
    assert start_of(tracks=tracks).tracks == expected


# -------------------------------------------------------------------- parameters


def test_the_url_gives_three_parameters_besides_our_own() -> None:
    own = ["sample-rate", "sample_rate", "ticket", "businessId", "callSid", "from", "to", "plan"]
    url = dict.fromkeys(own, "8000") | {"a": "1", "b": "2", "c": "3", "d": "4"}
    assert start_of(query=url).params == {"a": "1", "b": "2", "c": "3"}


@pytest.mark.parametrize("params", [..., None, "", "a=b", [], [["a", "b"]], 5])
def test_parameters_that_are_no_mapping_are_none(params: object) -> None:
    assert start_of(custom_parameters=params).params == {}


def test_what_start_says_wins_over_connected_and_that_over_the_url() -> None:
    wire = a_wire({"a": "url", "b": "url", "c": "url"})
    greeting = {"event": "connected", "custom_parameters": {"b": "connected", "c": "connected"}}
    assert wire.receive(json.dumps(greeting)) == Connected()
    assert wire.receive(connected_message()) == Connected()
    event = wire.receive(a_start(custom_parameters={"c": "start", "n": 5, "t": True, "l": [1]}))
    assert isinstance(event, StreamStarted)
    expected = {"a": "url", "b": "connected", "c": "start", "n": "5", "t": "true"}
    assert event.params == expected


def test_connected_may_be_nested_and_say_more() -> None:
    wire = a_wire()
    body = {"customParameters": {"a": "1"}, "protocol": "Call", "version": "1.0.0"}
    message = json.dumps({"event": "connected", "connected": body, "timestamp": "now"})
    assert wire.receive(message) == Connected("Call", "1.0.0")
    event = wire.receive(a_start())
    assert isinstance(event, StreamStarted)
    assert event.params == {"a": "1"}


def test_parameters_are_bounded() -> None:
    long = {"fits": "a" * 496, "long": "a" * 497, "k" * 501: ""}
    assert start_of(custom_parameters=long).params == {"fits": "a" * 496}
    many = {f"name{number}": str(number) for number in range(70)}
    assert start_of(custom_parameters=many).params == dict(list(many.items())[:64])


# ---------------------------------------------------------------- other messages


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("", Ignored("empty_message")),
        (" \t\r\n", Ignored("empty_message")),
        ("Hello?", Unreadable("broken_json")),
        (a_media()[:-1], Unreadable("broken_json")),
        ("\ufeff" + a_media(), Unreadable("broken_json")),
        ('{"event":"\\ud800"}', Unreadable("broken_json")),
        (a_media().replace("}", "\ud800}"), Unreadable("broken_json")),
        ("[" * 60000, Unreadable("broken_json")),
        ("[]", Unreadable("not_an_object")),
        ("null", Unreadable("not_an_object")),
        ("{}", Unreadable("no_event")),
        ('{"event":["media"]}', Unreadable("no_event")),
        ('{"event":null,"Event":7}', Unreadable("no_event")),
        ('{"event":"rewind","sequenceNumber":"9"}', Ignored("unknown_event", 9)),
        ('{"event":"clear","sequence_number":9,"stream_sid":"S"}', Ignored("clear", 9)),
        ('{"event":"silence"}', Ignored("silence")),
        ('{"event":"dtmf","digit":"5"}', DtmfReceived("5")),
        ('{"event":"dtmf","sequence_number":"5","dtmf":{"digit":5}}', DtmfReceived("5", 5)),
        *(
            (json.dumps({"event": "dtmf", "dtmf": dtmf}), Ignored("bad_dtmf"))
            for dtmf in (None, [], "5", {}, {"digit": ""}, {"digit": "12"}, {"digit": "E"})
        ),
        ('{"event":"mark","name":"flat"}', MarkReceived("flat")),
        *(
            (json.dumps({"event": "mark", "mark": mark}), Ignored("bad_mark"))
            for mark in (None, [], {}, {"name": ""}, {"name": 7}, {"name": "a" * 501})
        ),
    ],
)
def test_every_other_message_has_its_answer(message: str, expected: WireEvent) -> None:
    wire = started()
    assert wire.receive(message) == expected
    assert wire.state is StreamState.STARTED
    assert isinstance(wire.receive(a_media()), MediaReceived)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ('{"event":"stop"}', StreamStopped()),
        ('{"event":"stop","sequenceNumber":9,"reason":"stopped"}', StreamStopped(9, "stopped")),
        ('{"event":"stop","stop":{"reason":["x"]}}', StreamStopped()),
        (json.dumps({"event": "stop", "stop": {"reason": "x" * 129}}), StreamStopped()),
        ('{"event":"closed"}', StreamStopped()),
    ],
)
def test_stop_and_closed_end_the_stream(message: str, expected: StreamStopped) -> None:
    wire = started()
    assert wire.receive(message) == expected
    assert wire.state is StreamState.STOPPED
    assert wire.receive(a_media()) == MediaRejected("after_stop", Track.INBOUND, 4)
    assert wire.receive(message) == Ignored("after_stop", expected.seq)


# ------------------------------------------------------------------------- order


def test_before_start_media_is_rejected_and_the_rest_ignored() -> None:
    wire = a_wire()
    odd = a_media(payload="AAEC")
    assert wire.receive(odd) == MediaRejected("before_start", Track.INBOUND, 4)
    assert wire.receive(b"abc") == MediaRejected("before_start", Track.INBOUND)
    assert wire.receive(dtmf_message(STREAM, "1", seq=5)) == Ignored("before_start", 5)
    assert wire.receive('{"event":"closed"}') == Ignored("before_start")
    assert wire.state is StreamState.CONNECTING


@pytest.mark.parametrize("second", [a_start(stream_sid="other"), a_start(media_format="opus")])
def test_a_second_start_is_ignored_however_broken(second: str) -> None:
    wire = started()
    assert wire.receive(second) == Ignored("second_start", 1)
    # The first one's format stands.
    assert wire.receive(a_media(payload="AAEC")) == MediaRejected("odd_length", Track.INBOUND, 4)


def test_a_late_connected_is_ignored() -> None:
    assert read(connected_message()) == Ignored("late_connected")


# ---------------------------------------------------------------------- captures

CAPTURES = sorted(DIRECTORY.glob("exotel_*.jsonl"))


def told(name: str) -> list[WireEvent]:
    wire = a_wire()
    return [
        wire.receive(message.message)
        for message in read_capture(DIRECTORY / f"exotel_{name}.jsonl")
    ]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("speech", Counter(MediaReceived=91)),
        ("dtmf_and_mark", Counter(MediaReceived=1, DtmfReceived=1, MarkReceived=1, clear=1)),
        ("camel_case", Counter(MediaReceived=2)),
        ("flat", Counter(MediaReceived=2)),
        ("beta", Counter(MediaReceived=1, DtmfReceived=1, silence=1)),
        ("media_before_start", Counter(MediaReceived=2, before_start=1)),
        (
            "broken_media",
            Counter(
                MediaReceived=2,
                bad_base64=1,
                empty_payload=1,
                odd_length=1,
                bad_media=1,
                bad_track=1,
            ),
        ),
        ("numbers", Counter(MediaReceived=10)),
    ],
)
def test_each_capture_tells_its_case(name: str, expected: Counter[str]) -> None:
    counts = Counter(
        event.reason
        if isinstance(event, MediaRejected | Ignored | Unreadable)
        else type(event).__name__
        for event in told(name)
    )
    assert counts == expected + Counter(Connected=1, StreamStarted=1, StreamStopped=1)


def test_every_capture_has_its_case() -> None:
    marks = test_each_capture_tells_its_case.pytestmark  # type: ignore[attr-defined]
    assert {f"exotel_{case[0]}.jsonl" for case in marks[0].args[1]} == {
        path.name for path in CAPTURES
    }


def test_the_speech_comes_out_of_its_capture_frame_by_frame() -> None:
    media = [event for event in told("speech") if isinstance(event, MediaReceived)]
    assert [event.payload for event in media] == exotel_frames()
    assert [(event.seq, event.ts) for event in media] == [(n + 2, n * 100) for n in range(91)]


def test_the_spellings_tell_the_same_call() -> None:
    assert told("camel_case") == told("flat")
    assert told("flat")[:3] == told("dtmf_and_mark")[:3]


def test_the_beta_pages_call_is_mulaw() -> None:
    events = told("beta")
    assert events[1] == StreamStarted(STREAM, CALL, MULAW_8K, params={"agent": "7"})
    assert events[2] == MediaReceived(speech_frames()[25], Track.INBOUND, None, 0)


def test_numbers_are_told_as_they_are_and_those_beyond_64_bits_not_at_all() -> None:
    seqs = [event.seq for event in told("numbers") if isinstance(event, MediaReceived)]
    assert seqs == [2, 3, 3, 9, 2, -1, -7, 5000, None, None]


# ------------------------------------------------------------------ anything at all

REAL = [
    text for path in CAPTURES for text in [message.message for message in read_capture(path)][:10]
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=12,
)
EVENTS = ["connected", "start", "media", "dtmf", "mark", "stop", "closed", "clear", "silence"]
KEYS = ["stream_sid", "streamSid", "call_sid", "media_format", "mediaFormat", "encoding", "digit"]
KEYS += ["sample_rate", "sampleRate", "custom_parameters", "payload", "Payload", "track", "name"]
KEYS += ["tracks", "from", "to", "reason", "timestamp", "sequence_number", "sequenceNumber"]
VALUES = JSON | st.sampled_from(["raw", "mulaw", "8000", "16kHz", "AAAA", "AAECAw==", "inbound"])
BODIES = st.dictionaries(st.sampled_from([*KEYS, "channels"]), VALUES, max_size=6)
MESSAGES = st.builds(
    lambda name, body, nested, other: json.dumps(
        {"event": name, name: body, **other} if nested else {"event": name, **other, **body}
    ),
    st.sampled_from(EVENTS),
    BODIES,
    st.booleans(),
    BODIES,
)


ANYTHING = st.one_of(
    st.text(st.characters(categories=None)),
    st.binary(),
    st.binary().map(lambda audio: b"{" + audio),
    JSON.map(json.dumps),
    MESSAGES,
    MESSAGES.map(str.encode),
    damaged(REAL),
    st.sampled_from(REAL),
)
URLS = st.dictionaries(
    st.sampled_from(["sample-rate", "sample_rate", "callSid", "ticket", "a", "b"]),
    st.sampled_from(["", "8000", "16000", "44100", "C1", "a b"]),
    max_size=3,
)


@settings(max_examples=examples(1000))
@given(messages=st.lists(ANYTHING, min_size=1, max_size=6), query=URLS)
def test_whatever_comes_is_answered_by_an_event_or_a_refused_start(
    messages: list[str | bytes], query: dict[str, str]
) -> None:
    wire = a_wire(query)
    for message in messages:
        before = wire.state
        try:
            implied = wire.implied_start(message)
            event = wire.receive(message)
        except (InvalidIdentifier, UnsupportedFormat):
            assert before is wire.state is StreamState.CONNECTING
            continue
        assert isinstance(event, WireEvent)
        if implied is not None:
            assert before is StreamState.CONNECTING
            assert event == MediaReceived(bytes(message))  # type: ignore[arg-type]
        if isinstance(event, MediaReceived):
            assert event.payload
            assert before is StreamState.STARTED or implied is not None


@given(payload=st.binary(min_size=1, max_size=200))
def test_audio_is_never_changed_by_the_way_it_comes(payload: bytes) -> None:
    wire = started(media_format="mulaw")
    text = a_media(payload=base64.b64encode(payload).decode())
    event = wire.receive(text)
    assert isinstance(event, MediaReceived)
    assert event.payload == payload
