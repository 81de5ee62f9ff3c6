"""A call rebuilt from what Redis retains of it: its audio as WAV, or as its carrier sent it.

What is rebuilt has the audio that was published, in the carrier's own encoding where that
is as good, and gaps where audio is missing: numbers that were never sent. It has no keys
pressed and no marks; those stand in the call's events.
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field

import msgspec

from app.archive.base import Archive
from app.archive.calls import Call
from app.archive.survey import CHUNK_ENTRIES, FIRST
from app.audio import mulaw_to_pcm16, pcm16_to_mulaw
from app.errors import CommandFailed
from app.events import AudioEntry, Entry, GapEntry, StreamRecord
from app.media import Encoding, MediaFormat, Track
from app.pubsub.records import KeptStream, StoredRecord
from app.tools.capture.record import CARRIERS
from app.wire import exotel, twilio
from app.wire.capture import CaptureFacts
from app.wire.masking import masked_message

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Kept:
    """A call's stream of which audio is kept; `is_trimmed`: its beginning is gone."""

    business_id: str
    stream_sid: str
    record: StoredRecord
    is_trimmed: bool

    @property
    def is_live(self) -> bool:
        """Tell whether more is to come."""
        return self.record.ended_at is None


async def find_kept(
    archive: Archive, call_sid: str, *, business_id: str = "", stream_sid: str = ""
) -> Kept:
    """Find the audio of a call: the stream that is named, else the latest kept.

    Raises:
        CommandFailed: there is no such call, or its audio is not kept any more.
        NotThere: the business has no such call.
    """
    owner = business_id or await archive.owner_of(call_sid)
    if owner is None:
        raise CommandFailed(f"there is no call {call_sid}, or it is not kept any more")
    call: Call = await archive.call(owner, call_sid)
    for stream in reversed(call.summary.streams):
        record = call.records.get(stream.stream_sid)
        if record is None or stream_sid not in ("", stream.stream_sid):
            continue
        extent = await archive.extent(record.kept)
        if extent is not None:
            first = f"{record.stream.started_at}-1"
            return Kept(owner, stream.stream_sid, record, extent.first_id != first)
    raise CommandFailed(f"no audio of {call_sid} is kept: it had none, or its retention is over")


def facts_of(kept: Kept) -> CaptureFacts:
    """Tell what stands beside a rebuilt capture; its messages are paced by media time."""
    stream = kept.record.stream
    return CaptureFacts(
        carrier=CARRIERS[stream.call.carrier],
        business_id=kept.business_id,
        call_sid=stream.call.call_sid,
        stream_sid=kept.stream_sid,
        began_at=stream.started_at,
        ended=not kept.is_live,
    )


async def rebuilt(
    archive: Archive, kept: Kept, mask_phone: Callable[[str], str]
) -> AsyncGenerator[str | bytes, None]:
    """Give a stream's messages as its carrier may have sent them."""
    writer = _WRITERS[kept.record.stream.call.carrier](kept.record.stream)
    for message in writer.opening():
        yield masked_message(message, mask_phone)
    async for entry in _entries(archive, kept.record.kept):
        for one in writer.written(entry):
            yield one
    if not kept.is_live:
        yield writer.stop()


async def _entries(archive: Archive, stream: KeptStream) -> AsyncIterator[Entry]:
    after = FIRST
    while True:
        chunk = await archive.entries(stream, after, CHUNK_ENTRIES)
        for _, entry in chunk:
            yield entry
        if len(chunk) < CHUNK_ENTRIES:
            return
        after = chunk[-1][0]


def _peer_name(stream: StreamRecord) -> str:
    """Return the name that the peer used for its stream; 0.1 published under that name."""
    return stream.peer_stream_sid or stream.call.stream_sid


@dataclass
class _Writer(ABC):
    """Write entries as a carrier's messages, numbered anew; a gap takes numbers away."""

    stream: StreamRecord
    seq: int = field(default=1)
    chunks: Counter[Track] = field(default_factory=Counter)

    @property
    def format(self) -> MediaFormat:
        """Give the form of the audio it writes: the carrier's, unless the rate was changed."""
        published, carried = self.stream.published, self.stream.carried
        return carried if published.sample_rate == carried.sample_rate else published

    @abstractmethod
    def opening(self) -> list[str]:
        """Write what opens the stream."""

    @abstractmethod
    def frame(self, payload: bytes, track: Track, ts: int) -> str | bytes:
        """Write the next frame of audio; `ts` is its media time."""

    @abstractmethod
    def stop(self) -> str:
        """Write what ends the stream."""

    def written(self, entry: Entry) -> Iterator[str | bytes]:
        """Write an entry: each frame that was joined in it by itself, where it can be told."""
        if isinstance(entry, GapEntry):
            self.seq += entry.frames
        elif isinstance(entry, AudioEntry):
            audio = self._converted(entry.audio)
            step = len(audio) // entry.frames
            if step * entry.frames != len(audio) or step % self.format.encoding.bytes_per_sample:
                step = len(audio)
            for at in range(0, len(audio), max(1, step)):
                self.seq += 1
                self.chunks[entry.track] += 1
                ts = entry.ts + round(self.format.duration_ms(at))
                yield self.frame(audio[at : at + step], entry.track, ts)

    def _converted(self, audio: bytes) -> bytes:
        published, wanted = self.stream.published.encoding, self.format.encoding
        if published is wanted:
            return audio
        return pcm16_to_mulaw(audio) if wanted is Encoding.MULAW else mulaw_to_pcm16(audio)


class _TwilioWriter(_Writer):
    def opening(self) -> list[str]:
        stream, audio = self.stream, self.format
        start = twilio.start_message(
            *(_peer_name(stream), stream.call.call_sid),
            tracks=stream.tracks,
            params=stream.params,
            sample_rate=audio.sample_rate,
            encoding="audio/x-mulaw" if audio.encoding is Encoding.MULAW else "audio/x-l16",
        )
        return [twilio.connected_message(), start]

    def frame(self, payload: bytes, track: Track, ts: int) -> str:
        return twilio.media_message(
            *(_peer_name(self.stream), payload),
            seq=self.seq,
            chunk=self.chunks[track],
            timestamp=ts,
            track=track,
        )

    def stop(self) -> str:
        name, call_sid = _peer_name(self.stream), self.stream.call.call_sid
        return twilio.stop_message(name, call_sid, seq=self.seq + 1)


class _ExotelWriter(_Writer):
    def opening(self) -> list[str]:
        stream, audio = self.stream, self.format
        start = exotel.start_message(
            *(_peer_name(stream), stream.call.call_sid),
            from_number=stream.from_number,
            to_number=stream.to_number,
            params=stream.params,
            sample_rate=audio.sample_rate,
            encoding="audio/x-mulaw" if audio.encoding is Encoding.MULAW else "audio/x-raw",
        )
        return [exotel.connected_message(), start]

    def frame(self, payload: bytes, track: Track, ts: int) -> str:
        sid, chunk = _peer_name(self.stream), self.chunks[track]
        return exotel.media_message(sid, payload, seq=self.seq, chunk=chunk, timestamp=ts)

    def stop(self) -> str:
        name, call_sid = _peer_name(self.stream), self.stream.call.call_sid
        return exotel.stop_message(name, call_sid, seq=self.seq + 1)


class _ClientWriter(_Writer):
    def opening(self) -> list[str]:
        call, audio = self.stream.call, self.format
        start = {
            "event": "start",
            "interaction_id": call.call_sid,
            "tenant_id": call.business_id,
            "sample_rate": audio.sample_rate,
            "encoding": audio.encoding.value,
        }
        return [_encode(start).decode()]

    def frame(self, payload: bytes, track: Track, ts: int) -> bytes:
        return payload

    def stop(self) -> str:
        return _encode({"event": "stop"}).decode()


_WRITERS: Mapping[str, type[_Writer]] = {
    "twilio": _TwilioWriter,
    "exotel": _ExotelWriter,
    "client": _ClientWriter,
}
