"""Convert audio: G.711 mu-law to and from PCM16, and from one sample rate to another.

PCM16 is 16-bit signed little-endian throughout, mono.
"""

import math
import warnings
from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt
import soxr

from app.errors import UnsupportedFormat
from app.media import PCM16_BYTES_PER_SAMPLE, Encoding, MediaFormat

with warnings.catch_warnings():
    # It left the standard library with Python 3.13; from then on it is the package
    # audioop-lts. A tenth of numpy's time for a frame: docs/decisions/0007.
    warnings.simplefilter("ignore", DeprecationWarning)
    import audioop

# Why this one: docs/decisions/0001-resampling-quality.md.
RESAMPLING_QUALITY: Final = "LQ"
# What 16 bits can tell apart from silence.
SILENCE_DBFS: Final = -96.0


def mulaw_to_pcm16(audio: bytes) -> bytes:
    """Decode G.711 mu-law; the result has twice the bytes.

    Source: ITU-T G.711, table 2a. Any byte is a code.
    """
    return audioop.ulaw2lin(audio, PCM16_BYTES_PER_SAMPLE)


def pcm16_to_mulaw(audio: bytes) -> bytes:
    """Encode PCM16 as G.711 mu-law; the result has half the bytes.

    Source: ITU-T G.711, table 2a, on samples cut to 14 bits as Sun's reference code
    does. Decoding gives each of the 256 codes back, but for negative zero.

    Raises:
        ValueError: the last sample is not whole.
    """
    if len(audio) % PCM16_BYTES_PER_SAMPLE:
        raise ValueError("the last sample is not whole")
    return audioop.lin2ulaw(audio, PCM16_BYTES_PER_SAMPLE)


def level_dbfs(audio: bytes, encoding: Encoding) -> float:
    """Give the level of some audio: its RMS in dB below full scale, -96 for silence.

    Full scale is a square wave of the highest sample, so a sine reaches -3.
    """
    pcm16 = audio if encoding is Encoding.PCM16 else mulaw_to_pcm16(audio)
    whole = len(pcm16) - len(pcm16) % PCM16_BYTES_PER_SAMPLE
    loudness = audioop.rms(pcm16[:whole], PCM16_BYTES_PER_SAMPLE)
    return round(20 * math.log10(loudness / 32768), 1) if loudness else SILENCE_DBFS


def _unchanged(audio: bytes) -> bytes:
    return audio


_RECODERS: Final = {
    (Encoding.MULAW, Encoding.MULAW): _unchanged,
    (Encoding.MULAW, Encoding.PCM16): mulaw_to_pcm16,
    (Encoding.PCM16, Encoding.MULAW): pcm16_to_mulaw,
    (Encoding.PCM16, Encoding.PCM16): _unchanged,
}


class Converter:
    """Converts one track of one stream from one format to another.

    Resampling is a stream: `convert` gives what is ready, which may be nothing or
    more than went in, and `flush` the rest. Between equal rates each call gives all of its
    audio. Over a stream, the samples out are the samples in times the rates' ratio, ± 1.

    Raises:
        UnsupportedFormat: a format has more than one channel.
        ValueError: from `convert`: the last sample is not whole.
    """

    convert: Callable[[bytes], bytes]

    def __init__(self, source: MediaFormat, target: MediaFormat) -> None:
        if source.channels != 1 or target.channels != 1:
            raise UnsupportedFormat("only mono audio is converted")
        self._source = source
        self._target = target
        # float32, since soxr dithers what it writes as int16: silence must stay silence.
        self._resampler = (
            None
            if source.sample_rate == target.sample_rate
            else soxr.ResampleStream(
                source.sample_rate,
                target.sample_rate,
                num_channels=1,
                dtype="float32",
                quality=RESAMPLING_QUALITY,
            )
        )
        if self._resampler is None:
            self.convert = _RECODERS[source.encoding, target.encoding]
        else:
            self.convert = self._resample_next

    def _resample_next(self, audio: bytes) -> bytes:
        if self._source.encoding is Encoding.MULAW:
            audio = mulaw_to_pcm16(audio)
        return self._finish(self._resample(audio, last=False))

    def flush(self) -> bytes:
        """Give the rest of the audio; the next `convert` begins a new stream."""
        if self._resampler is None:
            return b""
        rest = self._resample(b"", last=True)
        self._resampler.clear()
        return self._finish(rest)

    def _resample(self, audio: bytes, *, last: bool) -> bytes:
        assert self._resampler is not None
        samples = np.frombuffer(audio, "<i2").astype(np.float32)
        resampled: npt.NDArray[np.float32] = self._resampler.resample_chunk(samples, last=last)
        # A peak between two samples may be higher than either, hence the clipping.
        return resampled.round().clip(-32768, 32767).astype("<i2").tobytes()

    def _finish(self, audio: bytes) -> bytes:
        return pcm16_to_mulaw(audio) if self._target.encoding is Encoding.MULAW else audio
