"""Marks are reached when the audio before them has been played, or was cleared."""

import base64
import json

import pytest

from app.media import MediaFormat
from app.tools.simulate.playing import MAX_MARKS, Playing
from app.tools.simulate.script import EXOTEL_FORMS, TWILIO_FORM


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def audio(size: int) -> str:
    payload = base64.b64encode(bytes(size)).decode()
    return json.dumps({"event": "media", "streamSid": "MZ1", "media": {"payload": payload}})


def mark(name: str) -> str:
    return json.dumps({"event": "mark", "streamSid": "MZ1", "mark": {"name": name}})


CLEAR = json.dumps({"event": "clear", "streamSid": "MZ1"})


@pytest.mark.parametrize(("form", "second"), [(TWILIO_FORM, 8000), (EXOTEL_FORMS[1], 32_000)])
@pytest.mark.parametrize("pieces", [1, 2, 50])
def test_a_mark_is_reached_when_the_audio_before_it_is_over(
    clock: Clock, form: MediaFormat, second: int, pieces: int
) -> None:
    playing = Playing(form, clock)
    for _ in range(pieces):
        playing.take(audio(second // pieces))
    playing.take(mark("one"))
    playing.take(audio(second))
    playing.take(mark("two"))
    clock.now += 0.99
    assert playing.reached() == []
    clock.now += 0.02
    assert playing.reached() == ["one"]
    clock.now += 1.0
    assert playing.reached() == ["two"]
    assert playing.reached() == []


def test_a_mark_with_nothing_before_it_is_reached_at_once(clock: Clock) -> None:
    playing = Playing(TWILIO_FORM, clock)
    clock.now += 5
    playing.take(mark("now"))
    assert playing.reached() == ["now"]


def test_what_is_cleared_is_reached_and_what_follows_is_played_from_then_on(clock: Clock) -> None:
    playing = Playing(TWILIO_FORM, clock)
    playing.take(audio(80_000))
    playing.take(mark("long"))
    playing.take(CLEAR)
    assert playing.reached() == ["long"]
    playing.take(audio(8000))
    playing.take(mark("after"))
    assert playing.reached() == []
    clock.now += 1.01
    assert playing.reached() == ["after"]


@pytest.mark.parametrize(
    "message",
    ["", "{", "[]", "1", b"\xff\xfe", '{"event":1}', '{"event":"media"}', '{"media":{}}']
    + ['{"event":"media","media":{"payload":5}}', '{"event":"mark","mark":[]}', "[" * 100_000],
)
def test_what_cannot_be_read_is_passed_over(clock: Clock, message: str | bytes) -> None:
    playing = Playing(TWILIO_FORM, clock)
    playing.take(message)
    assert playing.reached() == []


def test_of_endless_marks_the_first_are_kept(clock: Clock) -> None:
    playing = Playing(TWILIO_FORM, clock)
    playing.take(audio(8000))
    for number in range(MAX_MARKS + 10):
        playing.take(mark(str(number)))
    clock.now += 2
    assert len(playing.reached()) == MAX_MARKS
