"""Waiting for what is to come, however long a machine takes."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from redis.asyncio import Redis

# For hangs alone: no machine is so slow.
WAIT_SECONDS = 30.0
LOOK_SECONDS = 0.01


async def until(holds: Callable[[], Any], shown: Callable[[], object] = str) -> Any:
    """Look again and again until it holds; give what was found.

    `holds` may be async. `shown` is told when it never does.
    """
    # Not asyncio.timeout: redis-py can lose the cancellation by which it ends.
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        found = holds()
        if isinstance(found, Awaitable):
            found = await found
        if found:
            return found
        assert time.monotonic() < deadline, f"what was waited for never came {shown()}"
        await asyncio.sleep(LOOK_SECONDS)


def wait_until(holds: Callable[[], object], shown: Callable[[], object] = str) -> None:
    """Look again and again until it holds; `shown` is told when it never does."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not holds():
        assert time.monotonic() < deadline, f"what was waited for never came {shown()}"
        time.sleep(LOOK_SECONDS)


async def until_subscribed(redis_url: str, channel: str) -> None:
    """Wait until somebody listens to a channel."""
    async with Redis.from_url(redis_url) as redis:

        async def is_heard() -> bool:
            [(_, listeners)] = await redis.pubsub_numsub(channel)
            return bool(listeners)

        await until(is_heard)
