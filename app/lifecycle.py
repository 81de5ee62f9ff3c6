"""What runs as long as the process does, and how its calls end with it."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

from app.errors import BrokerRefused, EventsBacklogged, StoreUnavailable
from app.events import EndReason
from app.metrics import Metrics
from app.plans import Directory
from app.pubsub.base import PubSub
from app.pubsub.outbox import Outbox
from app.reaper import Reaper
from app.registry import Registry
from app.session.hangups import Hangups
from app.store.base import Store
from app.vitals import note_vitals
from app.web.health import Condition

log = logging.getLogger(__name__)

# How long the last audio and the last receipts may take to reach the broker, in
# all, when the process stops; of that, what is left for receipts and events.
FLUSH_SECONDS = 5.0
LAST_WORDS_SECONDS = 1.0
LOAD_RETRY_SECONDS = 1.0
RESTART_SECONDS = 1.0


class Connected(Protocol):
    """What has connections; an adapter of a port."""

    async def open(self) -> None:
        """Make ready; does not fail when the other side is away."""

    async def close(self) -> None:
        """Let go of every connection."""


class Lifecycle:
    """Connect, run the process's own tasks, and end calls in good order.

    `beside` are further tasks by name; `on_drain` are told when the process is told to
    stop: what would never end by itself. `warnings` asks what a restart of the store
    would lose, by other connections than the calls'.
    """

    def __init__(
        self,
        store: Store,
        pubsub: PubSub,
        outbox: Outbox,
        registry: Registry,
        reaper: Reaper,
        directory: Directory | None,
        metrics: Metrics,
        *,
        drain_seconds: float,
        hangups: Hangups | None = None,
        connected: Sequence[Connected] = (),
        beside: Mapping[str, Callable[[], Awaitable[None]]] | None = None,
        on_drain: Sequence[Callable[[], None]] = (),
        warnings: Callable[[], Awaitable[list[str]]] | None = None,
    ) -> None:
        self._store = store
        self._pubsub = pubsub
        self._outbox = outbox
        self._registry = registry
        self._reaper = reaper
        self._directory = directory
        self._metrics = metrics
        self._has_businesses = directory is None
        self._drain_seconds = drain_seconds
        self._hangups = hangups
        self.warnings = warnings or store.durability_warnings
        self._connected: Sequence[Connected] = (pubsub, store, *connected)
        self._beside = dict(beside or {})
        self._on_drain = on_drain
        self._calls_ended = False

    @asynccontextmanager
    async def lifespan(self, app: object) -> AsyncIterator[None]:
        """Run from the server's start to its stop."""
        for one in self._connected:
            await one.open()
        async with asyncio.TaskGroup() as tasks:
            owned = [
                tasks.create_task(_kept_running("writer", self._outbox.run)),
                tasks.create_task(_kept_running("leases", self._registry.keep_leases)),
                tasks.create_task(_kept_running("reaper", self._reaper.run)),
                tasks.create_task(_kept_running("businesses", self._load_businesses)),
                tasks.create_task(_kept_running("durability", self._warn_of_loss)),
                tasks.create_task(_kept_running("vitals", lambda: note_vitals(self._metrics))),
            ]
            owned += [
                tasks.create_task(_kept_running(name, run)) for name, run in self._beside.items()
            ]
            yield
            self._end_endless()
            await self._end_calls()
            for task in owned:
                task.cancel()
        if self._hangups is not None:
            await self._hangups.close(FLUSH_SECONDS)
        for one in self._connected:
            await one.close()

    async def drain(self) -> None:
        """Let live calls end by themselves, for at most DRAIN_SECONDS; then end them."""
        self._registry.refuse_new_calls()
        self._end_endless()
        if self._registry.live_count:
            log.info("[server] Draining: %d live calls", self._registry.live_count)
        await self._registry.wait_until_empty(self._drain_seconds)
        await self._end_calls()

    def conditions(self) -> tuple[Condition, ...]:
        """Give what readiness depends on."""
        return (
            Condition("accepting", self._check_accepting),
            Condition("broker", self._check_broker),
            Condition("store", self._store.check),
            Condition("businesses", self._check_businesses),
        )

    def _end_endless(self) -> None:
        for end in self._on_drain:
            end()

    async def _end_calls(self) -> None:
        """End every call and write the last of it; a second time does nothing."""
        if self._calls_ended:
            return
        registry, outbox = self._registry, self._outbox
        registry.refuse_new_calls()
        registry.end_all(EndReason.DRAIN)
        try:
            async with asyncio.timeout(FLUSH_SECONDS):
                if not await registry.wait_until_empty(FLUSH_SECONDS - LAST_WORDS_SECONDS):
                    outbox.give_up(EndReason.DRAIN)
                    await registry.wait_until_empty(LAST_WORDS_SECONDS)
                await outbox.wait_until_idle()
                await registry.let_go_of_ended()
                await registry.note_usage()
        except TimeoutError:
            log.error("[server] The broker did not take the last events")
        except StoreUnavailable:
            pass  # the leases run out; a reaper finds their streams ended
        self._calls_ended = True

    async def _check_accepting(self) -> None:
        self._registry.check_room()
        if not self._outbox.takes_events:
            raise EventsBacklogged("lifecycle events wait for the broker")

    async def _check_broker(self) -> None:
        if self._outbox.failing_seconds:
            raise BrokerRefused("failing", f"no write for {self._outbox.failing_seconds:.1f} s")
        await self._pubsub.check()

    async def _check_businesses(self) -> None:
        if not self._has_businesses:
            raise StoreUnavailable("the businesses file is not in the store yet")

    async def _warn_of_loss(self) -> None:
        """Say once, as soon as the store can be reached, what its restart would lose."""
        while True:
            try:
                await self._store.check()
            except StoreUnavailable:
                await asyncio.sleep(LOAD_RETRY_SECONDS)
                continue
            for warning in await self.warnings():
                log.warning("[server] ⚠️ %s", warning)
            return

    async def _load_businesses(self) -> None:
        """Give the store the businesses file, as soon as the store can be reached."""
        while self._directory is not None:
            try:
                loaded = await self._store.load_if_empty(self._directory)
            except StoreUnavailable:
                await asyncio.sleep(LOAD_RETRY_SECONDS)
                continue
            self._has_businesses = True
            if loaded:
                log.info("[server] Loaded %d businesses", len(self._directory.businesses))
            else:
                log.info("[server] The store has businesses already; BUSINESSES_FILE is not read")
            return


async def _kept_running(name: str, run: Callable[[], Awaitable[None]]) -> None:
    """Run one of the process's tasks to its end, and again when it fails."""
    while True:
        try:
            return await run()
        except Exception:
            log.exception("[server] The task %s failed and is begun again", name)
            await asyncio.sleep(RESTART_SECONDS)
