"""Commands handed to their streams: in order, once, and over outages of the broker."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from app.errors import BrokerLost
from app.metrics import Metrics
from app.pubsub.base import Field, control_key
from app.pubsub.control import ControlEntry
from app.pubsub.redis_control import RedisControl
from app.session import control
from app.session.control import ControlDesk
from tests.redis_process import RedisProcess
from tests.waiting import until


class Taker:
    """Takes commands, and remembers them."""

    def __init__(self) -> None:
        self.taken: list[bytes] = []

    def take(self, entry_id: str, fields: Mapping[str, Field]) -> None:
        value = fields["command"]
        assert isinstance(value, bytes)
        if value == b"bad":
            raise RuntimeError("a fault of ours")
        self.taken.append(value)


@asynccontextmanager
async def running(desk: ControlDesk) -> AsyncIterator[None]:
    task = asyncio.create_task(desk.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def a_desk(url: str) -> AsyncIterator[ControlDesk]:
    feed = RedisControl(url)
    desk = ControlDesk(feed, Metrics(), time.monotonic)
    async with running(desk):
        yield desk
    await feed.close()


def key_of(stream: str) -> str:
    return control_key(stream)


async def test_streams_that_come_and_go_lose_no_command(redis_url: str) -> None:
    async with Redis.from_url(redis_url) as redis, a_desk(redis_url) as desk:
        takers: dict[str, Taker] = {}
        for number in range(30):
            stream = f"MZgo{number}"
            takers[stream] = taker = Taker()
            await redis.xadd(key_of(stream), {"command": "before"})
            desk.listen(stream, taker.take)
            await redis.xadd(key_of(stream), {"command": "after"})
            if number % 3 == 0:
                desk.end(f"MZgo{number // 2}", takers[f"MZgo{number // 2}"].take)
        wanted = [b"before", b"after"]
        await until(lambda: all(taker.taken == wanted for taker in takers.values()))


async def test_an_outage_loses_and_repeats_nothing(tmp_path: Path) -> None:
    with RedisProcess(tmp_path) as server:
        async with a_desk(server.url) as desk:
            taker = Taker()
            desk.listen("MZ1", taker.take)
            async with Redis.from_url(server.url) as redis:
                await redis.xadd(key_of("MZ1"), {"command": "1"})
                await until(lambda: taker.taken == [b"1"])
            server.freeze()
            await asyncio.sleep(0.05)
            later = Taker()
            desk.listen("MZ2", later.take)  # begun while nobody answers
            server.thaw()
            async with Redis.from_url(server.url) as redis:
                await redis.client_kill_filter(_type="normal", skipme=True)
                await redis.xadd(key_of("MZ1"), {"command": "2"})
                await redis.xadd(key_of("MZ2"), {"command": "3"})
                await until(lambda: (taker.taken, later.taken) == ([b"1", b"2"], [b"3"]))


async def test_a_fault_of_one_stream_leaves_the_others_alone(redis_url: str) -> None:
    async with Redis.from_url(redis_url) as redis, a_desk(redis_url) as desk:
        taker = Taker()
        desk.listen("MZfault", taker.take)
        for command in ("bad", "good"):
            await redis.xadd(key_of("MZfault"), {"command": command})
        await until(lambda: taker.taken == [b"good"])


class FailingFeed:
    """A feed that fails so many times, and then has a command."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.asked: list[Mapping[str, str]] = []

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    def wake(self) -> None: ...

    async def drop(self, stream: str, entry_id: str) -> None: ...

    async def read(self, positions: Mapping[str, str], seconds: float) -> Sequence[ControlEntry]:
        self.asked.append(dict(positions))
        if self.failures:
            self.failures -= 1
            raise BrokerLost("connection")
        if positions == {"MZ1": "0-0"}:
            return [ControlEntry("MZ1", "5-0", {"command": b"x"})]
        await asyncio.Future()
        return []


async def test_after_failures_the_reading_goes_on_where_it_was(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(control, "RETRY_SECONDS", 0.001)
    feed, metrics, taker = FailingFeed(3), Metrics(), Taker()
    desk = ControlDesk(feed, metrics, time.monotonic)
    desk.listen("MZ1", taker.take)
    async with running(desk):
        await until(lambda: len(feed.asked) == 5)
    assert taker.taken == [b"x"]
    assert feed.asked[-1] == {"MZ1": "5-0"}
    warned = [one for one in caplog.messages if "Commands of workers are not read" in one]
    assert len(warned) == 1


async def test_a_stream_that_ended_is_let_go_of_after_a_while() -> None:
    now = [0.0]
    feed: Any = FailingFeed(0)
    desk = ControlDesk(feed, Metrics(), lambda: now[0])
    taker = Taker()
    desk.listen("MZ1", taker.take)
    desk.end("MZ1", taker.take)
    now[0] = control.LATE_SECONDS + 1
    async with running(desk):
        await until(lambda: len(feed.asked) == 2)
    assert feed.asked == [{"MZ1": "0-0"}, {}]
