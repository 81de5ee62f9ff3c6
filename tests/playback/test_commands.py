"""Commands as workers write them: read whole, or refused with the reason."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.media import Encoding, MediaFormat
from app.playback.commands import (
    MAX_PLAY_BYTES,
    Clear,
    Command,
    Dtmf,
    HangUp,
    Mark,
    Play,
    Reason,
    Refused,
    Transfer,
    Value,
    command_fields,
    name_of,
    parse_command,
)

ENTRY = "1700000000000-0"
PCM16_8K, PCM16_48K = (MediaFormat(Encoding.PCM16, rate) for rate in (8000, 48000))
MULAW = MediaFormat(Encoding.MULAW, 8000)
BOMB = '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><Response>&b;</Response>'


def stored(fields: dict[str, Any]) -> dict[str, Value]:
    """Give fields as Redis gives them back."""
    return {
        name: value if isinstance(value, bytes) else str(value).encode()
        for name, value in fields.items()
    }


@pytest.mark.parametrize(
    ("fields", "command"),
    [
        ({"command": "play", "audio": b"\x01\x00"}, Play(ENTRY, b"\x01\x00", PCM16_8K)),
        (
            {"command": "play", "audio": b"\x01\x00", "sampleRate": 48000, "id": "a:1"},
            Play("a:1", b"\x01\x00", PCM16_48K, is_named=True),
        ),
        (
            {"command": "play", "audio": b"\xff", "encoding": "mulaw", "mark": "the end"},
            Play(ENTRY, b"\xff", MULAW, "the end"),
        ),
        (
            {"command": "play", "audio": b"\xff", "encoding": "mulaw", "id": "", "mark": ""},
            Play(ENTRY, b"\xff", MULAW),
        ),
        ({"command": "mark", "mark": "m", "later": "x"}, Mark(ENTRY, "m")),
        ({"command": "clear", "id": "c"}, Clear("c")),
        ({"command": "hangup"}, HangUp(ENTRY)),
        ({"command": "transfer", "to": "+15005550006"}, Transfer(ENTRY, "+15005550006")),
        (
            {"command": "transfer", "twiml": "<Response><Hangup/></Response>"},
            Transfer(ENTRY, twiml="<Response><Hangup/></Response>"),
        ),
        ({"command": "dtmf", "digits": "1"}, Dtmf(ENTRY)),
    ],
)
def test_a_command_is_read_whole(fields: dict[str, Any], command: Command) -> None:
    assert parse_command(ENTRY, stored(fields)) == command


@pytest.mark.parametrize(
    ("fields", "reason", "words"),
    [
        ({}, "unknown_command", ""),
        ({"command": "sing"}, "unknown_command", ""),
        ({"command": "PLAY", "audio": b"\xff\xff"}, "unknown_command", ""),
        ({"command": b"\xff\xfe"}, "unknown_command", ""),
        ({"command": "play"}, "bad_audio", "no audio"),
        ({"command": "play", "audio": b""}, "bad_audio", "no audio"),
        ({"command": "play", "audio": b"\x00\x01\x02"}, "bad_audio", "not whole"),
        ({"command": "play", "audio": bytes(MAX_PLAY_BYTES + 2)}, "too_large", "in pieces"),
        ({"command": "play", "audio": b"\xff", "encoding": "opus"}, "bad_format", "encoding"),
        ({"command": "play", "audio": b"\xff", "encoding": "MULAW"}, "bad_format", "encoding"),
        ({"command": "play", "audio": b"\xff\xff", "sampleRate": 44100}, "bad_format", "Rate"),
        ({"command": "play", "audio": b"\xff\xff", "sampleRate": "8k"}, "bad_format", "Rate"),
        (
            {"command": "play", "audio": b"\xff", "encoding": "mulaw", "sampleRate": 16000},
            "bad_format",
            "mulaw",
        ),
        ({"command": "play", "audio": b"\xff\xff", "mark": "x" * 129}, "bad_field", "mark"),
        ({"command": "mark"}, "bad_field", "mark"),
        ({"command": "mark", "mark": "a\nb"}, "bad_field", "mark"),
        ({"command": "mark", "mark": "m", "id": "no spaces"}, "bad_field", "id"),
        ({"command": "clear", "id": "x" * 129}, "bad_field", "id"),
        ({"command": "transfer"}, "bad_field", "either"),
        ({"command": "transfer", "to": "+15005550006", "twiml": "<R/>"}, "bad_field", "both"),
        ({"command": "transfer", "to": "5005550006"}, "bad_field", "E.164"),
        ({"command": "transfer", "to": "+1500555;sip:x@y"}, "bad_field", "E.164"),
        ({"command": "transfer", "twiml": "<Response>"}, "bad_field", "well-formed"),
        ({"command": "transfer", "twiml": "<Dial>+1</Dial>"}, "bad_field", "<Response>"),
        ({"command": "transfer", "twiml": BOMB}, "bad_field", "document type"),
        (
            {"command": "transfer", "twiml": f"<Response>{'x' * 4000}</Response>"},
            "bad_field",
            "4000",
        ),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_reason(
    fields: dict[str, Any], reason: str, words: str
) -> None:
    refused = parse_command(ENTRY, stored(fields))
    assert isinstance(refused, Refused)
    assert (refused.reason, refused.id) == (reason, ENTRY)
    assert words in refused.detail


def test_a_refusal_repeats_nothing_of_what_was_sent() -> None:
    secret = "<Response><Dial>+14155550177</Dial>"
    refused = parse_command(ENTRY, {"command": "transfer", "twiml": secret})
    assert isinstance(refused, Refused)
    assert "5550077" not in refused.detail


def test_a_megabyte_is_taken() -> None:
    found = parse_command(ENTRY, {"command": "play", "audio": bytes(MAX_PLAY_BYTES)})
    assert isinstance(found, Play)


IDS = st.from_regex(r"[A-Za-z0-9_.:-]{1,128}", fullmatch=True)
NAMES = st.text(st.characters(categories=["L", "N", "P"]), min_size=1, max_size=128)
COMMANDS = st.one_of(
    st.builds(
        Play,
        IDS,
        st.binary(min_size=1, max_size=50).map(lambda half: half * 2),
        st.sampled_from([PCM16_8K, PCM16_48K, MULAW]),
        NAMES | st.just(""),
        st.just(True),
    ),
    st.builds(Mark, IDS, NAMES),
    st.builds(Clear, IDS),
    st.builds(HangUp, IDS),
    st.builds(Transfer, IDS, st.just("+15005550006")),
    st.builds(Dtmf, IDS),
)


@given(COMMANDS)
def test_what_is_written_is_read_back(command: Command) -> None:
    assert parse_command(ENTRY, stored(command_fields(command))) == command


@given(
    st.dictionaries(
        st.sampled_from(["command", "id", "audio", "encoding", "sampleRate", "mark", "twiml"]),
        st.binary(max_size=40) | st.sampled_from([b"play", b"mark", b"transfer", b"mulaw"]),
    )
)
def test_whatever_is_written_is_a_command_or_a_reason(fields: dict[str, bytes]) -> None:
    found = parse_command(ENTRY, fields)
    assert isinstance(found, Refused) or name_of(found) == fields[b"command".decode()].decode()
    if isinstance(found, Refused):
        assert found.reason in list(Reason)
