"""What a worker of a test has been given."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from app.consumer import Call, Calls, Choice, Frame, Gap, Item
from tests.consumer.bridge import sound
from tests.waiting import WAIT_SECONDS

# Short, so that a test need not wait; a machine that stands still for longer only
# lets another worker go on, which no test of one worker minds.
LEASE_SECONDS = 2.0


@asynccontextmanager
async def worker(redis_url: str, group: str = "", **choice: object) -> AsyncIterator[Calls]:
    """Run a worker for the length of the block."""
    chosen = Choice(**{"lease_seconds": LEASE_SECONDS, "lost_seconds": 1.0, **choice})  # type: ignore[arg-type]
    async with Calls(redis_url, group, chosen) as mine:
        yield mine


async def next_call(mine: Calls) -> Call:
    """Wait for the next call."""
    async with asyncio.timeout(WAIT_SECONDS):
        return await mine.next()


async def some(call: Call, count: int) -> list[Item]:
    """Read so many items."""
    async with asyncio.timeout(WAIT_SECONDS):
        return [await anext(call) for _ in range(count)]


async def all_of(call: Call) -> list[Item]:
    """Read a call to its end."""
    async with asyncio.timeout(WAIT_SECONDS):
        return [item async for item in call]


def numbers(items: Sequence[Item]) -> list[int]:
    """Tell which entries these frames are; each is as the bridge wrote it."""
    found = [int(item.id.partition("-")[2]) for item in items if isinstance(item, Frame)]
    assert [item.audio for item in items if isinstance(item, Frame)] == list(map(sound, found))
    return found


def gaps(items: Sequence[Item]) -> list[tuple[str, int]]:
    """Tell the reasons and the sizes of the gaps among these."""
    return [(item.reason, item.frames) for item in items if isinstance(item, Gap)]
