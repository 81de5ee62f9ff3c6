"""What one entry costs our process on its way to Redis: `python -m benchmarks.writes`.

Four ways of writing the same entries, for batches as they occur at few and at
many calls; CPU time of this process alone.
"""

import asyncio
import resource
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from redis.asyncio import Redis

from app.events import AudioEntry
from app.media import Track
from app.pubsub.base import Append, entry_fields
from app.pubsub.redis_streams import RedisStreams
from app.tools.embedded import EmbeddedRedis

ENTRIES = 20_000
BATCHES = (1, 12, 50, 200)
AUDIO = b"\x00\x01" * 160
KEPT = 100_000

Way = Callable[[Sequence[AudioEntry]], Awaitable[None]]


def ways(redis: Redis, streams: RedisStreams) -> dict[str, Way]:
    """Give each way of writing a batch, by its name in the table."""

    async def one_by_one(entries: Sequence[AudioEntry]) -> None:
        for entry in entries:
            await _xadd(redis, entry)

    def pipelined(*, transaction: bool) -> Way:
        async def write(entries: Sequence[AudioEntry]) -> None:
            pipeline = redis.pipeline(transaction=transaction)
            for entry in entries:
                _xadd(pipeline, entry)
            await pipeline.execute()

        return write

    async def ours(entries: Sequence[AudioEntry]) -> None:
        await streams.write([Append("S", 1, entry.n, entry, KEPT) for entry in entries])

    return {
        "await xadd": one_by_one,
        "pipeline": pipelined(transaction=False),
        "pipeline, MULTI": pipelined(transaction=True),
        "ours, MULTI": ours,
    }


def _xadd(redis: Redis, entry: AudioEntry) -> Awaitable[object]:
    fields = entry_fields(entry)
    answer: Awaitable[object] = redis.xadd(
        "audio:{S}",
        fields,  # type: ignore[arg-type]
        id=f"1-{entry.n}",
        maxlen=KEPT,
    )
    return answer


async def measure(redis: Redis, way: Way, batch: int) -> float:
    """Write `ENTRIES` entries; give the CPU time of one in µs."""
    await redis.flushall()
    # Entries are appended only to a stream that was opened.
    await redis.xgroup_create("audio:{S}", "opening", mkstream=True)
    began = _cpu_seconds()
    for first in range(1, ENTRIES + 1, batch):
        numbers = range(first, min(first + batch, ENTRIES + 1))
        await way([AudioEntry(n, n, 0, Track.INBOUND, AUDIO) for n in numbers])
    return (_cpu_seconds() - began) / ENTRIES * 1e6


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def main() -> None:
    """Print the table: a row a batch size, µs of CPU an entry."""
    with (
        tempfile.TemporaryDirectory() as directory,
        EmbeddedRedis(Path(directory), persistent=False) as server,
    ):
        redis, streams = Redis.from_url(server.url), RedisStreams(server.url)
        known = ways(redis, streams)
        print("batch".ljust(8) + "".join(name.rjust(18) for name in known))
        for batch in BATCHES:
            figures = [await measure(redis, way, batch) for way in known.values()]
            print(str(batch).ljust(8) + "".join(f"{figure:18.1f}" for figure in figures))
        await streams.close()
        await redis.aclose()


if __name__ == "__main__":
    asyncio.run(main())
