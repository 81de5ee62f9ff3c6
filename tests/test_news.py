"""What happens to calls, told to those who watch: each once, and to nobody else."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from app import watchers as module
from app.errors import BrokerLost
from app.events import LifecycleEvent
from app.metrics import Metrics
from app.pubsub.base import Announce
from app.pubsub.memory import MemoryPubSub
from app.watchers import Feed, News, Watchers
from tests.samples import CALL
from tests.waiting import until


class Counting(MemoryPubSub):
    """A broker that counts its readers, and can be away."""

    def __init__(self) -> None:
        super().__init__(time.monotonic)
        self.readers = 0
        self.away = 0

    async def lifecycle(self, *, from_now: bool = False) -> AsyncGenerator[LifecycleEvent, None]:
        if self.away:
            self.away -= 1
            raise BrokerLost("connection")
        self.readers += 1
        try:
            async for event in super().lifecycle(from_now=from_now):
                yield event
        finally:
            self.readers -= 1


@asynccontextmanager
async def telling(pubsub: Counting) -> AsyncIterator[Watchers]:
    news = News(pubsub, Metrics())
    running = asyncio.create_task(news.run())
    yield Watchers(news)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def happen(pubsub: Counting, event_id: str, business: str = "business-1") -> None:
    await until(lambda: pubsub.readers)
    await asyncio.sleep(0)  # a reader that has begun is told from its first turn on
    call = replace(CALL, business_id=business)
    event = LifecycleEvent("stream.dtmf", event_id, 1, call, {"digit": "7", "seq": 3})
    await pubsub.write([Announce(event)])


async def heard(feed: Feed) -> list[str]:
    found = []
    while (message := await feed.next(0.05)) is not None:
        found.append(message.id)
    return found


async def test_a_business_hears_of_its_own_calls_and_an_operator_of_all() -> None:
    pubsub = Counting()
    async with telling(pubsub) as watchers:
        with watchers.feed("business-1") as own, watchers.feed(None) as all_of_them:
            await happen(pubsub, "1")
            await happen(pubsub, "2", "business-2")
            await happen(pubsub, "3", "")
            assert await heard(all_of_them) == ["1", "2", "3"]
            assert await heard(own) == ["1"]


async def test_an_event_is_told_once_and_without_the_digit() -> None:
    pubsub = Counting()
    async with telling(pubsub) as watchers:
        with watchers.feed("business-1") as feed:
            for event_id in ("1", "1", "2"):
                await happen(pubsub, event_id)
            first, second = await feed.next(5), await feed.next(5)
            assert first is not None
            assert second is not None
            assert (first.id, second.id, first.kind) == ("1", "2", "call")
            said = json.loads(first.data)
            assert (said["call_sid"], said["event"]) == ("CA1", "stream.dtmf")
            assert said["data"] == {"seq": 3}


async def test_one_reader_serves_all_who_watch_and_none_stays_when_they_leave() -> None:
    pubsub = Counting()
    async with telling(pubsub) as watchers:
        assert pubsub.readers == 0
        for _ in range(2):
            with watchers.feed("business-1"), watchers.feed(None):
                await until(lambda: pubsub.readers == 1)
            await until(lambda: pubsub.readers == 0)


async def test_reading_goes_on_when_the_broker_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.01)
    pubsub = Counting()
    pubsub.away = 3
    async with telling(pubsub) as watchers:
        with watchers.feed(None) as feed:
            await happen(pubsub, "1")
            assert await heard(feed) == ["1"]
