"""Waiting for what is to come, however long a machine takes."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

# For hangs alone: no machine is so slow.
WAIT_SECONDS = 30.0
LOOK_SECONDS = 0.01


async def until(holds: Callable[[], Any | Awaitable[Any]]) -> Any:
    """Look again and again until it holds, async or not; give what was found at last."""
    # Not asyncio.timeout: redis-py can lose the cancellation by which it ends.
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        found = holds()
        if isinstance(found, Awaitable):
            found = await found
        if found:
            return found
        assert time.monotonic() < deadline, "what was waited for never came"
        await asyncio.sleep(LOOK_SECONDS)


def wait_until(holds: Callable[[], object]) -> None:
    """Look again and again until it holds."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not holds():
        assert time.monotonic() < deadline, "what was waited for never came"
        time.sleep(LOOK_SECONDS)
