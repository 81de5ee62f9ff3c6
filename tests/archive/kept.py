"""Calls as the service would have left them, written by each adapter."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from app.archive.base import Archive
from app.events import (
    AudioEntry,
    CallIdentity,
    EndEntry,
    Entry,
    GapEntry,
    LifecycleEvent,
    StreamRecord,
)
from app.media import Encoding, MediaFormat, Track
from app.pubsub.base import (
    Announce,
    Append,
    CloseStream,
    ListCall,
    NoteCall,
    OpenStream,
    PubSub,
)
from app.pubsub.call_log import BEGINNINGS
from app.pubsub.memory import MemoryPubSub
from tests.samples import PCM16_8K, a_receipt

NOW_MS = 1_800_000_000_000
RETAINED = 600


def audio(n: int, ts: int, payload: bytes, track: Track = Track.INBOUND) -> AudioEntry:
    """Make an audio entry."""
    return AudioEntry(n, n + 1, ts, track, payload)


def gap(n: int, frames: int, track: Track | None = Track.INBOUND, why: str = "carrier") -> GapEntry:
    """Make a gap entry."""
    return GapEntry(n, track, frames, n, n + frames - 1, 0, why)


@dataclass
class Kept:
    """An archive, and what writes into it as the service does."""

    pubsub: PubSub
    archive: Archive
    _ids: int = field(default=0)

    async def tell(self, call: CallIdentity, name: str, at: int, **data: Any) -> None:
        """Say something of a call."""
        self._ids += 1
        event = LifecycleEvent(name, f"event-{self._ids}", at, call, data)
        await self.pubsub.write([NoteCall(event)])
        if name in BEGINNINGS:
            await self.pubsub.write([ListCall(event)])
        await self.pubsub.write([Announce(event)])

    async def begin(
        self,
        call: CallIdentity,
        at: int = NOW_MS,
        published: MediaFormat = PCM16_8K,
        tracks: tuple[Track, ...] = (Track.INBOUND,),
        numbers: tuple[str, str] = ("+15005550009", "+15005550006"),
    ) -> None:
        """Begin a stream."""
        carried = MediaFormat(Encoding.MULAW, 8000)
        record = StreamRecord(call, *numbers, {"a": "b"}, published, carried, tracks, at)
        await self.pubsub.write([OpenStream(call.stream_sid, record, RETAINED)])
        said = {"encoding": published.encoding, "sampleRate": published.sample_rate}
        who = {"from": numbers[0], "to": numbers[1]}
        await self.tell(
            *(call, "stream.started", at),
            **{**said, **who, "tracks": list(tracks), "startedAt": at, "channels": 1},
        )

    async def forget(self, stream_sid: str) -> None:
        """Let a stream's keys expire, so that another business may use its id."""
        if isinstance(self.pubsub, MemoryPubSub):
            self.pubsub.erase_stream(stream_sid)
        else:
            kinds = ("audio", "control", "stream")
            await self.pubsub._ways.ask("UNLINK", *(f"{one}:{{{stream_sid}}}" for one in kinds))

    async def put(
        self, call: CallIdentity, entries: Sequence[Entry], at: int = NOW_MS, kept: int = 100_000
    ) -> None:
        """Write entries of the stream that began at `at`."""
        for first in range(0, len(entries), 500):
            batch = entries[first : first + 500]
            await self.pubsub.write(
                [Append(call.stream_sid, at, entry.n, entry, kept) for entry in batch]
            )

    async def end(
        self, call: CallIdentity, n: int, at: int = NOW_MS + 5000, began: int = NOW_MS
    ) -> None:
        """End a stream, with its receipt."""
        receipt = a_receipt(n - 1)
        await self.put(call, [EndEntry(n, "stop")], began)
        await self.pubsub.write(
            [CloseStream(call.stream_sid, at, receipt, RETAINED, call.business_id, began)]
        )
        await self.tell(call, "stream.stopped", at, receipt=receipt.as_data())

    async def whole(
        self,
        call: CallIdentity,
        entries: Sequence[Entry],
        published: MediaFormat = PCM16_8K,
        tracks: tuple[Track, ...] = (Track.INBOUND,),
        at: int = NOW_MS,
        kept: int = 100_000,
    ) -> None:
        """Leave a call that is over."""
        await self.tell(replace(call, stream_sid=""), "call.incoming", at - 100)
        await self.begin(call, at, published, tracks)
        await self.put(call, entries, at, kept)
        await self.end(call, entries[-1].n + 1 if entries else 1, at + 5000, at)
