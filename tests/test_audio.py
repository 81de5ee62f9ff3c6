"""Audio: G.711 against its table, and resampling against the tone that went in."""

import bisect
import struct
from collections.abc import Callable

import numpy as np
import pytest

from app.audio import SILENCE_DBFS, Converter, level_dbfs, mulaw_to_pcm16, pcm16_to_mulaw
from app.errors import UnsupportedFormat
from app.media import Encoding, MediaFormat

RATES = [8000, 16000, 24000, 48000]
RATE_PAIRS = [(source, target) for source in RATES for target in RATES if source != target]
ALL_CODES = bytes(range(256))
ALL_SAMPLES = struct.pack("<65536h", *range(-32768, 32768))


def pcm16(rate: int) -> MediaFormat:
    return MediaFormat(Encoding.PCM16, rate)


def mulaw(rate: int) -> MediaFormat:
    return MediaFormat(Encoding.MULAW, rate)


def tone(hertz: float, rate: int, samples: int, amplitude: float = 10000) -> bytes:
    turns = np.arange(samples) * hertz / rate
    return (np.sin(2 * np.pi * turns) * amplitude).round().astype("<i2").tobytes()


def samples_of(audio: bytes) -> np.ndarray:
    return np.frombuffer(audio, "<i2").astype(float)


def loudest_hertz(audio: bytes, rate: int) -> float:
    """Find the tone's frequency to far below 0.1 %, between two lines of the spectrum."""
    samples = samples_of(audio)
    spectrum = np.log(np.abs(np.fft.rfft(samples * np.hanning(len(samples)))) + 1e-9)
    peak = int(spectrum.argmax())
    left, top, right = spectrum[peak - 1 : peak + 2]
    between = 0.5 * (left - right) / (left - 2 * top + right)
    return float(peak + between) * rate / len(samples)


def converted(converter: Converter, audio: bytes, size: int) -> bytes:
    chunks = (audio[at : at + size] for at in range(0, len(audio), size))
    return b"".join(map(converter.convert, chunks)) + converter.flush()


# ------------------------------------------------------------------------- G.711

# Table 2a as the standard prints it: decision values between which every magnitude
# has one code, and one value in the middle of them. Bits, biases and inversions, which
# the code under test works with, play no part in it.
DECISIONS = [(32 + 2 * step << segment) - 33 for segment in range(8) for step in range(16)]
VALUES = [0] + [
    (low + high) // 2 for low, high in zip(DECISIONS[1:], [*DECISIONS[2:], 8159], strict=True)
]


def by_table_decode(code: int) -> int:
    number = 127 - code % 128
    return 4 * VALUES[number] if code >= 128 else -4 * VALUES[number]


def by_table_encode(sample: int) -> int:
    magnitude = abs(sample >> 2)
    number = bisect.bisect_right(DECISIONS, magnitude) - 1
    return 127 - number + (0 if sample < 0 else 128)


@pytest.mark.parametrize(
    ("audio", "encoding", "level"),
    [
        (b"", Encoding.PCM16, SILENCE_DBFS),
        (bytes(320), Encoding.PCM16, SILENCE_DBFS),
        (b"\xff" * 160, Encoding.MULAW, SILENCE_DBFS),
        (b"\x00\x80" * 160, Encoding.PCM16, 0.0),
        (b"\x00\x40" * 160, Encoding.PCM16, -6.0),
        (b"\x00\x40" * 160 + b"\x00", Encoding.PCM16, -6.0),
        (b"\x80\x00" * 80, Encoding.MULAW, -0.2),
    ],
    ids=["none", "silence", "mu-law silence", "full scale", "half", "half a sample", "mu-law"],
)
def test_a_level_is_below_full_scale(audio: bytes, encoding: Encoding, level: float) -> None:
    assert level_dbfs(audio, encoding) == pytest.approx(level, abs=0.1)


def test_the_table_of_this_test_is_that_of_the_standard() -> None:
    assert DECISIONS[1:4] + DECISIONS[16:18] + DECISIONS[-1:] == [1, 3, 5, 31, 35, 7903]
    assert VALUES[:3] + VALUES[15:17] + VALUES[-1:] == [0, 2, 4, 30, 33, 8031]


def test_each_code_decodes_to_the_value_in_the_table() -> None:
    expected = [by_table_decode(code) for code in range(256)]
    assert list(struct.unpack("<256h", mulaw_to_pcm16(ALL_CODES))) == expected


def test_each_sample_encodes_to_the_code_in_the_table() -> None:
    expected = bytes(by_table_encode(sample) for sample in range(-32768, 32768))
    assert pcm16_to_mulaw(ALL_SAMPLES) == expected


def test_a_code_survives_the_round_trip_but_for_negative_zero() -> None:
    assert pcm16_to_mulaw(mulaw_to_pcm16(ALL_CODES)) == ALL_CODES.replace(b"\x7f", b"\xff")


@pytest.mark.parametrize("convert", [mulaw_to_pcm16, pcm16_to_mulaw])
def test_no_audio_gives_no_audio(convert: Callable[[bytes], bytes]) -> None:
    assert convert(b"") == b""


def test_half_a_sample_is_refused() -> None:
    with pytest.raises(ValueError, match="not whole"):
        pcm16_to_mulaw(b"\x00\x00\x00")


# --------------------------------------------------------------------- converter


@pytest.mark.parametrize("form", [pcm16(8000), mulaw(8000), pcm16(24000)])
def test_equal_formats_pass_audio_through_untouched(form: MediaFormat) -> None:
    converter = Converter(form, form)
    assert converter.convert(ALL_CODES) is ALL_CODES
    assert converter.flush() == b""


def test_at_one_rate_only_the_encoding_changes_and_nothing_is_held() -> None:
    decoder = Converter(mulaw(8000), pcm16(8000))
    encoder = Converter(pcm16(16000), mulaw(16000))
    assert decoder.convert(ALL_CODES) == mulaw_to_pcm16(ALL_CODES)
    assert encoder.convert(ALL_SAMPLES) == pcm16_to_mulaw(ALL_SAMPLES)
    assert decoder.flush() + encoder.flush() == b""


@pytest.mark.parametrize(("source", "target"), RATE_PAIRS)
@pytest.mark.parametrize("samples", [0, 1, 7, 160, 161, 24000, 79999])
def test_the_length_is_exact_to_one_sample(source: int, target: int, samples: int) -> None:
    audio = converted(Converter(pcm16(source), pcm16(target)), bytes(2 * samples), 320)
    assert abs(len(audio) / 2 - samples * target / source) <= 1


@pytest.mark.parametrize(("source", "target"), RATE_PAIRS)
@pytest.mark.parametrize("hertz", [440, 1000, 3000])
def test_a_tone_keeps_its_frequency_and_its_strength(source: int, target: int, hertz: int) -> None:
    audio = converted(
        Converter(pcm16(source), pcm16(target)), tone(hertz, source, 2 * source), source // 25
    )
    assert loudest_hertz(audio, target) == pytest.approx(hertz, rel=1e-4)
    middle = samples_of(audio)[target // 2 : -target // 2]
    # 3 kHz is near the edge of what 8 kHz holds, and loses 0.3 dB there.
    assert middle.std() * 2**0.5 == pytest.approx(10000, rel=0.04)


@pytest.mark.parametrize(("source", "target"), [(8000, 16000), (8000, 24000)])
def test_a_higher_rate_adds_no_image_of_the_tone(source: int, target: int) -> None:
    audio = converted(Converter(pcm16(source), pcm16(target)), tone(3000, source, source), 320)
    samples = samples_of(audio)
    spectrum = np.abs(np.fft.rfft(samples * np.blackman(len(samples))))
    hertz = np.fft.rfftfreq(len(samples), 1 / target)
    # Rounding to 16 bits alone makes about -100 dB.
    assert spectrum[hertz > 4500].max() < spectrum.max() * 10 ** (-80 / 20)


def test_a_lower_rate_drops_what_it_cannot_hold() -> None:
    audio = converted(Converter(pcm16(24000), pcm16(8000)), tone(6000, 24000, 24000), 480)
    assert np.abs(samples_of(audio)[500:-500]).max() < 10


def test_the_chunks_make_no_difference() -> None:
    audio = tone(700, 8000, 8000)
    whole = converted(Converter(pcm16(8000), pcm16(24000)), audio, len(audio))
    for size in (2, 34, 320, 1600):
        assert converted(Converter(pcm16(8000), pcm16(24000)), audio, size) == whole


def test_mulaw_is_resampled_as_the_audio_that_it_stands_for() -> None:
    codes = pcm16_to_mulaw(tone(1000, 8000, 4000))
    linear = converted(Converter(pcm16(8000), pcm16(16000)), mulaw_to_pcm16(codes), 320)
    assert converted(Converter(mulaw(8000), pcm16(16000)), codes, 160) == linear
    assert converted(Converter(mulaw(8000), mulaw(16000)), codes, 160) == pcm16_to_mulaw(linear)


def test_audio_that_a_resampler_still_holds_comes_with_flush() -> None:
    converter = Converter(pcm16(8000), pcm16(16000))
    audio = tone(1000, 8000, 160)
    # It starts up for longer than a frame lasts: see the decision about its quality.
    assert converter.convert(audio) == b""
    assert len(converter.flush()) == 2 * len(audio)


def test_after_flush_a_converter_is_as_new() -> None:
    audio = tone(1000, 8000, 4000)
    converter = Converter(pcm16(8000), pcm16(16000))
    first = converted(converter, tone(333, 8000, 4321), 320)
    assert converted(converter, audio, 320) == converted(
        Converter(pcm16(8000), pcm16(16000)), audio, 320
    )
    assert len(first) == 2 * 2 * 4321


def test_two_converters_share_nothing() -> None:
    audio, other = tone(1000, 8000, 4000), tone(300, 8000, 4000)
    one, two = (Converter(pcm16(8000), pcm16(16000)) for _ in range(2))
    mixed = b""
    for at in range(0, len(audio), 320):
        mixed += one.convert(audio[at : at + 320])
        two.convert(other[at : at + 320])
    mixed += one.flush()
    assert mixed == converted(Converter(pcm16(8000), pcm16(16000)), audio, 320)


def test_silence_stays_silence() -> None:
    audio = converted(Converter(pcm16(8000), pcm16(24000)), bytes(16000), 320)
    assert audio == bytes(48000)


def test_samples_are_rounded_and_not_cut_off() -> None:
    audio = converted(Converter(pcm16(8000), pcm16(24000)), tone(440, 8000, 8000, 20), 320)
    # Cut off towards zero, a sample would lose half a step and this tone 0.6 of its 20.
    assert samples_of(audio)[2000:-2000].std() * 2**0.5 == pytest.approx(20, abs=0.25)


def test_a_peak_beyond_full_scale_is_clipped_and_does_not_wrap() -> None:
    half = np.full(40, 32767, "<i2")
    square = np.tile(np.concatenate([half, ~half]), 50)
    samples = samples_of(
        converted(Converter(pcm16(8000), pcm16(16000)), square.tobytes(), 320)
    ).reshape(-1, 160)
    assert samples.max() == 32767
    assert samples.min() == -32768
    # Beside each edge it overshoots; what wraps has the other sign.
    assert (samples[1:-1, 3:77] > 0).all()
    assert (samples[1:-1, 83:157] < 0).all()


def test_half_a_sample_cannot_be_resampled() -> None:
    with pytest.raises(ValueError, match="multiple of element size"):
        Converter(pcm16(8000), pcm16(16000)).convert(b"\x00\x00\x00")


@pytest.mark.parametrize(
    ("source", "target"),
    [
        (MediaFormat(Encoding.PCM16, 8000, 2), pcm16(8000)),
        (pcm16(8000), MediaFormat(Encoding.PCM16, 8000, 2)),
    ],
)
def test_more_than_one_channel_is_refused(source: MediaFormat, target: MediaFormat) -> None:
    with pytest.raises(UnsupportedFormat, match="mono"):
        Converter(source, target)
