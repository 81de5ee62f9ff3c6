"""A reader beside the writes, which hears what comes after it has begun."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from app.pubsub.base import CALLS_KEY, PubSub, audio_key
from app.pubsub.redis_pubsub import RedisPubSub
from tests.waiting import WAIT_SECONDS, until, until_subscribed


class Reader:
    """Reads in the background."""

    def __init__(self, source: AsyncIterator[object]) -> None:
        self.heard: list[object] = []
        self._source = source
        self._task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for item in self._source:
            self.heard.append(item)

    async def ended(self) -> None:
        """Wait until the source has ended."""
        await asyncio.wait_for(self._task, WAIT_SECONDS)

    async def has(self, count: int) -> None:
        """Wait until so much was heard; then stop."""
        await until(lambda: len(self.heard) >= count)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


Listen = Callable[..., Awaitable[Reader]]


@pytest.fixture
def listen(redis_url: str) -> Listen:
    """Give what begins to read a stream's entries or, without one, lifecycle events."""

    async def begin(pubsub: PubSub, stream: str = "") -> Reader:
        reader = Reader(pubsub.entries(stream) if stream else pubsub.lifecycle())
        if isinstance(pubsub, RedisPubSub):
            await until_subscribed(redis_url, audio_key(stream) if stream else CALLS_KEY)
        return reader

    return begin
