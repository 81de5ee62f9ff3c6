"""Readiness: what it says, and what a flood of questions costs."""

import asyncio

import httpx
from fastapi import FastAPI

from app.admin.attempts import AttemptLimiter
from app.credentials.addresses import ClientSource
from app.errors import StoreUnavailable
from app.metrics import Metrics
from app.store.memory_access import MemoryAccess
from app.web.health import Condition, health_router


class Redis:
    """A condition that takes a while to check, and can be broken."""

    def __init__(self) -> None:
        self.asked = 0
        self.let_go = asyncio.Event()
        self.broken = False

    async def check(self) -> None:
        self.asked += 1
        await self.let_go.wait()
        if self.broken:
            raise StoreUnavailable("away")


async def no_warnings() -> list[str]:
    return []


def client(redis: Redis) -> httpx.AsyncClient:
    metrics = Metrics()
    app = FastAPI()
    app.include_router(
        health_router(
            [Condition("store", redis.check)],
            metrics,
            metrics_tokens=(),
            attempts=AttemptLimiter(MemoryAccess(lambda: 0.0), lambda: 0.0, metrics),
            source_of=lambda request: ClientSource("192.0.2.1"),
            version="1",
            live_streams=lambda: 0,
            warnings=no_warnings,
        )
    )
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://bridge")


async def test_those_who_ask_at_once_share_one_look() -> None:
    redis = Redis()
    async with client(redis) as asking:
        asked = [asyncio.create_task(asking.get("/health/ready")) for _ in range(100)]
        while not redis.asked:
            await asyncio.sleep(0)
        for _ in range(100):
            await asyncio.sleep(0)
        asked[0].cancel()  # one who goes away takes nobody's answer
        redis.let_go.set()
        statuses = {(await one).status_code for one in asked[1:]}
    assert statuses == {200}
    assert redis.asked == 1


async def test_each_later_question_looks_again() -> None:
    redis = Redis()
    redis.let_go.set()
    async with client(redis) as asking:
        assert (await asking.get("/health/ready")).status_code == 200
        redis.broken = True
        answer = await asking.get("/health/ready")
    assert answer.status_code == 503
    assert answer.json()["checks"]["store"].startswith("store_unavailable")
    assert redis.asked == 2
