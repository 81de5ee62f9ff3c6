"""Convert audio: G.711 mu-law to and from PCM16, and from one sample rate to another.

PCM16 is 16-bit signed little-endian throughout, mono.
"""

from typing import Final

import numpy as np
import numpy.typing as npt
import soxr

from app.errors import UnsupportedFormat
from app.media import Encoding, MediaFormat

# Why this one: docs/decisions/0001-resampling-quality.md.
RESAMPLING_QUALITY: Final = "LQ"

# ITU-T G.711, table 2a, is about 14-bit magnitudes. The bias of 33 makes each of the
# eight segments start at a power of two: 32, 64, 128 and so on to 4,096.
_BIAS: Final = 33
_LARGEST: Final = 8191 - _BIAS
_SEGMENT_STARTS: Final = 64 << np.arange(7)


def _decoding_table() -> npt.NDArray[np.int16]:
    # "all bits inverted" on the line: sign, three bits of segment, four of step.
    code = ~np.arange(256) & 0xFF
    segment, step = code >> 4 & 7, code & 15
    magnitude = ((2 * step + _BIAS) << segment) - _BIAS
    return np.where(code & 0x80, -4 * magnitude, 4 * magnitude).astype("<i2")


def _encoding_table() -> npt.NDArray[np.uint8]:
    # Indexed by the sample's 16 bits read as unsigned, so that no sign needs care.
    sample = np.arange(65536).astype(np.uint16).view(np.int16).astype(np.int32) >> 2
    magnitude = np.minimum(np.abs(sample), _LARGEST) + _BIAS
    segment = np.searchsorted(_SEGMENT_STARTS, magnitude, side="right")
    step = magnitude >> (segment + 1) & 15
    code = ~(np.where(sample < 0, 0x80, 0) | segment << 4 | step) & 0xFF
    return np.asarray(code, np.uint8)


_DECODED: Final = _decoding_table()
_ENCODED: Final = _encoding_table()


def mulaw_to_pcm16(audio: bytes) -> bytes:
    """Decode G.711 mu-law; the result has twice the bytes.

    Source: ITU-T G.711, table 2a. Any byte is a code.
    """
    return _DECODED.take(np.frombuffer(audio, np.uint8)).tobytes()


def pcm16_to_mulaw(audio: bytes) -> bytes:
    """Encode PCM16 as G.711 mu-law; the result has half the bytes.

    Source: ITU-T G.711, table 2a, on samples cut to 14 bits as Sun's reference code
    does. Decoding gives each of the 256 codes back, but for negative zero.

    Raises:
        ValueError: the last sample is not whole.
    """
    return _ENCODED.take(np.frombuffer(audio, "<u2")).tobytes()


class Converter:
    """Converts one track of one stream from one format to another.

    Resampling is a stream: `convert` gives what is ready, which may be nothing or
    more than went in, and `flush` the rest. Between equal rates each call gives all of its
    audio. Over a stream, the samples out are the samples in times the rates' ratio, ± 1.

    Raises:
        UnsupportedFormat: a format has more than one channel.
    """

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

    def convert(self, audio: bytes) -> bytes:
        """Take the next audio in the source's format, give what is ready in the target's.

        Raises:
            ValueError: the last sample is not whole.
        """
        if self._resampler is None and self._source.encoding is self._target.encoding:
            return audio
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
        if self._resampler is None:
            return audio
        samples = np.frombuffer(audio, "<i2").astype(np.float32)
        resampled: npt.NDArray[np.float32] = self._resampler.resample_chunk(samples, last=last)
        # A peak between two samples may be higher than either, hence the clipping.
        return resampled.round().clip(-32768, 32767).astype("<i2").tobytes()

    def _finish(self, audio: bytes) -> bytes:
        return pcm16_to_mulaw(audio) if self._target.encoding is Encoding.MULAW else audio
