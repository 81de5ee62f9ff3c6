"""When what a call is to hear goes out, by a clock that the test turns."""

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.audio import mulaw_to_pcm16, pcm16_to_mulaw
from app.media import Encoding, MediaFormat
from app.playback.answers import Answer, Cleared, Played, Reached
from app.playback.commands import Clear, HangUp, Mark, Play, Reason, Transfer
from app.playback.outgoing import Audio, SetMark, Shape
from app.playback.pacing import ECHO_SECONDS, MAX_QUEUED_COMMANDS, Pacer
from app.playback.room import Room

MULAW = MediaFormat(Encoding.MULAW, 8000)
PCM16 = {rate: MediaFormat(Encoding.PCM16, rate) for rate in (8000, 16000, 24000, 48000)}
TWILIO = Shape(MULAW, 160)
EXOTEL = Shape(PCM16[8000], 3200, fills_up=True)
LEAD = 0.16
BEGIN = 5000.0

Step = tuple[float, Play | Mark | Clear | HangUp | Transfer]


@dataclass
class Line:
    """A pacer and a carrier that plays and echoes as it should, or not at all."""

    shape: Shape = TWILIO
    echoes: bool = True
    lead: float = LEAD
    room: Room = field(default_factory=Room)
    now: float = BEGIN
    sent: bytearray = field(default_factory=bytearray)
    sizes: list[int] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    ahead: list[float] = field(default_factory=list)
    told: list[tuple[float, Answer]] = field(default_factory=list)
    done: list[tuple[float, str]] = field(default_factory=list)
    refused: list[Reason] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.pacer = Pacer(self.shape, self.lead, self.room)
        self._until = BEGIN
        self._echoes: list[tuple[float, str]] = []

    def run(self, steps: Sequence[Step] = (), until: float = math.inf) -> None:
        """Do the steps at their times (seconds since the beginning), then what follows."""
        waiting = [(BEGIN + at, command) for at, command in steps]
        while True:
            while waiting and waiting[0][0] <= self.now:
                self._do(waiting.pop(0)[1])
            for name in [name for at, name in self._echoes if at <= self.now]:
                self._tell(self.pacer.echoed(name))
            self._echoes = [echo for echo in self._echoes if echo[0] > self.now]
            self._tell(self.pacer.given_up(self.now))
            for out in self.pacer.take(self.now):
                self._send(out)
            times = [self.pacer.next_due(), *(at for at, _ in (*waiting, *self._echoes))]
            if min(times) == math.inf or min(times) > BEGIN + until:
                return
            assert min(times) > self.now or waiting or self._echoes or self.done
            self.now = max(self.now, min(times))

    @property
    def at(self) -> float:
        return round(self.now - BEGIN, 6)

    def answers(self) -> list[Answer]:
        return [answer for _, answer in self.told]

    def _do(self, command: Play | Mark | Clear | HangUp | Transfer) -> None:
        if isinstance(command, Clear):
            self._tell(self.pacer.clear(command, self.now))
            self._until = self.now
        elif reason := self.pacer.put(command, self.now):
            self.refused.append(reason)

    def _send(self, out: Audio | SetMark | HangUp | Transfer) -> None:
        if isinstance(out, Audio):
            seconds = self.shape.format.duration_ms(len(out.payload)) / 1000
            self._until = max(self.now, self._until) + seconds
            self.sent += out.payload
            self.sizes.append(len(out.payload))
            self.times.append(self.at)
            self.ahead.append(self._until - self.now)
        elif isinstance(out, SetMark):
            if self.echoes:
                self._echoes.append((max(self.now, self._until), out.name))
        else:
            self.done.append((self.at, out.id))

    def _tell(self, answers: Sequence[Answer]) -> None:
        self.told += [(self.at, answer) for answer in answers]


def noise(size: int, seed: int = 1) -> bytes:
    return np.random.default_rng(seed).bytes(size)


def tone(rate: int, seconds: float, hertz: float = 440.0) -> bytes:
    count = round(rate * seconds)
    samples = (round(12000 * math.sin(2 * math.pi * hertz * at / rate)) for at in range(count))
    return struct.pack(f"<{count}h", *samples)


def play(audio: bytes, form: MediaFormat = MULAW, name: str = "", mark: str = "") -> Play:
    return Play(name or "entry", audio, form, mark, bool(name))


# ------------------------------------------------------------------------- exactness


@pytest.mark.parametrize("size", [1, 159, 160, 161, 8000, 8003])
def test_twilio_hears_its_own_format_bit_for_bit(size: int) -> None:
    line, audio = Line(), noise(size)
    line.run([(0, play(audio, name="a"))])
    assert line.sent == audio
    assert set(line.sizes[:-1]) <= {160}


@pytest.mark.parametrize("size", [2, 3198, 3200, 3202, 16000])
def test_exotel_hears_its_own_format_bit_for_bit_and_then_silence(size: int) -> None:
    line, audio = Line(EXOTEL), noise(size)
    line.run([(0, play(audio, PCM16[8000], name="a"))])
    assert line.sent[:size] == audio
    assert not any(line.sent[size:])
    assert set(line.sizes) == {3200}  # a multiple of 320, at least 3.2 KB


def test_exotels_mulaw_is_filled_up_with_the_silence_of_mulaw() -> None:
    line = Line(Shape(MULAW, 3200, fills_up=True))
    line.run([(0, play(b"\x00" * 100, name="a"))])
    assert line.sent == b"\x00" * 100 + b"\xff" * 3100


@given(st.lists(st.integers(1, 700), min_size=1, max_size=30), st.integers(0, 60))
def test_pieces_join_without_a_seam_however_they_are_cut_and_come(
    sizes: list[int], between_ms: int
) -> None:
    line = Line()
    pieces = [noise(size, seed) for seed, size in enumerate(sizes)]
    line.run([(n * between_ms / 1000, play(piece)) for n, piece in enumerate(pieces)])
    assert line.sent == b"".join(pieces)
    assert sum(answer.plays for answer in line.answers() if isinstance(answer, Played)) == len(
        sizes
    )


@pytest.mark.parametrize("rate", [16000, 24000, 48000])
@pytest.mark.parametrize("piece_ms", [20, 33, 1000])
def test_other_rates_are_converted_as_one_stream_at_the_same_level(
    rate: int, piece_ms: int
) -> None:
    line, audio = Line(EXOTEL), tone(rate, 1.0)
    step = rate * piece_ms // 1000 * 2
    pieces = [audio[at : at + step] for at in range(0, len(audio), step)]
    line.run([(0, play(piece, PCM16[rate])) for piece in pieces])
    heard = np.frombuffer(line.sent, "<i2").astype(float)[:8000]
    wanted = np.frombuffer(tone(8000, 1.0), "<i2").astype(float)
    middle = slice(400, 7600)
    error = heard[middle] - wanted[middle]
    assert np.sqrt((error**2).mean()) < 0.01 * np.sqrt((wanted[middle] ** 2).mean())
    [played] = line.answers()
    assert isinstance(played, Played)
    assert abs(played.duration_ms - 1000) <= 1


def test_mulaw_becomes_a_carriers_pcm16_and_the_other_way_round() -> None:
    to_exotel, to_twilio, audio = Line(EXOTEL), Line(), noise(3200)
    to_exotel.run([(0, play(audio, MULAW, name="a"))])
    assert to_exotel.sent == mulaw_to_pcm16(audio)
    to_twilio.run([(0, play(audio, PCM16[8000], name="a"))])
    assert to_twilio.sent == pcm16_to_mulaw(audio)


def test_a_change_of_format_keeps_the_order() -> None:
    line, first, last = Line(), noise(400), noise(240, 2)
    line.run(
        [
            (0, play(first)),
            (0, play(tone(16000, 0.1), PCM16[16000])),
            (0, play(last, name="z")),
        ]
    )
    assert line.sent[:400] == first
    assert line.sent[-240:] == last
    assert abs(len(line.sent) - 400 - 800 - 240) <= 1


# ---------------------------------------------------------------------------- pacing


@pytest.mark.parametrize(
    ("shape", "most"),
    # A message of Exotel's at 8 kHz is longer than the lead: some more is due by then.
    [(TWILIO, LEAD), (EXOTEL, 0.26), (Shape(PCM16[24000], 3200, fills_up=True), LEAD)],
)
def test_no_more_is_sent_ahead_than_the_lead_and_never_too_late(shape: Shape, most: float) -> None:
    line = Line(shape)
    line.run([(0, play(bytes(shape.format.bytes_per_second * 3), shape.format, name="a"))])
    assert max(line.ahead) <= most + 1e-6
    seconds = [shape.format.duration_ms(size) / 1000 for size in line.sizes]
    left = zip(line.times, line.ahead, seconds, strict=True)
    # The carrier never runs dry.
    assert min(ahead - length for at, ahead, length in left if at > 0) > 0.05


def test_an_hour_of_audio_takes_an_hour_to_a_microsecond() -> None:
    line = Line(EXOTEL)
    half_minute = play(bytes(480_000), PCM16[8000])
    steps: list[Step] = [(n * 30.0, half_minute) for n in range(120)]
    line.run([*steps, (3600.0 - 1, Mark("end", "end"))])
    last = next(at for at, answer in line.told if isinstance(answer, Reached))
    assert last == 3600.0
    assert len(line.sent) == 3600 * 16_000


def test_after_a_pause_nothing_is_sent_in_a_flood() -> None:
    line = Line()
    line.run([(0, play(bytes(8000))), (60.0, play(bytes(8000), name="b"))])
    late = [ahead for at, ahead in zip(line.times, line.ahead, strict=True) if at >= 60]
    assert max(late) <= LEAD + 1e-6


@pytest.mark.parametrize("rate", [8000, 16000])
def test_pieces_in_real_time_are_one_speech_with_one_answer(rate: int) -> None:
    line = Line()
    piece = tone(rate, 0.02)
    line.run([(n * 0.02, play(piece, PCM16[rate])) for n in range(100)])
    assert [answer.plays for answer in line.answers() if isinstance(answer, Played)] == [100]
    assert abs(len(line.sent) - 16000) <= 1


def test_a_short_end_is_sent_before_what_came_before_it_is_over() -> None:
    line = Line()
    line.run([(0, play(bytes(8000 + 40), name="a"))])
    assert line.sizes[-1] == 40
    assert line.ahead[-1] > 0.005


# ---------------------------------------------------------------- answers and clearing


def test_a_play_is_answered_when_the_carrier_says_so() -> None:
    line = Line()
    line.run([(0, play(bytes(8000), name="a")), (0, play(bytes(4000), mark="m"))])
    assert line.told == [
        (1.0, Played("a", 1, 1000, 1000, True)),
        (1.5, Played("entry", 1, 500, 500, True)),
        (1.5, Reached("entry", "m", True)),
    ]


def test_a_mark_comes_after_all_audio_before_it_and_answers_it() -> None:
    line = Line()
    line.run([(0, play(bytes(4000))), (0, play(bytes(4000))), (0, Mark("m1", "here"))])
    assert line.answers() == [Played("entry", 2, 1000, 1000, True), Reached("m1", "here", True)]


def test_a_mark_without_audio_is_reached_at_once() -> None:
    line = Line()
    line.run([(0, Mark("m1", "here"))])
    assert line.told == [(0, Reached("m1", "here", True))]


def test_a_clear_tells_what_was_heard_and_what_was_not() -> None:
    line = Line()
    line.run(
        [
            (0, play(bytes(4000), name="heard")),
            (0, play(bytes(8000), name="half")),
            (0, play(bytes(8000), name="never", mark="m")),
            (1.01, Clear("c")),
        ]
    )
    answers = line.answers()
    assert answers[0] == Played("heard", 1, 500, 500, True)
    assert answers[1:] == [
        Played("half", 1, 1000, 510, False),
        Played("never", 1, 1000, 0, False),
        Reached("never", "m", False),
        Cleared("c", 2, 1340, 150),
    ]
    sums = line.pacer.sums
    assert sums.queued == sums.sent + sums.cleared == 20_000
    assert sums.carrier_cleared == 1200


def test_an_echo_that_a_clear_set_free_is_told_of_once() -> None:
    line = Line()
    line.run([(0, play(bytes(800), name="a"))], until=0.05)
    line.run([(0.05, Clear("c"))])
    answers = line.answers()
    assert [answer.heard for answer in answers if isinstance(answer, Played)] == [False]


def test_what_comes_after_a_clear_begins_at_once() -> None:
    line = Line()
    line.run([(0, play(bytes(80_000))), (2.0, Clear("c")), (2.0, play(bytes(800), name="b"))])
    assert 2.0 in line.times
    assert line.answers()[-1] == Played("b", 1, 100, 100, True)


def test_a_clear_when_nothing_plays_clears_nothing() -> None:
    line = Line()
    line.run([(0, play(bytes(800), name="a")), (5.0, Clear("c"))])
    assert line.answers()[-1] == Cleared("c", 0, 0, 0)


def test_a_carrier_that_echoes_nothing_leaves_it_open_what_was_heard() -> None:
    line = Line(echoes=False)
    line.run([(0, play(bytes(8000), name="a", mark="m"))])
    assert line.told == [
        (1.0 + ECHO_SECONDS, Played("a", 1, 1000, 1000, None)),
        (1.0 + ECHO_SECONDS, Reached("a", "m", None)),
    ]


# ------------------------------------------------------------------- hang-up, transfer


@pytest.mark.parametrize("rate", [8000, 16000])
def test_a_hang_up_waits_until_all_was_heard(rate: int) -> None:
    line = Line()
    line.run([(0, play(tone(rate, 0.5), PCM16[rate])), (0, HangUp("h"))])
    [(at, _)] = line.done
    assert at == pytest.approx(0.5, abs=0.001)
    assert isinstance(line.answers()[0], Played)


def test_a_hang_up_is_due_after_a_clear() -> None:
    line = Line()
    line.run([(0, play(bytes(80_000))), (0, HangUp("h")), (1.0, Clear("c"))])
    assert line.done == [(1.0, "h")]


def test_a_hang_up_waits_no_longer_for_a_carrier_that_echoes_nothing() -> None:
    line = Line(echoes=False)
    line.run([(0, play(bytes(8000), name="a")), (0, HangUp("h"))])
    assert line.done == [(1.0 + ECHO_SECONDS, "h")]


def test_what_follows_a_transfer_that_failed_is_played() -> None:
    line = Line()
    line.run([(0, play(bytes(800))), (0, Transfer("t", "+1")), (0, play(noise(800), name="b"))])
    assert line.done == [(0.1, "t")]
    assert line.sent == bytes(800) + noise(800)


# ------------------------------------------------------------------------------ bounds


def test_three_minutes_wait_and_no_more() -> None:
    line = Line()
    minute = play(bytes(480_000))
    line.run([(0, minute)] * 3, until=0)
    assert line.refused == []
    line.run([(0, play(bytes(16_000)))], until=0)
    assert line.refused == [Reason.QUEUE_FULL]
    line.run([(60.0, minute)], until=60)  # there is room again
    assert line.refused == [Reason.QUEUE_FULL]


def test_four_megabytes_wait_and_no_more() -> None:
    line = Line()
    line.run([(0, play(bytes(2**20), PCM16[48000]))] * 5, until=0)
    assert line.refused == [Reason.QUEUE_FULL]


def test_so_many_commands_wait_and_no_more() -> None:
    line = Line()
    waits = [(0.0, play(b"\xff" * 160)), (0.0, HangUp("h"))]
    line.run([*waits, *[(0.0, Mark("m", "m"))] * (MAX_QUEUED_COMMANDS + 1)], until=0)
    assert set(line.refused) == {Reason.QUEUE_FULL}


def test_calls_share_the_room_of_their_process_and_give_it_back() -> None:
    room = Room(10_000)
    one, other = Line(room=room), Line(room=room)
    one.run([(0, play(bytes(8000)))], until=0)
    other.run([(0, play(bytes(8000), name="b"))], until=0)
    assert other.refused == [Reason.QUEUE_FULL]
    one.run()
    assert room.used == 0
    other.run([(0, play(bytes(8000)))], until=0.1)
    assert len(other.refused) == 1
    other.pacer.close()
    assert room.used == 0


def test_the_end_of_the_stream_names_what_was_not_done() -> None:
    line = Line()
    line.run(
        [
            (0, play(bytes(8000), name="a")),
            (0, play(bytes(8000), mark="m")),
            (0, HangUp("h")),
        ],
        until=0.5,
    )
    unanswered = line.pacer.close()
    assert unanswered == [("a", "play"), ("entry", "play"), ("entry", "mark"), ("h", "hangup")]
    sums = line.pacer.sums
    assert sums.queued == sums.sent + sums.lost == 16_000


STEPS = st.lists(
    st.tuples(
        st.floats(0, 3),
        st.one_of(
            st.builds(
                lambda size, form, name: play(bytes(2 * size), form, name),
                st.integers(1, 9000),
                st.sampled_from([MULAW, *PCM16.values()]),
                st.sampled_from(["", "n"]),
            ),
            st.builds(Mark, st.just("m"), st.just("m")),
            st.builds(Clear, st.just("c")),
        ),
    ),
    max_size=25,
).map(lambda steps: sorted(steps, key=lambda step: step[0]))


@given(STEPS, st.sampled_from([TWILIO, EXOTEL]))
def test_whatever_is_asked_is_accounted_for_and_answered(steps: list[Step], shape: Shape) -> None:
    line = Line(shape)
    line.run(steps)
    sums = line.pacer.sums
    assert sums.waiting == 0
    assert sums.queued == sums.sent + sums.cleared
    assert line.room.used == 0
    played = [answer for answer in line.answers() if isinstance(answer, Played)]
    asked = [command for _, command in steps]
    assert sum(answer.plays for answer in played) == sum(isinstance(one, Play) for one in asked)
    assert all(0 <= answer.played_ms <= answer.duration_ms for answer in played)
    reached = [answer for answer in line.answers() if isinstance(answer, Reached)]
    assert len(reached) == sum(isinstance(one, Mark) for one in asked)
    assert line.pacer.close() == []
