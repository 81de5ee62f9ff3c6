"""Messages to carriers, held to the vendors' pages: not a field more, not a field less."""

import json

import pytest

from app.events import StreamStarted
from app.media import Encoding, MediaFormat
from app.wire.back import ExotelReturn, ReturnPath, TwilioReturn, return_path
from tests.playback.listener import read_strictly

PCM16_16K = MediaFormat(Encoding.PCM16, 16000)
TWILIO = TwilioReturn("MZ1")
EXOTEL = ExotelReturn("s1", PCM16_16K)


@pytest.mark.parametrize(
    ("message", "documented"),
    [
        # twilio.com/docs/voice/media-streams/websocket-messages
        (
            TWILIO.media(b"\xff\x7f\x00"),
            '{"event":"media","streamSid":"MZ1","media":{"payload":"/38A"}}',
        ),
        (TWILIO.mark("label"), '{"event":"mark","streamSid":"MZ1","mark":{"name":"label"}}'),
        (TWILIO.clear(), '{"event":"clear","streamSid":"MZ1"}'),
        # developer.exotel.com/docs/agentstream/websocket-protocol
        (
            EXOTEL.media(b"\xff\x7f\x00"),
            '{"event":"media","stream_sid":"s1","media":{"payload":"/38A"}}',
        ),
        (EXOTEL.mark("label"), '{"event":"mark","stream_sid":"s1","mark":{"name":"label"}}'),
        (EXOTEL.clear(), '{"event":"clear","stream_sid":"s1"}'),
    ],
)
def test_a_message_has_the_documented_fields_and_no_others(message: str, documented: str) -> None:
    assert message == documented


@pytest.mark.parametrize(
    "wrong",
    [
        {"event": "media", "streamSid": "MZ1", "media": {"payload": "AA==", "chunk": "1"}},
        {"event": "media", "streamSid": "MZ1", "sequenceNumber": "1", "media": {"payload": ""}},
        {"event": "media", "streamSid": "MZ2", "media": {"payload": "AA=="}},
        {"event": "media", "streamSid": "MZ1", "media": {"payload": "not base64"}},
        {"event": "clear", "streamSid": "MZ1", "clear": {}},
        {"event": "stop", "streamSid": "MZ1", "stop": {"a": "b"}},
        {"event": "mark", "stream_sid": "MZ1", "mark": {"name": "m"}},
    ],
)
def test_the_tests_own_carrier_notices_what_twilio_would_warn_of(wrong: object) -> None:
    with pytest.raises((AssertionError, KeyError, ValueError)):
        read_strictly(json.dumps(wrong), "streamSid", "MZ1")


def test_the_tests_own_carrier_takes_no_binary_frame() -> None:
    with pytest.raises(AssertionError):
        read_strictly(b"{}", "streamSid", "MZ1")


@pytest.mark.parametrize(
    ("path", "least"), [(TWILIO, 160), (EXOTEL, 3200)], ids=["twilio", "exotel"]
)
def test_sizes_are_those_that_the_carriers_ask_for(path: ReturnPath, least: int) -> None:
    assert path.message_bytes == least
    if path.fills_up:
        assert path.message_bytes % 320 == 0
        assert 3200 <= path.message_bytes <= 100_000


def test_each_carrier_is_spoken_to_in_its_own_format() -> None:
    start = StreamStarted("s1", "c1", PCM16_16K)
    twilio, exotel = return_path("twilio", start), return_path("exotel", start)
    assert twilio is not None
    assert twilio.format == MediaFormat(Encoding.MULAW, 8000)
    assert exotel is not None
    assert exotel.format == PCM16_16K
    assert return_path("client", start) is None
