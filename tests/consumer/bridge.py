"""Calls as the service leaves them in Redis, written step by step."""

import asyncio
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

from app.errors import BrokerRefused
from app.events import (
    AudioEntry,
    AudioReceipt,
    CallIdentity,
    EndEntry,
    Entry,
    GapEntry,
    HeldStream,
    LifecycleEvent,
    StreamRecord,
)
from app.media import Encoding, MediaFormat, Track
from app.pubsub.base import Announce, Append, CloseStream, OpenStream, Write
from app.pubsub.redis_streams import RedisStreams
from app.store.redis import RedisStore
from tests.samples import MULAW_8K, PCM16_8K, a_receipt
from tests.waiting import until

START = 1_800_000_000_000
RETAINED = 600
LEASE_SECONDS = 20.0
PATIENT_SECONDS = 20.0


def sound(n: int) -> bytes:
    """Give the 20 ms of audio that entry `n` has, and no other."""
    return struct.pack("<i", n) * 80


@dataclass
class Bridge:
    """Write one call's stream after the other, as the service does."""

    streams: RedisStreams
    store: RedisStore
    _ids: int = field(default=0)
    _one_at_a_time: asyncio.Lock = field(default_factory=asyncio.Lock)

    @classmethod
    def at(cls, url: str) -> "Bridge":
        """Make one; a busy machine may be slow."""
        return cls(RedisStreams(url), RedisStore.from_url(url, PATIENT_SECONDS))

    async def _write(self, batch: Sequence[Write]) -> None:
        """Write a batch; one that was refused whole, as between two primaries, again."""

        async def is_written() -> bool:
            try:
                await self.streams.write(batch)
            except BrokerRefused:
                return False
            return True

        async with self._one_at_a_time:
            await until(is_written)

    async def close(self) -> None:
        """Let go of every connection."""
        await self.streams.close()
        await self.store.close()

    async def announce(
        self, call: CallIdentity, name: str, at: int = START, **data: object
    ) -> None:
        """Say something of a call."""
        self._ids += 1
        event = LifecycleEvent(name, f"event-{self._ids}", at, call, data)
        await self._write([Announce(event)])

    async def begin(
        self,
        stream: str,
        *,
        business: str = "business-1",
        published: MediaFormat = PCM16_8K,
        at: int = START,
        is_told: bool = True,
    ) -> CallIdentity:
        """Begin a stream, and say so unless that is not to be."""
        call = CallIdentity(f"CA-{stream}", stream, business, "premium", "twilio")
        tracks = (Track.INBOUND,)
        record = StreamRecord(
            *(call, "+15005550009", "+15005550006", {"a": "b"}),
            *(published, MULAW_8K, tracks, at),
        )
        await self._write([OpenStream(stream, record, RETAINED)])
        await self.store.hold_streams([HeldStream(call, at, RETAINED)], LEASE_SECONDS)
        if is_told:
            await self.announce(call, "stream.started", at, startedAt=at)
        return call

    async def put(self, stream: str, *entries: Entry, at: int = START, kept: int = 100_000) -> None:
        """Write entries; of those before, only the newest `kept` stay."""
        await self._write([Append(stream, at, one.n, one, kept) for one in entries])

    async def say(self, stream: str, first: int, last: int, *, at: int = START) -> None:
        """Write the audio of these numbers."""
        for some in range(first, last + 1, 500):
            numbers = range(some, min(some + 500, last + 1))
            await self.put(stream, *map(audio, numbers), at=at)

    async def end(
        self, call: CallIdentity, n: int, *, at: int = START, began: int = START
    ) -> AudioReceipt:
        """End a stream with entry `n`, as its own holder does."""
        receipt = a_receipt(n - 1)
        await self.put(call.stream_sid, EndEntry(n, "stop"), at=at)
        whose = call.business_id, began
        await self._write([CloseStream(call.stream_sid, began + 5000, receipt, RETAINED, *whose)])
        await self.store.let_go([HeldStream(call, began, RETAINED)])
        await self.announce(call, "stream.stopped", began + 5000, receipt=receipt.as_data())
        return receipt

    async def lose(self, call: CallIdentity) -> int:
        """End a stream as another replica does; give the time of that end's id."""
        assert await self.streams.end_lost(HeldStream(call, START, RETAINED))
        found = await self.streams._ways.ask(
            "XREVRANGE", f"audio:{{{call.stream_sid}}}", "+", "-", "COUNT", 1
        )
        return int(found[0][0].decode().partition("-")[0])

    async def whole(self, stream: str, frames: int, **options: str) -> CallIdentity:
        """Leave a call of so many frames that is over."""
        call = await self.begin(stream, **options)  # type: ignore[arg-type]
        await self.say(stream, 1, frames)
        await self.end(call, frames + 1)
        return call


def audio(n: int) -> AudioEntry:
    """Make entry `n`."""
    return AudioEntry(n, n + 1, (n - 1) * 20, Track.INBOUND, sound(n))


def gap(n: int, frames: int, reason: str) -> GapEntry:
    """Make a gap that is entry `n`."""
    return GapEntry(n, Track.INBOUND, frames, n + 1, n + frames, (n - 1) * 20, reason)


MULAW = MediaFormat(Encoding.MULAW, 8000)
