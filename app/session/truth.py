"""Whether audio is what its `start` declared, judged by its first second."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from app.audio import mulaw_to_pcm16
from app.media import Encoding, MediaFormat

# What phones and their services send; a rate of bytes is read as one of these, or as none.
KNOWN_FORMATS: Final = (
    MediaFormat(Encoding.MULAW, 8000),
    *(MediaFormat(Encoding.PCM16, rate) for rate in (8000, 16000, 24000, 48000)),
)
NEAR_KNOWN: Final = 0.15
NEAR_DECLARED: Final = 0.25
# What comes faster than the fastest of them does not come in real time.
FASTEST_BYTES_PER_SECOND: Final = 2 * max(known.bytes_per_second for known in KNOWN_FORMATS)

# Media time is exact; arrival shakes with the network, so it must be watched for longer.
MIN_TS_SECONDS: Final = 0.4
MIN_ARRIVAL_SECONDS: Final = 0.8
# A declared second may take a twelfth of one, where mu-law is declared and PCM16 at 48 kHz
# is sent; ten of them are then enough for either clock.
MAX_DECLARED_SECONDS: Final = 10
MAX_FRAMES: Final = 2000
SHORTEST_FRAME_SECONDS: Final = 0.001

# Audio that is read in its own encoding can be predicted from the samples before, and
# misread it can hardly be: the prediction gain tells them apart at any level and rate.
PREDICTOR_ORDER: Final = 8
# Blocks are short, so that a pause beside speech does not look like a slow, loud wave.
BLOCK_SAMPLES: Final = 256
QUIET_RMS: Final = 16.0
# White noise in PCM16, misread as mu-law, gains up to 2.5 dB: its two bytes share a sign.
MULAW_MARGIN_DB: Final = 2.7
PCM16_MARGIN_DB: Final = 1.0
# Misread PCM16 stays below this. A tone in mu-law, at an even part of the sample rate,
# can be predicted well when it is misread, too; but it is far above this as it is.
SOUND_MULAW_DB: Final = 5.0


@dataclass(frozen=True, slots=True)
class Mismatch:
    """What was declared and what came, as in `pcm16 at 16000 Hz`."""

    declared: str
    measured: str


class FormatCheck:
    """Compare one track's first second with the format its `start` declared.

    It judges once, when a second of declared audio is there and the clock has run
    long enough to measure by: that of the carrier where every frame has a media
    time, else that of the frames' arrival. Where no clock serves, as in a pasted replay
    without media times, the encoding alone is judged, and the declared rate is
    repeated as the measured one. Silence and white noise decide nothing about the
    encoding.
    """

    def __init__(self, declared: MediaFormat) -> None:
        self._declared = declared
        self._audio = bytearray()
        self._size = 0
        self._sizes: list[int] = []
        self._media_seconds: list[float] = []
        self._arrivals: list[float] = []
        self._done = False

    @property
    def done(self) -> bool:
        """Tell whether the judgement has been given, so that no more audio is needed."""
        return self._done

    def add(self, payload: bytes, ts: int | None, received_at: float) -> Mismatch | None:
        """Take the next frame: its bytes, media time in ms and arrival in seconds.

        Gives the mismatch with the frame that shows it, and None with all others.
        """
        if self._done:
            return None
        second = self._declared.bytes_per_second
        if len(self._audio) < second:
            self._audio += payload
        self._size += len(payload)
        self._sizes.append(len(payload))
        self._arrivals.append(received_at)
        if ts is not None:
            self._media_seconds.append(ts / 1000)
        if not self._is_full and (self._size < second or self._clock_must_run_on):
            return None
        mismatch = self._judge()
        self._done = True
        self._audio.clear()
        for kept in (self._sizes, self._arrivals, self._media_seconds):
            kept.clear()
        return mismatch

    @property
    def _is_full(self) -> bool:
        limit = MAX_DECLARED_SECONDS * self._declared.bytes_per_second
        return self._size >= limit or len(self._sizes) >= MAX_FRAMES

    @property
    def _has_media_time(self) -> bool:
        return len(self._media_seconds) == len(self._sizes)

    @property
    def _clock_has_run(self) -> bool:
        if self._has_media_time:
            return self._media_seconds[-1] - self._media_seconds[0] >= MIN_TS_SECONDS
        return self._arrivals[-1] - self._arrivals[0] >= MIN_ARRIVAL_SECONDS

    @property
    def _clock_must_run_on(self) -> bool:
        arriving = self._arrivals[-1] - self._arrivals[0]
        arrived = self._size - self._sizes[0]
        is_pasted = arrived > FASTEST_BYTES_PER_SECOND * arriving and not self._has_media_time
        return not (self._clock_has_run or is_pasted)

    def _judge(self) -> Mismatch | None:
        measured = self._format_by_rate() if self._clock_has_run else None
        if measured is None:
            encoding = _encoding_of(bytes(self._audio), self._declared.encoding)
            if encoding is self._declared.encoding:
                return None
            measured = MediaFormat(encoding, self._declared.sample_rate)
        return Mismatch(_text(self._declared), _text(measured))

    def _format_by_rate(self) -> MediaFormat | None:
        """Find the other known format whose bytes come this fast.

        Both halves of the time must agree, since a burst, a stall or a loss in one of
        them is no other rate. By media time a single frame must agree as well, since
        frames that are left out in silence are none either.
        """
        # A media time is that of a frame's first sample, an arrival that of its last.
        if self._has_media_time:
            times, sizes = np.array(self._media_seconds), self._sizes[:-1]
        else:
            times, sizes = np.array(self._arrivals), self._sizes[1:]
        steps = np.diff(times)
        taken = np.concatenate(([0], np.cumsum(sizes)))
        middle = int(np.searchsorted(times, (times[0] + times[-1]) / 2))
        if steps.min() < 0 or not times[0] < times[middle] < times[-1]:
            return None
        marks = [0, middle, -1]
        rate = taken[-1] / (times[-1] - times[0])
        measured = [rate, *(np.diff(taken[marks]) / np.diff(times[marks]))]
        if self._has_media_time:
            measured.append(np.median(sizes) / max(np.median(steps), SHORTEST_FRAME_SECONDS))
        if _is_near(rate, self._declared, NEAR_DECLARED):
            return None
        return next(
            (
                known
                for known in KNOWN_FORMATS
                if all(_is_near(found, known, NEAR_KNOWN) for found in measured)
            ),
            None,
        )


def _is_near(bytes_per_second: float, audio: MediaFormat, part: float) -> bool:
    return abs(bytes_per_second / audio.bytes_per_second - 1) <= part


def _text(audio: MediaFormat) -> str:
    return f"{audio.encoding} at {audio.sample_rate} Hz"


def _encoding_of(audio: bytes, declared: Encoding) -> Encoding:
    """Tell which encoding the audio is in; in doubt, the declared one."""
    audio = audio[: len(audio) - len(audio) % 2]
    pcm16_gain, pcm16_rms = _prediction_gain(audio)
    mulaw_gain, mulaw_rms = _prediction_gain(mulaw_to_pcm16(audio))
    if min(pcm16_rms, mulaw_rms) < QUIET_RMS:
        return declared
    if declared is Encoding.PCM16:
        is_mulaw = mulaw_gain >= pcm16_gain + MULAW_MARGIN_DB
        return Encoding.MULAW if is_mulaw else declared
    is_pcm16 = mulaw_gain < SOUND_MULAW_DB and pcm16_gain >= mulaw_gain + PCM16_MARGIN_DB
    return Encoding.PCM16 if is_pcm16 else declared


def _prediction_gain(audio: bytes) -> tuple[float, float]:
    """Give how well PCM16 can be predicted, in dB, and its RMS without what is constant.

    The gain is the audio's power over that of the residual of the best linear
    predictor, found from the autocorrelation (Makhoul, "Linear prediction: a tutorial
    review", 1975).
    """
    samples = np.frombuffer(audio, "<i2").astype(np.float64)
    blocks = samples[: len(samples) // BLOCK_SAMPLES * BLOCK_SAMPLES].reshape(-1, BLOCK_SAMPLES)
    blocks = blocks - blocks.mean(axis=1, keepdims=True)
    lags = np.arange(PREDICTOR_ORDER + 1)
    correlation: npt.NDArray[np.float64] = np.array(
        [np.vdot(blocks[:, lag:], blocks[:, : BLOCK_SAMPLES - lag]) for lag in lags]
    )
    power = correlation[0]
    if power == 0:
        return 0.0, 0.0
    correlation /= power
    matrix = correlation[np.abs(np.subtract.outer(lags[:-1], lags[:-1]))]
    residual = 1 - float(np.linalg.solve(matrix, correlation[1:]) @ correlation[1:])
    gain = -10 * np.log10(max(residual, 1e-9))
    return float(gain), float(np.sqrt(power / blocks.size))
