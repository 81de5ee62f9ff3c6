"""What a capture may not hold is hidden, and nothing else is touched."""

import pytest

from app.log import mask_phone
from app.wire import exotel, twilio
from app.wire.masking import masked_message
from tests.captures.make_captures import DIRECTORY

SECRET = "s3cr3t/+="
NUMBER = "+12763659195"


def masked(message: str) -> str:
    return masked_message(message, mask_phone)


@pytest.mark.parametrize(
    "message",
    [
        twilio.start_message("MZ1", "CA1", params={"ticket": SECRET, "from": NUMBER}),
        exotel.start_message("a", "b", from_number=NUMBER, to_number="02263659195"),
        exotel.start_message("a", "b", params={"api_key": SECRET, "X-Auth-Token": SECRET}),
        '{"event":"start","start":{"customParameters":{"ticket":"s3cr3t/+=',
        '{"ticket" : "s3cr3t/+=", "ticket":"s3cr3t/+="}',
        '{"authorization":"Basic s3cr3t/+=","signature":"s3cr3t/+=","password":"s3cr3t/+="}',
        '{"customer":"+12763659195","n":["+1 276-365-9195"]}',
        '{"From":"12763659195","to":912763659195}',
    ],
)
def test_secrets_and_numbers_are_hidden(message: str) -> None:
    shown = masked(message)
    assert "s3cr3t" not in shown
    assert "276365" not in shown
    assert "276-365" not in shown
    assert "226365" not in shown
    assert shown != message


@pytest.mark.parametrize(
    "message",
    [
        twilio.dtmf_message("MZ1", "7", seq=3),
        exotel.dtmf_message("a", "7", seq=3),
        '{"event":"dtmf","digit":7}',
        '{"event":"dtmf","Digit" : "\\u0037"}',
        '{"event":"dtmf","digits":"77',
    ],
)
def test_a_digit_becomes_another_that_may_be_pressed(message: str) -> None:
    shown = masked(message)
    assert "7" not in shown
    assert '"0"' in shown


@pytest.mark.parametrize(
    "message",
    [
        twilio.connected_message(),
        twilio.media_message("MZ1", b"\xff" * 160, seq=5, chunk=4, timestamp=60),
        twilio.media_message("MZ1", b"\xfb\xff\xbf" * 50, seq=5, chunk=4, timestamp=1234567890),
        twilio.mark_message("MZ1", "a mark", seq=2),
        '{"payload":"+1234567891234+123456789"}',
        "",
    ],
)
def test_what_is_harmless_stays_as_it_is(message: str) -> None:
    assert masked(message) == message


@pytest.mark.parametrize("name", sorted(path.name for path in DIRECTORY.glob("*.jsonl")))
def test_audio_stays_as_it_is(name: str) -> None:
    lines = (DIRECTORY / name).read_text().splitlines()
    media = [line for line in lines if '"media"' in line and '"start"' not in line]
    assert [masked(line) for line in media] == media


def test_a_message_made_to_be_slow_is_read_in_time() -> None:
    for unit in ('"a', '"ticket":"', '"from":"+', '\\"', '"' + "a" * 64):
        masked(unit * (65536 // len(unit)))
