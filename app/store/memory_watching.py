"""Figures of live calls in a process that stands alone."""

from collections.abc import Callable, Collection, Mapping, Sequence

from app.store.watching import (
    END_SECONDS,
    FRESH_SECONDS,
    MAX_ENDING,
    WATCH_SECONDS,
    StreamFigures,
    Wanted,
)


class MemoryWatching:
    """Bring watchers and holders of one process together. `clock` gives monotonic seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._now = clock
        self._watched: dict[str, float] = {}
        self._figures: dict[str, dict[str, tuple[float, Sequence[StreamFigures]]]] = {}
        self._ending: dict[tuple[str, str], float] = {}

    async def watch(self, whom: Collection[str]) -> dict[str, list[StreamFigures]]:
        """Watch these for a while more, and give their figures."""
        now = self._now()
        self._watched |= dict.fromkeys(whom, now + WATCH_SECONDS)
        return {
            name: [
                one
                for at, figures in self._figures.get(name, {}).values()
                if now - at <= FRESH_SECONDS
                for one in figures
                if one.is_for(name)
            ]
            for name in whom
        }

    async def wanted(self) -> Wanted:
        """Tell a holder what it is asked for."""
        now = self._now()
        self._watched = {name: end for name, end in self._watched.items() if end > now}
        self._ending = {call: end for call, end in self._ending.items() if end > now}
        self._figures = {
            name: found for name, found in self._figures.items() if name in self._watched
        }
        return Wanted(frozenset(self._watched), frozenset(self._ending))

    async def publish_figures(
        self, holder: str, figures: Mapping[str, Sequence[StreamFigures]]
    ) -> None:
        """Replace a holder's figures for those who watch."""
        for name, found in figures.items():
            self._figures.setdefault(name, {})[holder] = self._now(), found

    async def ask_to_end(self, business_id: str, call_sid: str) -> None:
        """Ask whoever holds a stream of this call to end it."""
        self._ending.pop((business_id, call_sid), None)
        self._ending[business_id, call_sid] = self._now() + END_SECONDS
        while len(self._ending) > MAX_ENDING:
            del self._ending[next(iter(self._ending))]
