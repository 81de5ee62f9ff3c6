"""What a caller's carrier sends, message by message, and when: well, late or badly."""

import random
from collections.abc import Callable, Iterable, Iterator
from enum import Enum, auto
from itertools import count, takewhile
from typing import Final, NamedTuple

from app.media import Encoding, MediaFormat
from app.tools.caller import Call, StreamTarget
from app.tools.simulate.asked import VOICES, Caller, CarrierName, Fault
from app.tools.simulate.speech import voice
from app.wire import exotel, twilio

TWILIO_FRAME_MS: Final = 20
# "Inbound ≈ every 100 ms" (developer.exotel.com/docs/agentstream/websocket-protocol).
EXOTEL_FRAME_MS: Final = 100
TWILIO_FORM: Final = MediaFormat(Encoding.MULAW, 8000)
EXOTEL_FORMS: Final = tuple(MediaFormat(Encoding.PCM16, rate) for rate in (8000, 16000, 24000))
EVERY: Final = 10
# More than the longest message that is taken.
HUGE_BYTES: Final = 70_000
HUGE_AT_SECONDS: Final = 0.5
# How often a network stands still, on average.
STILL_EVERY_SECONDS: Final = 1.0


class Kind(Enum):
    """What a message is, as far as one who spoils it must know."""

    GREETING = auto()
    START = auto()
    FRAME = auto()
    DIGIT = auto()
    MARK = auto()
    STOP = auto()


class Cue(NamedTuple):
    """A message, and when it goes, in seconds after the first."""

    at: float
    kind: Kind
    message: str


# Gives the marks that were reached since it was asked before.
Reached = Callable[[], Iterable[str]]


def _none_reached() -> tuple[str, ...]:
    return ()


def twilio_script(
    call: Call,
    target: StreamTarget,
    caller: Caller,
    digits: str,
    reached: Reached = _none_reached,
) -> Iterator[Cue]:
    """Give what Twilio sends of a call: each track's frames, digits and marks between them."""
    speakers = [
        (track, voice(number, TWILIO_FORM, TWILIO_FRAME_MS, caller.begins_at))
        for track, number in zip(target.tracks, (caller.voice, caller.other_voice), strict=False)
    ]
    yield Cue(0, Kind.GREETING, twilio.connected_message())
    start = twilio.start_message(
        call.stream_sid,
        call.call_sid,
        account_sid=call.account_sid,
        tracks=target.tracks,
        params=target.parameters,
    )
    yield Cue(0, Kind.START, start)
    numbers = count(2)
    frames = _frames_in(caller.seconds, TWILIO_FRAME_MS)
    pressed = _pressed(digits if target.is_two_way else "", frames)
    for chunk in range(frames):
        at = chunk * TWILIO_FRAME_MS
        for track, frames_of in speakers:
            message = twilio.media_message(
                *(call.stream_sid, next(frames_of)),
                seq=next(numbers),
                chunk=chunk + 1,
                timestamp=at,
                track=track,
            )
            yield Cue(at / 1000, Kind.FRAME, message)
        for digit in pressed.get(chunk, ()):
            message = twilio.dtmf_message(call.stream_sid, digit, seq=next(numbers))
            yield Cue(at / 1000, Kind.DIGIT, message)
        for name in reached():
            message = twilio.mark_message(call.stream_sid, name, seq=next(numbers))
            yield Cue(at / 1000, Kind.MARK, message)
    stop = twilio.stop_message(
        call.stream_sid, call.call_sid, seq=next(numbers), account_sid=call.account_sid
    )
    yield Cue(caller.seconds, Kind.STOP, stop)


def exotel_script(
    call: Call,
    form: MediaFormat,
    caller: Caller,
    digits: str,
    reached: Reached = _none_reached,
) -> Iterator[Cue]:
    """Give what Exotel sends of a call, in PCM16 at 8000, 16000 or 24000 Hz."""
    spoken = voice(caller.voice, form, EXOTEL_FRAME_MS, caller.begins_at)
    yield Cue(0, Kind.GREETING, exotel.connected_message())
    start = exotel.start_message(
        call.stream_sid,
        call.call_sid,
        account_sid=call.account_sid,
        from_number=call.from_number,
        to_number=call.to_number,
        sample_rate=form.sample_rate,
    )
    yield Cue(0, Kind.START, start)
    numbers = count(2)
    frames = _frames_in(caller.seconds, EXOTEL_FRAME_MS)
    pressed = _pressed(digits, frames)
    for chunk in range(frames):
        at = chunk * EXOTEL_FRAME_MS
        message = exotel.media_message(
            *(call.stream_sid, next(spoken)), seq=next(numbers), chunk=chunk + 1, timestamp=at
        )
        yield Cue(at / 1000, Kind.FRAME, message)
        for digit in pressed.get(chunk, ()):
            message = exotel.dtmf_message(call.stream_sid, digit, seq=next(numbers))
            yield Cue(at / 1000, Kind.DIGIT, message)
        for name in reached():
            message = exotel.mark_message(call.stream_sid, name, seq=next(numbers))
            yield Cue(at / 1000, Kind.MARK, message)
    stop = exotel.stop_message(
        call.stream_sid, call.call_sid, seq=next(numbers), account_sid=call.account_sid
    )
    yield Cue(caller.seconds, Kind.STOP, stop)


def rehearse(carrier: CarrierName) -> None:
    """Make every voice that a carrier may need: done in a call, it would hold up the others."""
    forms = [(TWILIO_FORM, TWILIO_FRAME_MS)]
    if carrier == "exotel":
        forms = [(form, EXOTEL_FRAME_MS) for form in EXOTEL_FORMS]
    for form, frame_ms in forms:
        for number in range(VOICES):
            next(voice(number, form, frame_ms, begins_at=0))


def performed(script: Iterable[Cue], caller: Caller, jitter: float) -> Iterator[Cue]:
    """Give a script as this caller's carrier and network make it, in order.

    `jitter` is the most that a message is late, in seconds.
    """
    cues = spoilt(script, caller.fault, caller.seconds) if caller.fault else iter(script)
    if caller.cut_at is not None:
        until = caller.cut_at
        cues = takewhile(lambda cue: cue.at < until, cues)
    return delayed(cues, jitter, random.Random(caller.seed)) if jitter else cues


def spoilt(script: Iterable[Cue], fault: Fault, seconds: float) -> Iterator[Cue]:
    """Give a call's script with one thing wrong; the numbers in it stay as they were."""
    frames = 0
    has_been_huge = False
    for cue in script:
        is_frame = cue.kind is Kind.FRAME
        frames += is_frame
        is_tenth = is_frame and frames % EVERY == 0
        match fault:
            case Fault.BROKEN_JSON if is_tenth:
                yield cue._replace(message=cue.message[: len(cue.message) // 2])
                continue
            case Fault.GAPS if is_tenth:
                continue
            case Fault.REPEATS if is_tenth:
                yield cue
            case Fault.NO_START if cue.kind is Kind.START:
                continue
            case Fault.SILENT if is_frame:
                continue
            case Fault.HUGE if is_frame and not has_been_huge and cue.at >= HUGE_AT_SECONDS:
                has_been_huge = True
                yield cue._replace(message=cue.message + " " * HUGE_BYTES)
                continue
            case Fault.SLOW if cue.kind is not Kind.STOP:
                if 2 * cue.at < seconds:
                    yield cue._replace(at=2 * cue.at)
                continue
        yield cue


def delayed(cues: Iterable[Cue], most: float, chance: random.Random) -> Iterator[Cue]:
    """Give messages late as a network does that stands still, then brings all at once.

    Each is late by at most `most` seconds, and none overtakes another.
    """
    begins = chance.expovariate(1 / STILL_EVERY_SECONDS)
    ends = begins + chance.uniform(0, most)
    for cue in cues:
        while cue.at >= ends:
            begins = ends + chance.expovariate(1 / STILL_EVERY_SECONDS)
            ends = begins + chance.uniform(0, most)
        yield cue._replace(at=ends) if cue.at >= begins else cue


def _frames_in(seconds: float, frame_ms: int) -> int:
    return max(1, round(seconds * 1000 / frame_ms))


def _pressed(digits: str, frames: int) -> dict[int, str]:
    """Spread digits evenly over a call: after which frame, which are pressed."""
    pressed: dict[int, str] = {}
    for place, digit in enumerate(digits, 1):
        after = frames * place // (len(digits) + 1)
        pressed[after] = pressed.get(after, "") + digit
    return pressed
