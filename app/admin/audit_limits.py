"""What may come often enough to push everything else out of the audit log: refusals and reads.

Each is recorded singly at first, and counted beyond that.
"""

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Final

from app.admin.audit_entries import AuditEntry

# A player asks for a file in parts, and a page polls: one entry until that long after the last.
READ_AGAIN_SECONDS: Final = 600.0
MOST_REMEMBERED: Final = 10_000
READS_AN_HOUR: Final = 100
HOUR_SECONDS: Final = 3600.0
MANY_READ: Final = "calls.read_often"
WINDOW_SECONDS: Final = 300.0
# Kinds that are told apart at once. Beyond that they are counted together.
MOST_KINDS: Final = 30
REFUSED: Final = "access.refused"
OTHERS: Final = AuditEntry(0, "several", REFUSED, "requests of many kinds")


@dataclass(slots=True)
class _Counted:
    """Refusals of one kind since the last that was recorded."""

    entry: AuditEntry
    since: float
    count: int = 0


class Refusals:
    """Record refusals. `append` stores an entry; `clock` gives monotonic seconds.

    A kind is an actor, an address, a target and a reason. The first refusal of a kind is recorded
    at once. Those in the five minutes after it are counted, and recorded as one entry.
    """

    def __init__(
        self, append: Callable[[AuditEntry], Awaitable[None]], clock: Callable[[], float]
    ) -> None:
        self._append = append
        self._clock = clock
        self._kinds: dict[tuple[str, ...], _Counted] = {}

    async def note(self, entry: AuditEntry) -> None:
        """Record a refusal, or count it."""
        kind = _kind(entry)
        if kind not in self._kinds and len(self._kinds) >= MOST_KINDS:
            entry = replace(OTHERS, at=entry.at)
            kind = _kind(entry)
        known = self._kinds.get(kind)
        if known is not None:
            known.count += 1
            known.entry = entry
            return
        self._kinds[kind] = _Counted(entry, self._clock())
        await self._append(entry)

    async def flush(self, *, all_kinds: bool = False) -> None:
        """Record what was counted, of windows that are over or of all, and forget those kinds."""
        now = self._clock()
        due = [
            kind
            for kind, known in self._kinds.items()
            if all_kinds or now - known.since >= WINDOW_SECONDS
        ]
        for known in [self._kinds.pop(kind) for kind in due]:
            if known.count:
                data = {**known.entry.data, "more": known.count}
                await self._append(replace(known.entry, data=data))


def _kind(entry: AuditEntry) -> tuple[str, ...]:
    reason = str(entry.data.get("reason", ""))
    return entry.action, entry.actor, entry.address, entry.target, reason


@dataclass(slots=True)
class _Hour:
    """What one actor has read since a time."""

    since: float
    recorded: int = 0
    more: int = 0
    last: AuditEntry | None = None


class Reads:
    """Record what is read. `append` stores an entry; `clock` gives monotonic seconds.

    The same thing is recorded once for as long as an actor goes on reading it; and of one actor's
    reads READS_AN_HOUR singly, the rest as a count.
    """

    def __init__(
        self, append: Callable[[AuditEntry], Awaitable[None]], clock: Callable[[], float]
    ) -> None:
        self._append = append
        self._clock = clock
        self._last: OrderedDict[tuple[str, ...], float] = OrderedDict()
        self._hours: dict[str, _Hour] = {}

    async def note(self, entry: AuditEntry) -> None:
        """Record that something was read, unless that was recorded a while ago."""
        if not self._is_new(entry):
            return
        hour = self._hours.setdefault(entry.actor, _Hour(self._clock()))
        hour.last = entry
        if hour.recorded >= READS_AN_HOUR:
            hour.more += 1
        else:
            hour.recorded += 1
            await self._append(entry)

    def _is_new(self, entry: AuditEntry) -> bool:
        names = entry.actor, entry.address, entry.action, entry.business_id, entry.target
        kind = (*names, str(sorted(entry.data.items())))
        now = self._clock()
        last = self._last.pop(kind, None)
        self._last[kind] = now
        if len(self._last) > MOST_REMEMBERED:
            self._last.popitem(last=False)
        return last is None or now - last >= READ_AGAIN_SECONDS

    async def flush(self, *, all_actors: bool = False) -> None:
        """Record what was counted, of hours that are over or of all, and begin those anew."""
        now = self._clock()
        due = [
            actor
            for actor, hour in self._hours.items()
            if all_actors or now - hour.since >= HOUR_SECONDS
        ]
        for hour in [self._hours.pop(actor) for actor in due]:
            if hour.more and hour.last is not None:
                last, data = hour.last, {"more": hour.more}
                await self._append(replace(last, action=MANY_READ, target=last.actor, data=data))
