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
# Kinds that are told apart at once: of all strangers and of each operator, of each access key,
# and of all that are known. Beyond that they are counted together, those of an actor as theirs.
MOST_KINDS: Final = 30
KINDS_OF_KEY: Final = 5
KINDS_IN_ALL: Final = 1_000
NOBODY: Final = "unknown"
# Audited edits of one business, and sign-ins with one key, at once and then a minute.
EDITS_A_MINUTE: Final = 60
SIGN_INS_A_MINUTE: Final = 10
REFUSED: Final = "access.refused"
OTHERS: Final = "requests of many kinds"


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
        if kind not in self._kinds and self._is_full(entry):
            entry = replace(entry, target=OTHERS, address="", data={})
            kind = _kind(entry)
        known = self._kinds.get(kind)
        if known is not None:
            known.count += 1
            known.entry = entry
            return
        self._kinds[kind] = _Counted(entry, self._clock())
        await self._append(entry)

    def _is_full(self, entry: AuditEntry) -> bool:
        """Return whether no more kinds of an actor are told apart."""
        held = sum(known.entry.actor == entry.actor for known in self._kinds.values())
        most = KINDS_OF_KEY if entry.actor.startswith("key:") else MOST_KINDS
        return held >= most or len(self._kinds) >= KINDS_IN_ALL

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


class Pace:
    """Bound how often each of several may do something: `most` at once, and as many a minute."""

    def __init__(self, most: int, clock: Callable[[], float]) -> None:
        self._most = most
        self._clock = clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, name: str) -> float:
        """Return 0 where this one may do it now, else after how many seconds they may."""
        now, per_second = self._clock(), self._most / 60
        left, at = self._left.pop(name, (float(self._most), now))
        left = min(float(self._most), left + (now - at) * per_second)
        is_within = left >= 1
        self._left[name] = (left - is_within, now)
        if len(self._left) > MOST_REMEMBERED:
            self._left.popitem(last=False)
        return 0.0 if is_within else (1 - left) / per_second
