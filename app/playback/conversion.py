"""Audio of any of the known formats, made a carrier's as it is asked for."""

from app.audio import Converter
from app.media import MediaFormat


class Conversion:
    """Convert pieces of audio into one stream of the `carried` format.

    Pieces of one format that follow one another join without a seam. A resampler gives
    its audio late: what was fed ends at `expected`, of which `produced` is there; both
    are bytes since the beginning.
    """

    def __init__(self, carried: MediaFormat) -> None:
        self._carried = carried
        self._source: MediaFormat | None = None
        self._converter: Converter | None = None
        self._base = 0
        self._fed = 0
        self.produced = 0

    @property
    def expected(self) -> int:
        """Tell where all that was fed will end, to a sample."""
        return self._base + self.size_of(self._fed, self._source)

    @property
    def has_rest(self) -> bool:
        """Tell whether a resampler holds some of what was fed."""
        source = self._source
        return (
            self._fed > 0
            and source is not None
            and (source.sample_rate != self._carried.sample_rate)
        )

    def size_of(self, size: int, source: MediaFormat | None) -> int:
        """Tell how many bytes some bytes of `source` become, to a sample."""
        if source is None or source == self._carried:
            return size
        samples = size // source.encoding.bytes_per_sample
        converted = round(samples * self._carried.sample_rate / source.sample_rate)
        return converted * self._carried.encoding.bytes_per_sample

    def feed(self, audio: bytes, source: MediaFormat) -> bytes:
        """Take the next piece; give what is ready, which may be nothing."""
        before = b""
        if source != self._source or self._converter is None:
            before = self.flush()
            self._source, self._converter = source, Converter(source, self._carried)
        converted = self._converter.convert(audio)
        self._fed += len(audio)
        self.produced += len(converted)
        return before + converted

    def flush(self) -> bytes:
        """Give the rest; what is fed next begins anew."""
        rest = self._converter.flush() if self._converter is not None else b""
        self.produced += len(rest)
        self._base, self._fed = self.produced, 0
        return rest

    def restart(self, at: int) -> None:
        """Forget what was fed, and go on at this place."""
        self._converter = self._source = None
        self._base, self._fed, self.produced = at, 0, at
