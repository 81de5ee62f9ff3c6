"""A group in one process: of a worker without a group, who gets every call."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from app.consumer.sharing import (
    FAILED_SECONDS,
    LEASE_SECONDS,
    MAX_FAILURES,
    MAX_KNOWN,
    Claim,
    StreamName,
)


@dataclass
class GroupState:
    """What the workers of a group know together; times are the clock's seconds."""

    cursor: str | None = None
    free_at: dict[StreamName, float] = field(default_factory=dict)
    positions: dict[StreamName, str] = field(default_factory=dict)
    holders: dict[StreamName, object] = field(default_factory=dict)
    failures: dict[StreamName, int] = field(default_factory=dict)
    done: dict[StreamName, None] = field(default_factory=dict)
    lost: dict[str, tuple[StreamName, str]] = field(default_factory=dict)


class MemorySharing:
    """Share streams within a process; `clock` gives monotonic seconds."""

    def __init__(
        self,
        clock: Callable[[], float],
        state: GroupState | None = None,
        lease_seconds: float = LEASE_SECONDS,
    ) -> None:
        self._clock = clock
        self._state = state or GroupState()
        self._lease_seconds = lease_seconds

    async def close(self) -> None:
        """Do nothing."""

    async def cursor(self) -> str | None:
        """See `Sharing.cursor`."""
        return self._state.cursor

    async def begin(self, cursor: str, names: Sequence[StreamName]) -> str:
        """See `Sharing.begin`."""
        state = self._state
        if state.cursor is None:
            state.cursor = cursor
            self._add(names)
        return state.cursor

    async def enlist(
        self, after: str, upto: str, names: Sequence[StreamName], lives: Sequence[str]
    ) -> str:
        """See `Sharing.enlist`."""
        state = self._state
        if state.cursor != after:
            return state.cursor or after
        state.cursor = upto
        self._add(names)
        for stream_sid in lives:
            found = state.lost.pop(stream_sid, None)
            if found is not None:
                name, position = found
                state.done.pop(name, None)
                state.free_at[name] = 0.0
                state.positions[name] = position
        return upto

    async def claim(self, count: int) -> list[Claim]:
        """See `Sharing.claim`."""
        state, now = self._state, self._clock()
        free = sorted(
            (name for name, free_at in state.free_at.items() if free_at <= now),
            key=lambda name: (name.started_at, name.stream_sid),
        )
        for name in free[:count]:
            state.free_at[name] = now + self._lease_seconds
            state.holders[name] = self
        return [Claim(name, state.positions[name]) for name in free[:count]]

    async def hold(self, positions: Mapping[StreamName, str]) -> frozenset[StreamName]:
        """See `Sharing.hold`."""
        state = self._state
        ours = {name for name in positions if state.holders.get(name) is self}
        for name in ours:
            state.free_at[name] = self._clock() + self._lease_seconds
            state.positions[name] = max(state.positions[name], positions[name], key=_order)
        return frozenset(positions.keys() - ours)

    async def finish(self, name: StreamName, position: str, *, is_lost: bool = False) -> None:
        """See `Sharing.finish`."""
        state = self._state
        if state.holders.get(name) is not self:
            return
        self._forget(name)
        state.done[name] = None
        if is_lost:
            state.lost[name.stream_sid] = name, position
        if len(state.done) > MAX_KNOWN:
            oldest = next(iter(state.done))
            del state.done[oldest]
            state.lost.pop(oldest.stream_sid, None)

    async def release(self, name: StreamName, position: str, *, has_failed: bool = False) -> bool:
        """See `Sharing.release`."""
        state = self._state
        if state.holders.get(name) is not self:
            return True
        state.failures[name] = state.failures.get(name, 0) + has_failed
        if state.failures[name] >= MAX_FAILURES:
            await self.finish(name, position)
            return False
        del state.holders[name]
        state.positions[name] = position
        state.free_at[name] = self._clock() + FAILED_SECONDS if has_failed else 0.0
        return True

    def _add(self, names: Sequence[StreamName]) -> None:
        state = self._state
        for name in names:
            if name not in state.free_at and name not in state.done:
                state.free_at[name] = 0.0
                state.positions[name] = name.beginning

    def _forget(self, name: StreamName) -> None:
        state = self._state
        for known in (state.free_at, state.positions, state.holders, state.failures):
            known.pop(name, None)


def _order(entry_id: str) -> tuple[int, int]:
    ms, _, number = entry_id.partition("-")
    return int(ms), int(number)
