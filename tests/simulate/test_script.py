"""What simulated carriers send: read back by the wire, in time, late, and spoilt."""

import random
from collections.abc import Sequence

import pytest

from app.audio import level_dbfs
from app.events import (
    DtmfReceived,
    MarkReceived,
    MediaReceived,
    StreamStarted,
    StreamStopped,
    Unreadable,
    WireEvent,
)
from app.media import Encoding, MediaFormat, Track
from app.tools.caller import StreamTarget, new_call
from app.tools.simulate import speech
from app.tools.simulate.asked import Asked, Caller, CarrierName, Fault, callers_of
from app.tools.simulate.script import (
    EXOTEL_FORMS,
    Cue,
    Kind,
    delayed,
    exotel_script,
    performed,
    rehearse,
    spoilt,
    twilio_script,
)
from app.tools.simulate.speech import voice
from app.wire.base import MAX_MESSAGE_BYTES
from app.wire.exotel import ExotelWire
from app.wire.twilio import TwilioWire

CALL = new_call("+15005550006")
ONE_TRACK = StreamTarget("wss://bridge.example", {"ticket": "t"}, (Track.INBOUND,))
BOTH_TRACKS = StreamTarget("wss://bridge.example", {}, tuple(Track), is_two_way=False)
SECONDS = 2.0


def a_caller(seconds: float = SECONDS, **asked: float) -> Caller:
    [caller] = callers_of(Asked(3, seconds=(seconds, seconds), **asked))  # type: ignore[arg-type]
    return caller


def read_by_twilio(cues: Sequence[Cue]) -> list[WireEvent]:
    wire = TwilioWire()
    return [wire.receive(cue.message) for cue in cues]


def frames_of(events: Sequence[WireEvent], track: Track = Track.INBOUND) -> list[MediaReceived]:
    return [one for one in events if isinstance(one, MediaReceived) and one.track is track]


def spoken(digits: str = "", target: StreamTarget = ONE_TRACK) -> list[Cue]:
    return list(twilio_script(CALL, target, a_caller(), digits))


def test_a_call_of_twilios_reads_as_one_in_time_from_start_to_stop() -> None:
    cues = spoken()
    events = read_by_twilio(cues)
    started = next(one for one in events if isinstance(one, StreamStarted))
    assert (started.call_sid, started.stream_sid) == (CALL.call_sid, CALL.stream_sid)
    assert started.params == {"ticket": "t"}
    frames = frames_of(events)
    assert [one.seq for one in frames] == list(range(2, 102))
    assert [cue.at for cue in cues if cue.kind is Kind.FRAME] == [n / 50 for n in range(100)]
    assert all(len(one.payload) == 160 for one in frames)
    assert isinstance(events[-1], StreamStopped)
    assert cues[-1].at == SECONDS
    assert [cue.at for cue in cues] == sorted(cue.at for cue in cues)


def test_two_tracks_are_two_speakers_whose_messages_are_numbered_as_one() -> None:
    events = read_by_twilio(spoken(target=BOTH_TRACKS))
    caller, called = (frames_of(events, track) for track in Track)
    assert len(caller) == len(called) == 100
    assert [one.payload for one in caller] != [one.payload for one in called]
    numbers = [one.seq for pair in zip(caller, called, strict=True) for one in pair]
    assert numbers == list(range(2, 202))
    for track in (caller, called):
        audio = b"".join(one.payload for one in track)
        assert level_dbfs(audio, Encoding.MULAW) > -50


def test_digits_are_pressed_in_order_in_the_midst_of_the_call() -> None:
    cues = spoken("12#")
    events = read_by_twilio(cues)
    assert [one.digit for one in events if isinstance(one, DtmfReceived)] == ["1", "2", "#"]
    pressed = [cue.at for cue in cues if cue.kind is Kind.DIGIT]
    assert pressed == sorted(pressed)
    assert 0 < pressed[0] < pressed[-1] < SECONDS
    numbers = [one.seq for one in events if isinstance(one, MediaReceived | DtmfReceived)]
    assert numbers == list(range(2, 105))


def test_a_one_way_stream_of_twilios_has_no_digits() -> None:
    events = read_by_twilio(spoken("12#", target=BOTH_TRACKS))
    assert not any(isinstance(one, DtmfReceived) for one in events)


@pytest.mark.parametrize("rate", [8000, 16000, 24000])
def test_a_call_of_exotels_reads_as_one_at_the_rate_that_is_asked_for(rate: int) -> None:
    cues = list(exotel_script(CALL, MediaFormat(Encoding.PCM16, rate), a_caller(), "5"))
    wire = ExotelWire(new_id=lambda: "x")
    events = [wire.receive(cue.message) for cue in cues]
    started = next(one for one in events if isinstance(one, StreamStarted))
    assert started.format == MediaFormat(Encoding.PCM16, rate)
    assert started.to_number == CALL.to_number
    frames = frames_of(events)
    assert [len(one.payload) for one in frames] == [rate // 5] * 20
    assert [one.digit for one in events if isinstance(one, DtmfReceived)] == ["5"]
    assert isinstance(events[-1], StreamStopped)


def test_a_voice_is_the_same_again_and_none_is_silent() -> None:
    form = MediaFormat(Encoding.MULAW, 8000)
    heard = []
    for number in range(3):
        once, again = (voice(number, form, 20, 4.0) for _ in range(2))
        frames = [next(once) for _ in range(500)]
        assert frames == [next(again) for _ in range(500)]
        assert level_dbfs(b"".join(frames), Encoding.MULAW) > -50
        heard.append(frames)
    assert heard[0] != heard[1] != heard[2] != heard[0]


@pytest.mark.parametrize("carrier", ["twilio", "exotel"])
def test_after_a_rehearsal_no_voice_is_made_in_a_call(carrier: CarrierName) -> None:
    speech._frames.cache_clear()
    rehearse(carrier)
    made = speech._frames.cache_info().misses
    if carrier == "twilio":
        spoken(target=BOTH_TRACKS)
    for rate in (8000, 16000, 24000) if carrier == "exotel" else ():
        list(exotel_script(CALL, MediaFormat(Encoding.PCM16, rate), a_caller(), ""))
    assert speech._frames.cache_info().misses == made


# ----------------------------------------------------------------- what goes wrong


@pytest.mark.parametrize("most", [0.02, 0.3, 2.0])
def test_a_network_that_stands_still_makes_late_and_bursts_and_keeps_the_order(
    most: float,
) -> None:
    cues = list(twilio_script(CALL, ONE_TRACK, a_caller(30), ""))
    late = list(delayed(cues, most, random.Random(1)))
    assert [cue.message for cue in late] == [cue.message for cue in cues]
    delays = [after.at - before.at for before, after in zip(cues, late, strict=True)]
    assert all(0 <= delay <= most for delay in delays)
    assert max(delays) > 0
    times = [cue.at for cue in late]
    assert times == sorted(times)
    if most > 0.1:
        assert len(set(times)) < len(set(cue.at for cue in cues)), "nothing came in a burst"


def test_the_same_caller_is_late_in_the_same_places() -> None:
    once, again = (
        [cue.at for cue in performed(spoken(), a_caller(), jitter=0.2)] for _ in range(2)
    )
    assert once == again


def test_a_call_that_is_cut_has_no_end() -> None:
    caller = a_caller(drop=1)
    assert caller.cut_at is not None
    cues = list(performed(twilio_script(CALL, ONE_TRACK, caller, ""), caller, jitter=0))
    assert Kind.STOP not in {cue.kind for cue in cues}
    assert cues[-1].kind is Kind.FRAME
    assert caller.cut_at - 0.04 < cues[-1].at < caller.cut_at


def spoilt_by(fault: Fault) -> list[Cue]:
    return list(spoilt(spoken(), fault, SECONDS))


def test_every_tenth_frame_is_broken_json() -> None:
    events = read_by_twilio(spoilt_by(Fault.BROKEN_JSON))
    assert sum(isinstance(one, Unreadable) for one in events) == 10
    assert len(frames_of(events)) == 90


def test_every_tenth_frame_is_missing_and_its_number_too() -> None:
    numbers = [one.seq for one in frames_of(read_by_twilio(spoilt_by(Fault.GAPS)))]
    assert numbers == [n for n in range(2, 102) if n % 10 != 1]


def test_every_tenth_frame_comes_twice() -> None:
    frames = frames_of(read_by_twilio(spoilt_by(Fault.REPEATS)))
    numbers = [one.seq for one in frames]
    assert len(numbers) == 110
    assert sorted(set(numbers)) == list(range(2, 102))


def test_a_carrier_without_a_start_sends_the_rest() -> None:
    kinds = [cue.kind for cue in spoilt_by(Fault.NO_START)]
    assert Kind.START not in kinds
    assert kinds.count(Kind.FRAME) == 100


def test_a_silent_carrier_starts_and_stops_and_sends_nothing_between() -> None:
    kinds = [cue.kind for cue in spoilt_by(Fault.SILENT)]
    assert kinds == [Kind.GREETING, Kind.START, Kind.STOP]


def test_one_message_is_longer_than_is_taken() -> None:
    sizes = [len(cue.message) for cue in spoilt_by(Fault.HUGE)]
    assert sum(size > MAX_MESSAGE_BYTES for size in sizes) == 1
    assert len(sizes) == len(spoken())


def test_a_slow_carrier_sends_half_of_it_in_the_same_time() -> None:
    cues = spoilt_by(Fault.SLOW)
    frames = [cue for cue in cues if cue.kind is Kind.FRAME]
    assert [cue.at for cue in frames] == [n / 25 for n in range(50)]
    assert (cues[-1].kind, cues[-1].at) == (Kind.STOP, SECONDS)


def test_every_fault_is_one_that_spoils_something() -> None:
    for fault in Fault:
        assert spoilt_by(fault) != spoken(), fault


@pytest.mark.parametrize("carrier", ["twilio", "exotel"])
def test_marks_that_were_reached_are_echoed_between_frames(carrier: CarrierName) -> None:
    asked = iter([(), ("one", "two")])

    def reached() -> Sequence[str]:
        return next(asked, ())

    cues = list(
        twilio_script(CALL, ONE_TRACK, a_caller(), "", reached)
        if carrier == "twilio"
        else exotel_script(CALL, EXOTEL_FORMS[0], a_caller(), "", reached)
    )
    kinds = [cue.kind for cue in cues[2:7]]
    assert kinds == [Kind.FRAME, Kind.FRAME, Kind.MARK, Kind.MARK, Kind.FRAME]
    wire = TwilioWire() if carrier == "twilio" else ExotelWire(new_id=lambda: "x")
    events = [wire.receive(cue.message) for cue in cues]
    assert [event.name for event in events if isinstance(event, MarkReceived)] == ["one", "two"]
    numbers = [event.seq for event in events if isinstance(event, MediaReceived | MarkReceived)]
    assert numbers == list(range(2, 2 + len(numbers)))
