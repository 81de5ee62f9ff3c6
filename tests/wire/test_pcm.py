"""Own clients' messages: a start that fits its token, frames that are counted, acks."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import (
    BusinessMismatch,
    InvalidIdentifier,
    MalformedRequest,
    RemoteError,
    UnsupportedFormat,
)
from app.events import (
    Ignored,
    MediaReceived,
    MediaRejected,
    StreamStarted,
    StreamStopped,
    Unreadable,
    WireEvent,
)
from app.media import Encoding, MediaFormat, Track
from app.wire.base import StreamState
from app.wire.pcm import PcmWire
from tests.examples import examples

BUSINESS = "tenant-abc"
INTERACTION = "int-123"
FRAME = bytes(range(200)) * 48
STOP = '{"event":"stop"}'


def a_wire(
    interaction_id: str | None = None,
    business_id: str = BUSINESS,
    *,
    ack_interval: int = 10,
    default_sample_rate: int = 24000,
) -> PcmWire:
    return PcmWire(business_id, interaction_id, ack_interval, default_sample_rate)


def a_start(**changes: Any) -> str:
    """Write a `start` with some fields changed; `...` takes one out."""
    fields: dict[str, Any] = {"interaction_id": INTERACTION, "tenant_id": BUSINESS}
    fields |= {"event": "start", "sample_rate": 24000, "encoding": "pcm16"} | changes
    return json.dumps({name: value for name, value in fields.items() if value is not ...})


def start_of(wire: PcmWire | None = None, **changes: Any) -> StreamStarted:
    event = (wire or a_wire()).receive(a_start(**changes))
    assert isinstance(event, StreamStarted)
    return event


def started(**changes: Any) -> PcmWire:
    wire = a_wire()
    start_of(wire, **changes)
    return wire


# ------------------------------------------------------------------------- start


def test_a_start_names_the_stream_by_its_interaction() -> None:
    assert start_of() == StreamStarted(INTERACTION, INTERACTION, MediaFormat(Encoding.PCM16, 24000))


def test_a_started_stream_is_answered_to_the_letter() -> None:
    wire = a_wire()
    assert wire.started_reply() is None
    start_of(wire)
    assert wire.started_reply() == '{"event":"started","interaction_id":"int-123"}'


def test_the_token_may_name_the_interaction_alone() -> None:
    wire = a_wire(INTERACTION)
    assert start_of(wire, interaction_id=..., tenant_id=...).call_sid == INTERACTION
    assert wire.started_reply() == '{"event":"started","interaction_id":"int-123"}'


@pytest.mark.parametrize(
    ("declared", "expected"),
    [
        ({"sample_rate": 8000}, MediaFormat(Encoding.PCM16, 8000)),
        ({"sample_rate": "16000"}, MediaFormat(Encoding.PCM16, 16000)),
        ({"sample_rate": ...}, MediaFormat(Encoding.PCM16, 24000)),
        *(
            ({"encoding": name}, MediaFormat(Encoding.PCM16, 24000))
            for name in ("linear16", "l16", "audio/pcm", "PCM16", None, ..., "")
        ),
        ({"encoding": "mulaw", "sample_rate": 8000}, MediaFormat(Encoding.MULAW, 8000)),
    ],
)
def test_the_format_is_what_start_declares(declared: dict[str, Any], expected: MediaFormat) -> None:
    assert start_of(**declared).format == expected


def test_the_rate_that_is_assumed_is_the_callers() -> None:
    wire = a_wire(default_sample_rate=16000)
    assert start_of(wire, sample_rate=...).format.sample_rate == 16000


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"tenant_id": "other"}, BusinessMismatch),
        ({"tenant_id": ""}, BusinessMismatch),
        ({"tenant_id": [BUSINESS]}, BusinessMismatch),
        ({"business_id": "other"}, BusinessMismatch),
        ({"tenant_id": ..., "business_id": "other"}, BusinessMismatch),
        ({"interaction_id": ...}, MalformedRequest),
        ({"interaction_id": None}, MalformedRequest),
        ({"interaction_id": ""}, MalformedRequest),
        ({"interaction_id": "int 123"}, InvalidIdentifier),
        ({"interaction_id": 123}, InvalidIdentifier),
        ({"interaction_id": "a" * 129}, InvalidIdentifier),
        *(({"sample_rate": r}, UnsupportedFormat) for r in (0, 48000, 44100, "fast", -8000, [])),
        *(({"encoding": name}, UnsupportedFormat) for name in ("opus", 16, ["pcm16"])),
        ({"channels": 2}, UnsupportedFormat),
    ],
)
def test_a_start_that_cannot_be_is_refused(
    changes: dict[str, Any], error: type[RemoteError]
) -> None:
    wire = a_wire()
    with pytest.raises(error):
        wire.receive(a_start(**changes))
    assert wire.state is StreamState.CONNECTING
    # What was refused leaves nothing behind.
    assert start_of(wire).stream_sid == INTERACTION


def test_the_tokens_interaction_holds() -> None:
    with pytest.raises(BusinessMismatch, match="interaction_id"):
        a_wire(INTERACTION).receive(a_start(interaction_id="int-124"))
    assert start_of(a_wire(INTERACTION)).call_sid == INTERACTION


def test_an_interaction_id_may_have_128_characters_and_no_more() -> None:
    longest = "a" * 128
    assert start_of(interaction_id=longest).stream_sid == longest
    with pytest.raises(InvalidIdentifier):
        start_of(interaction_id=longest + "a")


@pytest.mark.parametrize("second", [a_start(), a_start(tenant_id="other"), a_start(encoding=5)])
def test_a_second_start_is_ignored_however_broken(second: str) -> None:
    wire = started()
    assert wire.receive(second) == Ignored("second_start")
    assert wire.receive(b"abc") == MediaRejected("odd_length", Track.INBOUND, 1)


# ------------------------------------------------------------------------ frames


def test_every_frame_is_counted_from_1_those_that_cannot_be_used_included() -> None:
    wire = a_wire()
    assert wire.receive(FRAME) == MediaRejected("before_start", Track.INBOUND, 1)
    start_of(wire)
    assert wire.receive(FRAME) == MediaReceived(FRAME, Track.INBOUND, 2)
    assert wire.receive(b"") == MediaRejected("empty_payload", Track.INBOUND, 3)
    assert wire.receive(b"abc") == MediaRejected("odd_length", Track.INBOUND, 4)
    assert wire.receive('{"event":"ping"}') == Ignored("unknown_event")
    assert wire.receive(FRAME) == MediaReceived(FRAME, Track.INBOUND, 5)
    assert wire.receive(STOP) == StreamStopped()
    assert wire.receive(FRAME) == MediaRejected("after_stop", Track.INBOUND, 6)


def test_json_in_a_binary_frame_is_audio() -> None:
    payload = b'{"event":"stop" }'[:16]
    assert started().receive(payload) == MediaReceived(payload, Track.INBOUND, 1)


def test_mulaw_may_have_an_odd_length() -> None:
    assert started(encoding="mulaw").receive(b"abc") == MediaReceived(b"abc", Track.INBOUND, 1)


def test_binary_audio_implies_no_start() -> None:
    assert a_wire().implied_start(FRAME) is None


@pytest.mark.parametrize(
    ("seq", "reply"),
    [
        (10, '{"event":"ack","seq":10}'),
        (20, '{"event":"ack","seq":20}'),
        *((seq, None) for seq in (-10, 0, 1, 9, 11, 25)),
    ],
)
def test_every_tenth_frame_is_acknowledged(seq: int, reply: str | None) -> None:
    assert started().ack(seq) == reply


def test_the_interval_of_acks_is_the_callers() -> None:
    wire = a_wire(ack_interval=3)
    assert [seq for seq in range(1, 10) if wire.ack(seq)] == [3, 6, 9]


# ------------------------------------------------------------------------- other


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("", Ignored("empty_message")),
        (" \t\r\n", Ignored("empty_message")),
        ("Hello?", Unreadable("broken_json")),
        ('{"event":"\\ud800"}', Unreadable("broken_json")),
        ("[" * 60000, Unreadable("broken_json")),
        ("[]", Unreadable("not_an_object")),
        ("17", Unreadable("not_an_object")),
        ("{}", Unreadable("no_event")),
        ('{"event":7}', Unreadable("no_event")),
        ('{"event":"media","media":{"payload":"AAAA"}}', Ignored("unknown_event")),
        ('{"event":"Start"}', Ignored("unknown_event")),
    ],
)
@pytest.mark.parametrize("is_started", [True, False])
def test_every_other_message_has_its_answer(
    message: str, expected: WireEvent, is_started: bool
) -> None:
    wire = started() if is_started else a_wire()
    state = wire.state
    assert wire.receive(message) == expected
    assert wire.state is state


def test_a_stop_counts_once_and_only_after_start() -> None:
    wire = a_wire()
    assert wire.receive(STOP) == Ignored("before_start")
    start_of(wire)
    assert wire.receive(STOP) == StreamStopped()
    assert wire.receive(STOP) == Ignored("after_stop")
    assert wire.receive(a_start()) == Ignored("after_stop")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
STARTS = st.fixed_dictionaries(
    {"event": st.sampled_from(["start", "stop", "ping"]) | JSON},
    optional={
        "interaction_id": st.just(INTERACTION) | JSON,
        "tenant_id": st.just(BUSINESS) | JSON,
        "business_id": st.just(BUSINESS) | JSON,
        "sample_rate": st.sampled_from([8000, "16000"]) | JSON,
        "encoding": st.sampled_from(["pcm16", "mulaw"]) | JSON,
        "channels": JSON,
    },
).map(json.dumps)
ANYTHING = st.one_of(
    st.text(st.characters(categories=None)),
    st.binary(),
    JSON.map(json.dumps),
    STARTS,
    st.sampled_from([a_start(), STOP]),
)


@settings(max_examples=examples(1000))
@given(messages=st.lists(ANYTHING, min_size=1, max_size=6))
def test_whatever_comes_is_answered_by_an_event_or_a_refused_start(
    messages: list[str | bytes],
) -> None:
    wire = a_wire()
    frames = 0
    for message in messages:
        before = wire.state
        frames += isinstance(message, bytes)
        try:
            event = wire.receive(message)
        except (MalformedRequest, InvalidIdentifier, UnsupportedFormat, BusinessMismatch):
            assert before is wire.state is StreamState.CONNECTING
            continue
        assert isinstance(event, WireEvent)
        if isinstance(event, MediaReceived | MediaRejected):
            assert event.seq == frames
        if isinstance(event, MediaReceived):
            assert before is StreamState.STARTED
            assert event.payload == message
