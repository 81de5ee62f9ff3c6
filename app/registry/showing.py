"""Figures of this process's live streams, for as long as somebody watches them."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from app.errors import StoreUnavailable
from app.metrics import Metrics
from app.store.watching import EVERYBODY, StreamFigures, Wanted, Watching

# A request reaches a holder within a second, a watcher sees a new call within one.
LOOK_SECONDS = 0.5
LOOKS_EVERY = 2
PUBLISH_SECONDS = LOOK_SECONDS / LOOKS_EVERY
RETRY_SECONDS = 1.0
# Figures drawn up in one turn of the event loop: less than a millisecond's work.
AT_A_TIME = 50


class LiveCalls(Protocol):
    """Know this process's live streams; `Registry` does."""

    @property
    def live_count(self) -> int:
        """Count them."""

    def figures_of(self) -> Iterable[tuple[str, Callable[[], StreamFigures | None]]]:
        """Give each one's business, and what draws up its figures."""

    def end_call(self, business_id: str, call_sid: str) -> None:
        """End this call's streams that are live here."""


class Showing:
    """Look twice a second what is wanted of this process's streams, and do it.

    Without a live stream, nothing is asked; unwatched, nothing is drawn up. Watched
    figures are published four times a second, all in one write. `holder` names this
    process among all.
    """

    def __init__(self, calls: LiveCalls, store: Watching, metrics: Metrics, holder: str) -> None:
        self._calls = calls
        self._store = store
        self._metrics = metrics
        self._holder = holder
        # Those who were shown something a moment ago, which may be over.
        self._shown: frozenset[str] = frozenset()

    async def run(self) -> None:
        """Look and publish until cancelled."""
        while True:
            try:
                await self._round()
            except StoreUnavailable:
                self._metrics.store_errors.inc()
                await asyncio.sleep(RETRY_SECONDS)

    async def _round(self) -> None:
        """Do what is wanted for as long as one look holds."""
        if not self._calls.live_count and not self._shown:
            await asyncio.sleep(LOOK_SECONDS)
            return
        wanted = await self._store.wanted()
        for business_id, call_sid in wanted.ending:
            self._calls.end_call(business_id, call_sid)
        for _ in range(LOOKS_EVERY):
            await self._publish(wanted)
            await asyncio.sleep(PUBLISH_SECONDS)

    async def _publish(self, wanted: Wanted) -> None:
        if not wanted.watched:
            self._shown = frozenset()
            return
        figures = await self._figures(wanted.watched)
        over = self._shown & wanted.watched - figures.keys()
        await self._store.publish_figures(self._holder, {**figures, **dict.fromkeys(over, ())})
        self._shown = frozenset(figures)

    async def _figures(self, watched: frozenset[str]) -> Mapping[str, list[StreamFigures]]:
        found: dict[str, list[StreamFigures]] = {}
        drawn = 0
        for business_id, draw_up in list(self._calls.figures_of()):
            whom = watched & {business_id, EVERYBODY}
            if not whom:
                continue
            figures = draw_up()
            if figures is None:
                continue
            for one in whom:
                found.setdefault(one, []).append(figures)
            drawn += 1
            if drawn % AT_A_TIME == 0:
                await asyncio.sleep(0)
        return found
