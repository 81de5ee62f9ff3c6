"""What runs as long as the process does."""

import asyncio
import time

from app.errors import StoreUnavailable
from app.lifecycle import Lifecycle
from app.metrics import Metrics
from app.plans import Business, Directory, Plan
from app.pubsub.memory import MemoryPubSub
from app.pubsub.outbox import Outbox
from app.reaper import Reaper
from app.registry import Registry
from app.store.memory import MemoryStore

DIRECTORY = Directory((Plan("plan"),), (Business("b", "B", "plan"),))
WAIT_SECONDS = 10.0


class LateStore(MemoryStore):
    """A store that fails at first: once as it may, once as it never should."""

    def __init__(self) -> None:
        super().__init__(time.monotonic)
        self._failures: list[Exception] = [StoreUnavailable("away"), ZeroDivisionError()]

    async def load_if_empty(self, directory: Directory) -> bool:
        if self._failures:
            raise self._failures.pop(0)
        return await super().load_if_empty(directory)


async def test_a_task_that_fails_is_begun_again_and_nothing_else_notices() -> None:
    store, pubsub, metrics = LateStore(), MemoryPubSub(time.monotonic), Metrics()
    registry = Registry(store, metrics, max_calls=1, clock=time.monotonic)
    outbox = Outbox(pubsub, metrics, clock=time.monotonic, jitter=lambda: 0.5)
    reaper = Reaper(store, pubsub, metrics, is_ours=registry.holds)
    lifecycle = Lifecycle(store, pubsub, outbox, registry, reaper, DIRECTORY, drain_seconds=0)
    async with lifecycle.lifespan(None):
        async with asyncio.timeout(WAIT_SECONDS):
            while await store.business("b") is None:
                await asyncio.sleep(0.05)
        for condition in lifecycle.conditions():
            await condition.check()
