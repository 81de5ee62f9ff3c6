"""A stream's entries turned into placed PCM16, the same way for whoever plays them."""

from collections.abc import Iterator, Sequence

from app.archive.timeline import SKEW_SECONDS, Mark, Timeline
from app.audio import mulaw_to_pcm16
from app.events import AudioEntry, Entry
from app.media import PCM16_BYTES_PER_SAMPLE, Encoding, Track
from app.pubsub.records import StoredRecord


class Placing:
    """Place the audio of a stream's entries, given in order, on a timeline of its tracks.

    `origin_ms` is the media time of sample 0; where it is None, that of the first audio
    given. Tracks that the record does not name are left out.
    """

    def __init__(
        self,
        record: StoredRecord,
        origin_ms: int | None = None,
        *,
        mark: Mark | None = None,
        skew_seconds: float = SKEW_SECONDS,
    ) -> None:
        stream = record.stream
        self.tracks = tuple(dict.fromkeys(stream.tracks)) or (Track.INBOUND,)
        self.sample_rate = stream.published.sample_rate
        self._is_mulaw = stream.published.encoding is Encoding.MULAW
        self._channel = {track: place for place, track in enumerate(self.tracks)}
        self._mark = mark
        self._skew_seconds = skew_seconds
        self.origin_ms = origin_ms or 0
        self._has_begun = False
        if origin_ms is not None:
            self._begin(origin_ms)
        else:
            self.timeline = Timeline(self.sample_rate, len(self.tracks), 0)

    def begin_with(self, entries: Sequence[tuple[str, Entry]]) -> None:
        """Let time begin with the first audio among these, unless it has begun."""
        if self._has_begun:
            return
        first: dict[Track, int] = {}
        for _, entry in entries:
            if isinstance(entry, AudioEntry) and entry.track in self._channel:
                first.setdefault(entry.track, entry.ts)
        if first:
            self._begin(min(first.values()))

    def of(self, entries: Sequence[tuple[str, Entry]]) -> Iterator[tuple[int, int, bytes]]:
        """Give the channel, the first sample and the PCM16 of each entry that has audio."""
        self.begin_with(entries)
        for _, entry in entries:
            if type(entry) is AudioEntry:
                placed = self.placed(entry)
                if placed is not None:
                    yield placed

    def placed(self, entry: AudioEntry) -> tuple[int, int, bytes] | None:
        """Place one entry; None where its track is none of the stream's."""
        channel = self._channel.get(entry.track)
        if channel is None:
            return None
        audio = entry.audio
        if self._is_mulaw:
            audio = mulaw_to_pcm16(audio)
        elif len(audio) % PCM16_BYTES_PER_SAMPLE:
            audio = audio[:-1]
        start = self.timeline.place(channel, entry.ts, len(audio) // PCM16_BYTES_PER_SAMPLE)
        return channel, start, audio

    def _begin(self, origin_ms: int) -> None:
        self._has_begun = True
        self.origin_ms = origin_ms
        self.timeline = Timeline(
            self.sample_rate,
            len(self.tracks),
            origin_ms,
            mark=self._mark,
            skew_seconds=self._skew_seconds,
        )
