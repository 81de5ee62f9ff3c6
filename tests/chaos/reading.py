"""Readers beside the calls: one that counts what is readable, one that reads it all."""

import asyncio
import time
import zlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from app.pubsub.base import audio_key
from tests.chaos.load import Load

# Longer than any fault: a server that thaws answers what was asked before.
PATIENCE_SECONDS = 120.0
LOOK_SECONDS = 0.02
LAST_SECONDS = 30.0
BLOCK_MS = 500
READ_COUNT = 1000

Connect = Callable[[], Redis]


def connector(url: Callable[[], str]) -> Connect:
    """Make a maker of patient clients to where `url` leads at that moment."""
    return lambda: Redis.from_url(url(), socket_timeout=PATIENCE_SECONDS, protocol=2)


@dataclass(frozen=True, slots=True)
class Sample:
    """What was readable at a moment: entries of each stream, and frames sent by then."""

    at: float
    readable: tuple[int, ...]
    sent: int

    @property
    def total(self) -> int:
        """Count the readable entries of all streams."""
        return sum(self.readable)


class Watch:
    """Look many times a second how many entries each stream has."""

    def __init__(self, connect: Connect, load: Load) -> None:
        self._connect = connect
        self._load = load
        self._keys = [audio_key(stream) for stream in load.streams]
        self.samples: list[Sample] = []
        # Cancelling is not enough: redis-py can lose a cancellation.
        self.ended = False

    async def run(self) -> None:
        """Look until `ended`, whatever becomes of the connection."""
        while not self.ended:
            client = self._connect()
            try:
                while not self.ended:
                    await self._look(client)
                    await asyncio.sleep(LOOK_SECONDS)
            except (RedisError, OSError):
                await asyncio.sleep(LOOK_SECONDS)
            finally:
                await client.aclose()

    async def _look(self, client: Redis) -> None:
        pipeline = client.pipeline(transaction=False)
        for key in self._keys:
            pipeline.xlen(key)
        counts: Any = await pipeline.execute()
        self.samples.append(Sample(time.perf_counter(), tuple(counts), self._load.sent))

    def first_new(self, since: float) -> float | None:
        """Tell how long after `since` each stream had a new entry; None where not all have.

        `since` is on `time.perf_counter`. The slowest stream counts.
        """
        before = self._last_before(since)
        fresh = [False] * len(before)
        for sample in self._after(since):
            fresh = [
                known or now > then
                for known, now, then in zip(fresh, sample.readable, before, strict=True)
            ]
            if all(fresh):
                return sample.at - since
        return None

    async def wait_for_new(self, since: float, seconds: float) -> float | None:
        """Wait for `first_new`; None when it takes longer than `seconds`."""
        deadline = time.perf_counter() + seconds
        while (took := self.first_new(since)) is None and time.perf_counter() < deadline:
            await asyncio.sleep(LOOK_SECONDS)
        return took

    def drain(self, since: float, behind_seconds: float = 0.3) -> "Drain | None":
        """Tell how fast the backlog went; None when it has not gone.

        It runs from the first look that shows anything new to the first that
        shows no more than `behind_seconds` of audio missing. New is what the first
        look after the fault did not show: what a server has when it is back may be
        more than was seen before it went.
        """
        enough = self._load.frames_per_second * behind_seconds
        first: Sample | None = None
        looks = self._after(since)
        before = looks[0].total if looks else 0
        for sample in looks:
            if first is None and sample.total > before:
                first = sample
            if first is not None and sample.sent - sample.total <= enough:
                return Drain(
                    backlog=max(0, first.sent - before) / self._load.frames_per_second,
                    # Between two looks: no drain is quicker than can be seen.
                    seconds=max(sample.at - first.at, LOOK_SECONDS),
                    frames=sample.total - before,
                    frames_per_second=self._load.frames_per_second,
                )
        return None

    async def wait_for_drain(self, since: float, seconds: float) -> "Drain | None":
        """Wait for `drain`; None when it takes longer than `seconds`."""
        deadline = time.perf_counter() + seconds
        while (gone := self.drain(since)) is None and time.perf_counter() < deadline:
            await asyncio.sleep(LOOK_SECONDS)
        return gone

    def _after(self, since: float) -> list[Sample]:
        return [sample for sample in self.samples if sample.at >= since]

    def _last_before(self, since: float) -> tuple[int, ...]:
        earlier = [sample for sample in self.samples if sample.at < since]
        return earlier[-1].readable if earlier else (0,) * len(self._keys)


@dataclass(frozen=True, slots=True)
class Drain:
    """How a backlog of `backlog` seconds of audio went in `seconds`."""

    backlog: float
    seconds: float
    frames: int
    frames_per_second: int

    @property
    def speed(self) -> float:
        """Tell how many times as fast as in real time audio became readable."""
        return self.frames / self.frames_per_second / self.seconds


class Follower:
    """A consumer: reads each stream from its first entry on, across lost connections.

    `heard` has each entry's id and a checksum of its audio, in the order read.
    """

    def __init__(self, connect: Connect, streams: Sequence[str]) -> None:
        self._connect = connect
        self._from: dict[Any, Any] = {audio_key(stream).encode(): "0" for stream in streams}
        self._stream_of = {audio_key(stream).encode(): stream for stream in streams}
        self.heard: dict[str, list[tuple[bytes, int]]] = {stream: [] for stream in streams}
        self.ended = False

    async def run(self) -> None:
        """Read until every stream has ended."""
        while self._from and not self.ended:
            client = self._connect()
            try:
                while self._from and not self.ended:
                    await self._read(client)
            except (RedisError, OSError):
                await asyncio.sleep(LOOK_SECONDS)
            finally:
                await client.aclose()

    async def _read(self, client: Redis) -> None:
        answer: Any = await client.xread(self._from, READ_COUNT, BLOCK_MS)
        for key, entries in answer or ():
            heard = self.heard[self._stream_of[key]]
            self._from[key] = entries[-1][0]
            for entry_id, fields in entries:
                heard.append((entry_id, checksum(fields)))
                if fields.get(b"event") == b"end":
                    del self._from[key]


def checksum(fields: dict[bytes, bytes]) -> int:
    """Sum up an entry's content."""
    return zlib.crc32(b"\0".join(part for field in fields.items() for part in field))


@asynccontextmanager
async def watching(connect: Connect, load: Load) -> AsyncIterator[Watch]:
    """Watch a load for the length of the block."""
    watch = Watch(connect, load)
    looking = asyncio.create_task(watch.run())
    try:
        yield watch
    finally:
        watch.ended = True
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)


@asynccontextmanager
async def following(connect: Connect, load: Load) -> AsyncIterator[Follower]:
    """Follow a load's streams; when the block ends, wait until the end of each was read."""
    follower = Follower(connect, load.streams)
    reading = asyncio.create_task(follower.run())
    try:
        yield follower
        await asyncio.wait({reading}, timeout=LAST_SECONDS)
    finally:
        follower.ended = True
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
