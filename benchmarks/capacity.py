"""What one redis-server carries of what we write: `python -m benchmarks.capacity`.

A private redis-server has a core for itself. The adapter's own transactions are
recorded once, on their way to it, and then played back over and over by several
connections at once, under new ids and names of the same length: so the load
generator costs a fraction of what the writer does, and Redis is the limit.
"""

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import hiredis
import uvloop
from redis.asyncio import Redis

from app.errors import BridgeError, LocalError
from app.events import AudioEntry
from app.media import Track
from app.pubsub.base import Append, audio_key
from app.pubsub.redis_streams import RedisStreams
from app.tools.embedded import EmbeddedRedis
from benchmarks.host import Cores, part_cores
from benchmarks.processes import cpu_model, cpu_seconds

FRAMES_A_SECOND = 50
# The writer collects for so long; so a batch has a quarter of an entry a call.
FLUSH_SECONDS = 0.005
CALLS_A_WRITER = (50, 100, 300, 1000)
WRITERS = 4
ENTRIES_A_CALL = 40
# Audio that Redis keeps while it is loaded: 10 s, so that trimming is part of it.
KEPT = 500
# Ids and names of a record, which playing replaces by others as long.
FIRST_MS = 1_700_000_000_000
RETENTION_SECONDS = 60
MEMORY_STREAMS = 20
READ_CALLS = 100
FORMS = {"pcm16, 8 kHz": 320, "mulaw, 8 kHz": 160, "pcm16, 16 kHz": 640}
# Above this share of its core, the player was the limit, not Redis.
PLAYER_LIMIT = 0.9
# What is left for consumers that catch up, and for a fork's copies.
HEADROOM = 0.6


@dataclass(frozen=True, slots=True)
class Transaction:
    """What the adapter sent at once, and what Redis answered."""

    sent: bytes
    answer: bytes
    entries: int

    def again(self, writer: int, turn: int) -> "Transaction":
        """Give it as another writer's, and later."""
        name, at = f"{{{writer}-".encode(), str(FIRST_MS + turn).encode()
        return Transaction(
            self.sent.replace(b"{0-", name).replace(str(FIRST_MS).encode(), at),
            self.answer.replace(str(FIRST_MS).encode(), at),
            self.entries,
        )


@dataclass(frozen=True, slots=True)
class Written:
    """Entries a second that Redis took, and the shares of a core that it and we had."""

    calls: int
    batch: int
    entries_a_second: float
    redis: float
    player: float

    @property
    def redis_seconds(self) -> float:
        """Give the CPU time of an entry."""
        return self.redis / self.entries_a_second


# ------------------------------------------------------------------- the record


class Recorder:
    """Stand between the adapter and Redis, and keep what each sends."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._tasks: set[asyncio.Task[None]] = set()
        self.sent = bytearray()
        self.answered = bytearray()

    async def serve(self) -> str:
        """Begin; give the URL to connect to."""
        self._server = await asyncio.start_server(self._join, "127.0.0.1", 0)
        return f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/0"

    async def close(self) -> None:
        """Cut every connection."""
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back, forth = await connect(self._url)
        for source, sink, kept in ((reader, forth, self.sent), (back, writer, self.answered)):
            self._tasks.add(asyncio.create_task(self._pump(source, sink, kept)))

    @staticmethod
    async def _pump(
        source: asyncio.StreamReader, sink: asyncio.StreamWriter, kept: bytearray
    ) -> None:
        try:
            while data := await source.read(65_536):
                kept += data
                sink.write(data)
        finally:
            sink.close()
            with suppress(OSError):
                await sink.wait_closed()


async def record(url: str, calls: int) -> list[Transaction]:
    """Write as the writer does with so many calls; give each transaction."""
    recorder = Recorder(url)
    streams = RedisStreams(await recorder.serve())
    transactions = []
    await open_streams(url, ("warm-up", *(f"0-{call:04}" for call in range(calls))))
    try:
        await streams.write([_append("warm-up", 1, 320)])
        for batch in batches(calls, ENTRIES_A_CALL):
            recorder.sent.clear()
            recorder.answered.clear()
            await streams.write([_append(f"0-{call:04}", n, 320) for call, n in batch])
            transactions.append(
                Transaction(bytes(recorder.sent), bytes(recorder.answered), len(batch))
            )
    finally:
        await streams.close()
        await recorder.close()
    return transactions


async def open_streams(url: str, names: Iterable[str]) -> None:
    """Create empty streams: entries are appended only to a stream that was opened."""
    async with Redis.from_url(url) as redis:
        for name in names:
            await redis.xgroup_create(audio_key(name), "opening", mkstream=True)


def batches(calls: int, entries: int) -> Iterator[list[tuple[int, int]]]:
    """Give (call, entry) in the order in which calls speak, as batches of one flush."""
    size = max(1, round(calls * FRAMES_A_SECOND * FLUSH_SECONDS))
    due = [(call, n) for n in range(1, entries + 1) for call in range(calls)]
    for first in range(0, len(due), size):
        yield due[first : first + size]


def _append(stream: str, n: int, size: int, kept: int = KEPT) -> Append:
    audio = os.urandom(size)
    return Append(stream, FIRST_MS, n, AudioEntry(n, n * 20, 0, Track.INBOUND, audio), kept)


# ------------------------------------------------------------------- what is measured


async def write(server: EmbeddedRedis, calls: int, seconds: float) -> Written:
    """Play what the writers of some processes send, as fast as Redis takes it.

    Raises:
        LocalError: Redis answered something else than when it was recorded.
    """
    recorded = await record(server.url, calls)
    writers = range(1, WRITERS + 1)
    names = [f"{number}-{call:04}" for number in writers for call in range(calls)]
    await open_streams(server.url, names)
    taken = 0

    async def writer(number: int) -> None:
        nonlocal taken
        reader, sink = await connect(server.url)
        turn = 0
        while time.perf_counter() < until:
            turn += 1
            for one in recorded:
                due = one.again(number, turn)
                sink.write(due.sent)
                if await reader.readexactly(len(due.answer)) != due.answer:
                    raise LocalError("Redis answered otherwise than when it was recorded")
                taken += due.entries
                if time.perf_counter() >= until:
                    break
        sink.close()

    began, used, own = time.perf_counter(), _cpu(server), time.process_time()
    until = began + seconds
    await asyncio.gather(*(writer(1 + number) for number in range(WRITERS)))
    wall = time.perf_counter() - began
    return Written(
        calls,
        recorded[0].entries,
        taken / wall,
        (_cpu(server) - used) / wall,
        (time.process_time() - own) / wall,
    )


async def entry_bytes(redis: Redis, url: str, size: int) -> float:
    """Give the memory that Redis needs for an entry, by what a minute of some calls takes."""
    await redis.flushall()
    streams = RedisStreams(url)
    kept = RETENTION_SECONDS * FRAMES_A_SECOND
    names = [f"0-{number:04}" for number in range(MEMORY_STREAMS)]
    before = (await redis.info("memory"))["used_memory"]
    for first in range(1, kept + 1, 50):
        for name in names:
            await streams.write([_append(name, n, size, kept) for n in range(first, first + 50)])
    after = (await redis.info("memory"))["used_memory"]
    await streams.close()
    await redis.flushall()
    return float(after - before) / (kept * MEMORY_STREAMS)


@dataclass(frozen=True, slots=True)
class Paced:
    """CPU seconds that Redis needs for an entry in real time: to take it, and to hand it out."""

    writing: float
    reading: float


async def in_real_time(server: EmbeddedRedis, seconds: float) -> Paced:
    """Write for some calls in real time, first without consumers, then with one a call.

    A consumer waits in XREAD BLOCK, and is woken by every entry.
    """
    recorded = await record(server.url, READ_CALLS)
    await open_streams(server.url, (f"1-{call:04}" for call in range(READ_CALLS)))
    without = await _paced(server, recorded, seconds, turn=1)
    tasks = [
        asyncio.create_task(_consume(server.url, audio_key(f"1-{call:04}")))
        for call in range(READ_CALLS)
    ]
    await asyncio.sleep(0.5)
    try:
        with_readers = await _paced(server, recorded, seconds, turn=10_000)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return Paced(without, with_readers - without)


async def _paced(
    server: EmbeddedRedis, recorded: Sequence[Transaction], seconds: float, turn: int
) -> float:
    """Write in real time; give Redis' CPU time an entry."""
    reader, sink = await connect(server.url)
    used, began, taken, count = _cpu(server), time.perf_counter(), 0, 0
    while (now := time.perf_counter()) < began + seconds:
        due = recorded[count % len(recorded)].again(1, turn + count // len(recorded))
        count += 1
        await asyncio.sleep(max(0.0, began + count * FLUSH_SECONDS - now))
        sink.write(due.sent)
        await reader.readexactly(len(due.answer))
        taken += due.entries
    sink.close()
    return (_cpu(server) - used) / taken


async def _consume(url: str, key: str) -> None:
    reader, sink = await connect(url)
    last, parser = "$", hiredis.Reader()
    while True:
        command: tuple[Any, ...] = ("XREAD", "COUNT", 100, "BLOCK", 0, "STREAMS", key, last)
        sink.write(hiredis.pack_command(command))
        while (answer := parser.gets()) is False:
            parser.feed(await reader.read(65_536))
        last = answer[0][1][-1][0].decode()


async def connect(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a plain connection to the Redis server of this URL, and show its password.

    Raises:
        LocalError: the server refuses the password.
    """
    parts = urlsplit(url)
    reader, sink = await asyncio.open_connection(parts.hostname, parts.port)
    sink.write(hiredis.pack_command(("AUTH", parts.password or "")))
    if await reader.readline() != b"+OK\r\n":
        raise LocalError("Redis refused the password of its URL")
    return reader, sink


def _cpu(server: EmbeddedRedis) -> float:
    used = cpu_seconds(server.pid)
    if used is None:
        raise LocalError("this platform does not tell a process's CPU time")
    return used


# -------------------------------------------------------------------------- the table


def table(written: Sequence[Written], paced: Paced, sizes: dict[str, float]) -> Iterator[str]:
    """Draw what was found, in Markdown."""
    yield "| calls a writer | entries a batch | Redis CPU an entry | entries/s | calls |"
    yield "| --- | --- | --- | --- | --- |"
    for one in written:
        most = 1 / one.redis_seconds
        yield (
            f"| {one.calls:,} | {one.batch} | {one.redis_seconds * 1e6:.1f} µs | {most:,.0f}"
            f" | {most / FRAMES_A_SECOND:,.0f} |"
        )
    yield ""
    yield (
        f"In real time, {READ_CALLS} calls: {paced.writing * 1e6:.1f} µs an entry; "
        f"{paced.reading * 1e6:.1f} µs more for each consumer that waits in XREAD BLOCK."
    )
    yield ""
    yield f"| published audio | an entry | a call's second | a call's {RETENTION_SECONDS} s |"
    yield "| --- | --- | --- | --- |"
    for form, size in sizes.items():
        second = size * FRAMES_A_SECOND
        yield (
            f"| {form} | {size:.0f} B | {second / 1e3:.1f} kB"
            f" | {second * RETENTION_SECONDS / 1e6:.2f} MB |"
        )
    yield ""
    for one in written:
        if one.player > PLAYER_LIMIT:
            yield (
                f"CAUTION: at {one.calls} calls a writer the load generator was the limit; "
                f"Redis was {one.redis:.0%} busy. Its CPU an entry holds all the same."
            )
    most = HEADROOM / (paced.writing + paced.reading) / FRAMES_A_SECOND
    yield (
        f"With one consumer a call and {HEADROOM:.0%} of a core: {most:,.0f} calls "
        f"({most * FRAMES_A_SECOND:,.0f} entries/s) on one redis-server; a cluster above that."
    )


def main() -> int:
    """Measure and print: 0 whatever the figures are, 1 when there are none."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.capacity", description=__doc__)
    parser.add_argument("--seconds", type=float, default=5, help="length of each load")
    asked = parser.parse_args()
    try:
        lines = uvloop.run(_measure(part_cores(), asked.seconds))
    except BridgeError as error:
        print(f"could not measure: {error}", file=sys.stderr)
        return 1
    print("\n".join(lines))
    return 0


async def _measure(cores: Cores, seconds: float) -> list[str]:
    with (
        tempfile.TemporaryDirectory(prefix="media-bridge-capacity-") as directory,
        EmbeddedRedis(Path(directory), persistent=False) as server,
    ):
        if cores.service is not None:
            os.sched_setaffinity(server.pid, {cores.service})
        redis = Redis.from_url(server.url)
        version = (await redis.info("server"))["redis_version"]
        sizes = {form: await entry_bytes(redis, server.url, size) for form, size in FORMS.items()}
        written = []
        for calls in CALLS_A_WRITER:
            await redis.flushall()
            written.append(await write(server, calls, seconds))
        await redis.flushall()
        paced = await in_real_time(server, seconds)
        await redis.aclose()
    about = f"{cpu_model()}, Redis {version}, {WRITERS} writers, {KEPT} entries kept a call"
    return [about, "", *table(written, paced, sizes)]


if __name__ == "__main__":
    sys.exit(main())
