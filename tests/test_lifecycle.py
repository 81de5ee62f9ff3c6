"""What runs as long as the process does."""

import asyncio
import time

import httpx
import pytest

from app.errors import StoreUnavailable
from app.lifecycle import Lifecycle
from app.main import create_app
from app.metrics import Metrics
from app.plans import Business, Directory, Plan
from app.pubsub.memory import MemoryPubSub
from app.pubsub.outbox import Outbox
from app.reaper import Reaper
from app.registry import Registry
from app.settings import Settings
from app.store.memory import MemoryStore
from tests.waiting import until

DIRECTORY = Directory((Plan("plan"),), (Business("b", "B", "plan"),))


class LateStore(MemoryStore):
    """A store that fails at first: once as it may, once as it never should."""

    def __init__(self) -> None:
        super().__init__(time.monotonic)
        self._failures: list[Exception] = [StoreUnavailable("away"), ZeroDivisionError()]

    async def load_if_empty(self, directory: Directory) -> bool:
        if self._failures:
            raise self._failures.pop(0)
        return await super().load_if_empty(directory)


async def test_a_task_that_fails_is_begun_again_and_nothing_else_notices(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("LOAD_RETRY_SECONDS", "RESTART_SECONDS"):
        monkeypatch.setattr(f"app.lifecycle.{name}", 0.01)
    store, pubsub, metrics = LateStore(), MemoryPubSub(time.monotonic), Metrics()
    registry = Registry(store, metrics, max_calls=1, clock=time.monotonic)
    outbox = Outbox(pubsub, metrics, clock=time.monotonic, jitter=lambda: 0.5)
    reaper = Reaper(store, pubsub, metrics, is_ours=registry.holds)
    lifecycle = Lifecycle(
        store, pubsub, outbox, registry, reaper, DIRECTORY, metrics, drain_seconds=0
    )
    async with lifecycle.lifespan(None):
        await until(lambda: store.business("b"))
        for condition in lifecycle.conditions():
            await condition.check()


async def test_a_service_is_not_ready_before_it_has_its_businesses() -> None:
    class Slow(MemoryStore):
        async def load_if_empty(self, directory: Directory) -> bool:
            await may_load.wait()
            return await super().load_if_empty(directory)

    may_load = asyncio.Event()
    settings = Settings.load(
        {"ALLOW_UNSIGNED": "true", "PUBSUB_ADAPTER": "memory", "BUSINESSES_FILE": "businesses.toml"}
    )
    app = create_app(settings, store=Slow(time.monotonic))
    transport = httpx.ASGITransport(app=app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://bridge") as client,
    ):
        answer = await client.get("/health/ready")
        assert answer.status_code == 503
        assert answer.json()["checks"]["businesses"].startswith("store_unavailable")
        may_load.set()

        async def is_ready() -> bool:
            return (await client.get("/health/ready")).status_code == 200

        await until(is_ready)
