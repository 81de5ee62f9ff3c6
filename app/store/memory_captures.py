"""What peers send in live calls, in a process that stands alone."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from itertools import count as counted
from itertools import islice

from app.store.captures import (
    ASK_SECONDS,
    KEEP_SECONDS,
    MAX_ASKED,
    MAX_BATCHES,
    Asked,
    Batch,
    Captured,
    Opening,
)


@dataclass
class _Kept:
    opening: Opening
    until: float
    begun: int
    batches: dict[int, Batch] = field(default_factory=dict)


class MemoryCaptures:
    """Bring recorders and holders of one process together. `clock` gives monotonic seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._now = clock
        self._asked: dict[Asked, float] = {}
        self._kept: dict[str, _Kept] = {}
        self._numbers = counted(1)

    async def open(self) -> None:
        """Do nothing: memory is there."""

    async def close(self) -> None:
        """Do nothing: memory goes with the process."""

    async def ask(self, asked: Asked) -> None:
        """Ask for calls' messages for a while more."""
        self._asked.pop(asked, None)
        self._asked[asked] = self._now() + ASK_SECONDS
        while len(self._asked) > MAX_ASKED:
            del self._asked[next(iter(self._asked))]

    async def asked(self) -> Collection[Asked]:
        """Tell a holder what is asked for."""
        now = self._now()
        self._asked = {asked: until for asked, until in self._asked.items() if until > now}
        return list(self._asked)

    async def begin(self, opening: Opening) -> bool:
        """Begin to put a stream's messages there, unless another business's are there."""
        self._forget()
        known = self._kept.get(opening.stream_sid)
        if known is not None and known.opening.captured != opening.captured:
            return False
        now = self._now()
        kept = _Kept(opening, now + KEEP_SECONDS, round(now * 1000))
        self._kept[opening.stream_sid] = kept
        return True

    async def put(self, captured: Captured, batch: Batch) -> bool:
        """Put messages of a stream there, unless they are gone."""
        kept = self._of(captured)
        if kept is None:
            return False
        kept.until = self._now() + KEEP_SECONDS
        kept.batches[next(self._numbers)] = batch
        if len(kept.batches) > MAX_BATCHES:
            del kept.batches[next(iter(kept.batches))]
        return True

    async def begun(self, after: int | None) -> tuple[int, list[str]]:
        """Give the time, and the streams that have begun after such a time."""
        self._forget()
        found = [
            sid for sid, kept in self._kept.items() if after is not None and kept.begun > after
        ]
        return round(self._now() * 1000), found

    async def opening(self, stream_sid: str) -> Opening | None:
        """Tell how a stream's capture began."""
        self._forget()
        kept = self._kept.get(stream_sid)
        return kept.opening if kept else None

    async def batches(
        self, captured: Captured, after: str, count: int
    ) -> Sequence[tuple[str, Batch]]:
        """Give batches that follow an id."""
        kept = self._of(captured)
        last = int(after.partition("-")[0] or 0)
        found = kept.batches.items() if kept else ()
        return [(f"{n}-0", batch) for n, batch in islice((x for x in found if x[0] > last), count)]

    def _of(self, captured: Captured) -> _Kept | None:
        self._forget()
        kept = self._kept.get(captured.stream_sid)
        return kept if kept is not None and kept.opening.captured == captured else None

    def _forget(self) -> None:
        now = self._now()
        self._kept = {sid: kept for sid, kept in self._kept.items() if kept.until > now}
