"""Declared formats against what comes: what is noticed, and what raises no alarm."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache, partial
from itertools import cycle, islice, product

import numpy as np
import numpy.typing as npt
import pytest
import soxr

from app.audio import pcm16_to_mulaw
from app.media import Encoding, MediaFormat
from app.session.truth import FormatCheck, Mismatch
from tests.captures.make_captures import recording

MULAW_8K = MediaFormat(Encoding.MULAW, 8000)
PCM16_8K = MediaFormat(Encoding.PCM16, 8000)
PCM16_16K = MediaFormat(Encoding.PCM16, 16000)
PCM16_24K = MediaFormat(Encoding.PCM16, 24000)
FORMATS = (MULAW_8K, PCM16_8K, PCM16_16K, PCM16_24K)
NAMES = {
    MULAW_8K: "mulaw at 8000 Hz",
    PCM16_8K: "pcm16 at 8000 Hz",
    PCM16_16K: "pcm16 at 16000 Hz",
    PCM16_24K: "pcm16 at 24000 Hz",
}
PAIRS = [pair for pair in product(FORMATS, FORMATS) if pair[0] is not pair[1]]

Samples = npt.NDArray[np.int16]


@dataclass(frozen=True)
class Frame:
    payload: bytes
    ts: int | None
    received_at: float


def named(formats: object) -> str:
    return NAMES[formats] if isinstance(formats, MediaFormat) else str(formats)


@cache
def resampled(sample_rate: int) -> Samples:
    audio = np.frombuffer(recording(), "<i2").astype(np.float32)
    if sample_rate != 8000:
        audio = soxr.resample(audio, 8000, sample_rate)
    return np.tile(audio.clip(-32768, 32767).astype(np.int16), 2)


def speech(sample_rate: int, skipped_ms: int = 500, *, seconds: int = 8) -> Samples:
    return resampled(sample_rate)[sample_rate * skipped_ms // 1000 :][: sample_rate * seconds]


def written(samples: Samples, encoding: Encoding) -> bytes:
    audio = samples.astype("<i2").tobytes()
    return audio if encoding is Encoding.PCM16 else pcm16_to_mulaw(audio)


def frames(
    sent: MediaFormat,
    samples: Samples | None = None,
    *,
    frame_ms: int = 20,
    has_ts: bool = True,
    arrival: Callable[[float], float] = lambda seconds: seconds,
) -> list[Frame]:
    """Cut speech, or these samples, into frames that come as they are spoken."""
    samples = speech(sent.sample_rate) if samples is None else samples
    audio = written(samples, sent.encoding)
    size = sent.bytes_per_second * frame_ms // 1000
    return [
        Frame(
            audio[at : at + size],
            at // size * frame_ms if has_ts else None,
            100 + arrival((at // size + 1) * frame_ms / 1000),
        )
        for at in range(0, len(audio) - size + 1, size)
    ]


def at_once(_: float) -> float:
    return 0.0


def judged(declared: MediaFormat, came: Iterable[Frame]) -> Mismatch | None:
    check = FormatCheck(declared)
    found = [check.add(frame.payload, frame.ts, frame.received_at) for frame in came]
    mismatches = [mismatch for mismatch in found if mismatch]
    assert len(mismatches) <= 1
    assert check.done
    return mismatches[0] if mismatches else None


# ------------------------------------------------------------ what is noticed


@pytest.mark.parametrize(("declared", "sent"), PAIRS, ids=named)
@pytest.mark.parametrize("frame_ms", [20, 100, 200])
def test_another_format_is_noticed_by_media_time_however_it_arrives(
    declared: MediaFormat, sent: MediaFormat, frame_ms: int
) -> None:
    mismatch = judged(declared, frames(sent, frame_ms=frame_ms, arrival=at_once))
    assert mismatch == Mismatch(NAMES[declared], NAMES[sent])


@pytest.mark.parametrize(("declared", "sent"), PAIRS, ids=named)
@pytest.mark.parametrize("frame_ms", [20, 100, 200])
def test_another_format_is_noticed_by_the_frames_arrival(
    declared: MediaFormat, sent: MediaFormat, frame_ms: int
) -> None:
    shaken = cycle([0.0, 0.01, 0.004, 0.015])
    came = frames(sent, frame_ms=frame_ms, has_ts=False, arrival=lambda at: at + next(shaken))
    assert judged(declared, came) == Mismatch(NAMES[declared], NAMES[sent])


def test_48_khz_is_noticed_though_no_start_may_declare_it() -> None:
    sent = MediaFormat(Encoding.PCM16, 48000)
    mismatch = judged(MULAW_8K, frames(sent, speech(48000)))
    assert mismatch == Mismatch("mulaw at 8000 Hz", "pcm16 at 48000 Hz")


@pytest.mark.parametrize("sent", [PCM16_8K, PCM16_16K, PCM16_24K], ids=named)
def test_a_rate_is_noticed_in_silence_too(sent: MediaFormat) -> None:
    silence = np.zeros(sent.sample_rate * 4, "<i2")
    for declared in (PCM16_8K, PCM16_16K, PCM16_24K):
        expected = Mismatch(NAMES[declared], NAMES[sent]) if declared is not sent else None
        assert judged(declared, frames(sent, silence)) == expected


# In a pasted replay without media times no clock tells the rate: the encoding is left.
@pytest.mark.parametrize("declared", [PCM16_8K, PCM16_16K, PCM16_24K], ids=named)
@pytest.mark.parametrize("level", [1.0, 0.1, 0.03])
@pytest.mark.parametrize("skipped_ms", [500, 2000, 3500, 5000])
def test_mulaw_is_told_from_pcm16_by_its_sound(
    declared: MediaFormat, level: float, skipped_ms: int
) -> None:
    samples = (speech(8000, skipped_ms) * level).astype("<i2")
    came = frames(MULAW_8K, samples, has_ts=False, arrival=at_once)
    measured = f"mulaw at {declared.sample_rate} Hz"
    assert judged(declared, came) == Mismatch(NAMES[declared], measured)


@pytest.mark.parametrize("level", [1.0, 0.1, 0.03])
@pytest.mark.parametrize("skipped_ms", [500, 1000, 3500, 5000])
def test_pcm16_is_told_from_mulaw_by_its_sound(level: float, skipped_ms: int) -> None:
    samples = (speech(8000, skipped_ms) * level).astype("<i2")
    came = frames(PCM16_8K, samples, has_ts=False, arrival=at_once)
    assert judged(MULAW_8K, came) == Mismatch("mulaw at 8000 Hz", "pcm16 at 8000 Hz")


# ------------------------------------------------------- what raises no alarm


def noise(deviation: float) -> Callable[[int], Samples]:
    def make(rate: int) -> Samples:
        samples = np.random.default_rng(7).normal(0, deviation, 2 * rate)
        return samples.round().clip(-32768, 32767).astype("<i2")

    return make


def comfort_noise(deviation: float) -> Callable[[int], Samples]:
    """Give noise that falls off towards high frequencies, as RFC 3389 shapes it."""

    def make(rate: int) -> Samples:
        white = np.random.default_rng(7).normal(0, deviation, 2 * rate + 7)
        shaped = np.convolve(white, 0.8 ** np.arange(8), "valid")
        return shaped.round().astype("<i2")

    return make


def tone(hertz: float, level: float, other: float = 0.0) -> Callable[[int], Samples]:
    def make(rate: int) -> Samples:
        time = np.arange(2 * rate) / rate
        both = np.sin(2 * np.pi * hertz * time) + np.sin(2 * np.pi * other * time)
        return (level * both).round().astype("<i2")

    return make


def constant(value: int) -> Callable[[int], Samples]:
    return lambda rate: np.full(2 * rate, value, "<i2")


def clicks(rate: int) -> Samples:
    samples = np.zeros(2 * rate, "<i2")
    samples[rate // 3 :: rate // 3] = 20000
    return samples


def speech_after_silence(rate: int) -> Samples:
    return np.concatenate([np.zeros(rate // 2, "<i2"), speech(rate, seconds=2)]).astype("<i2")


def speech_over_faint_noise(rate: int) -> Samples:
    faint = np.random.default_rng(7).normal(0, 2, rate * 4 // 5).round().astype("<i2")
    return np.concatenate([faint, speech(rate, seconds=2)]).astype("<i2")


HARMLESS: dict[str, Callable[[int], Samples]] = {
    **{
        f"speech after {skipped} ms": partial(speech, skipped_ms=skipped)
        for skipped in range(0, 8000, 1000)
    },
    "speech after silence": speech_after_silence,
    "speech over faint noise": speech_over_faint_noise,
    **{f"constant {value}": constant(value) for value in (0, -1, 8, 500)},
    **{f"noise {deviation}": noise(deviation) for deviation in (1, 3, 20, 60, 1000, 8000, 20000)},
    **{f"comfort noise {deviation}": comfort_noise(deviation) for deviation in (2, 5, 20, 100)},
    **{
        f"tone {hertz} Hz, {level}": tone(hertz, level)
        for hertz in (200, 400, 425, 1000, 1004, 2000, 2500, 3000)
        for level in (300, 8000, 16000)
    },
    **{
        f"keys {low} and {high} Hz": tone(low, 6000, high)
        for low in (697, 941)
        for high in (1209, 1633)
    },
    "clicks": clicks,
}


@pytest.mark.parametrize("declared", FORMATS, ids=named)
@pytest.mark.parametrize("name", HARMLESS)
@pytest.mark.parametrize("is_pasted", [False, True])
def test_what_is_as_declared_raises_no_alarm(
    name: str, declared: MediaFormat, is_pasted: bool
) -> None:
    samples = HARMLESS[name](declared.sample_rate)
    came = (
        frames(declared, samples, has_ts=False, arrival=at_once)
        if is_pasted
        else frames(declared, samples)
    )
    assert judged(declared, came) is None


def a_burst_first(at: float) -> float:
    return max(at, 0.6)


def a_stall(at: float) -> float:
    return at if at < 0.3 else max(at, 0.9)


@pytest.mark.parametrize("arrival", [a_burst_first, a_stall])
@pytest.mark.parametrize("declared", [MULAW_8K, PCM16_8K, PCM16_16K], ids=named)
def test_a_network_that_stalls_changes_no_rate(
    declared: MediaFormat, arrival: Callable[[float], float]
) -> None:
    assert judged(declared, frames(declared, has_ts=False, arrival=arrival)) is None


def test_frames_that_are_left_out_change_no_rate() -> None:
    all_of_them = frames(PCM16_16K)
    assert judged(PCM16_16K, [*all_of_them[:10], *all_of_them[35:]]) is None
    one_in_two = [frame for at in range(0, 400, 8) for frame in all_of_them[at : at + 4]]
    assert judged(PCM16_16K, one_in_two) is None


@pytest.mark.parametrize("ts", [0, 2**63 - 1])
def test_a_media_time_that_stands_still_tells_nothing(ts: int) -> None:
    still = [Frame(frame.payload, ts, frame.received_at) for frame in frames(PCM16_8K)]
    assert judged(PCM16_8K, islice(cycle(still), 600)) is None


def test_a_media_time_that_runs_back_tells_nothing() -> None:
    came = frames(PCM16_16K)
    assert judged(PCM16_8K, came) is not None
    came[7], came[8] = came[8], came[7]
    assert judged(PCM16_8K, came) is None


def test_media_times_that_are_missing_here_and_there_leave_the_arrival() -> None:
    came = frames(PCM16_16K)
    came[3] = Frame(came[3].payload, None, came[3].received_at)
    assert judged(PCM16_8K, came) == Mismatch("pcm16 at 8000 Hz", "pcm16 at 16000 Hz")
    assert judged(PCM16_16K, came) is None


# ------------------------------------------------------------------- its end


def test_it_is_done_after_the_first_second() -> None:
    check = FormatCheck(PCM16_8K)
    for number, frame in enumerate(frames(PCM16_8K)[:50], 1):
        assert not check.done
        assert check.add(frame.payload, frame.ts, frame.received_at) is None
        assert check.done == (number == 50)


def test_a_verdict_is_given_once_and_nothing_more_is_asked() -> None:
    check = FormatCheck(PCM16_16K)
    wrong = frames(PCM16_8K)
    found = [check.add(frame.payload, frame.ts, frame.received_at) for frame in wrong]
    assert len([mismatch for mismatch in found if mismatch]) == 1
    assert check.done


@pytest.mark.parametrize("payload", [b"", b"\1"])
def test_a_trickle_of_frames_ends_the_watch(payload: bytes) -> None:
    check = FormatCheck(PCM16_24K)
    for _ in range(2000):
        assert check.add(payload, 0, 0.0) is None
    assert check.done
