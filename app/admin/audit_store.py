"""The audit log's port, and the log of a process that has no Redis."""

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import replace
from itertools import count, islice
from typing import Final, Protocol

from app.admin.audit_chain import Head
from app.admin.audit_entries import ERASED, AuditEntry

# Below what 0.1 trims to (about 100,000), so that no replica of it trims a chain.
MOST_ENTRIES: Final = 96_000
# A flood of refusals must not push out what was done: so many are recorded a day, by all replicas,
# of each business, of all strangers, and of all operators.
REFUSALS_A_DAY: Final = 200
# And of what the keys of one business do. What they do beyond that is in the business's view alone.
SHARE_A_DAY: Final = 1_000


class AuditStore(Protocol):
    """Keep the audit log, for all replicas.

    Every method but `open` and `close` raises StoreUnavailable when the store cannot be reached.
    """

    async def open(self) -> None:
        """Make ready; does not fail when the store is away."""

    async def close(self) -> None:
        """Close every connection."""

    async def append(self, entry: AuditEntry) -> AuditEntry:
        """Append an entry; return it with its id, empty where it waits for a writer with a key."""

    async def page(
        self, business_id: str | None, before: str = "", limit: int = 50
    ) -> list[AuditEntry]:
        """Return entries of a business, or with None all, the latest first.

        `before` is the id of the last entry of the page before, of the same log.
        """

    async def count_refusal(self, whose: str) -> int:
        """Count a refusal; return how many of `whose` there were in the day."""

    async def keep_up(self) -> Head | None:
        """Begin the chain where there is none, adopt entries that wait, and return the head."""

    async def drop(self, business_id: str) -> int:
        """Delete a business's view, its personal values everywhere, and its counts.

        Return how many entries of the view are gone.
        """

    async def forget_counts(self, business_id: str) -> None:
        """Remove what was counted of a deleted business."""

    async def redact(self, matches: Callable[[str], bool], business_id: str | None) -> int:
        """Erase personal values that match, of a business or all; count those of the service's log.

        The entries stay, and their chain holds.
        """

    async def count_personal(self, matches: Callable[[str], bool], business_id: str | None) -> int:
        """Count the personal values that `redact` would erase."""


class MemoryAuditStore:
    """Keep the audit log in this process; see `AuditStore`. Nobody else can change it."""

    def __init__(self) -> None:
        self._log: deque[AuditEntry] = deque(maxlen=MOST_ENTRIES)
        self._numbers = count(1)
        self._dropped: dict[str, str] = {}
        self._refusals: Counter[str] = Counter()

    async def open(self) -> None:
        """Do nothing: memory is there."""

    async def close(self) -> None:
        """Do nothing: memory goes with the process."""

    async def append(self, entry: AuditEntry) -> AuditEntry:
        """Append an entry."""
        appended = replace(entry, id=f"{next(self._numbers):015}-0")
        self._log.append(appended)
        return appended

    async def page(
        self, business_id: str | None, before: str = "", limit: int = 50
    ) -> list[AuditEntry]:
        """Return entries, the latest first."""
        since = "" if business_id is None else self._dropped.get(business_id, "")
        found = (
            replace(entry, data={**entry.data, **entry.personal}, personal={})
            for entry in reversed(self._log)
            if (not before or entry.id < before)
            and entry.id > since
            and (business_id is None or entry.business_id == business_id != "")
        )
        return list(islice(found, limit))

    async def count_refusal(self, whose: str) -> int:
        """Count a refusal; return how many of `whose` there were."""
        self._refusals[whose] += 1
        return self._refusals[whose]

    async def keep_up(self) -> Head | None:
        """Do nothing: there is no chain."""
        return None

    async def drop(self, business_id: str) -> int:
        """Delete a business's view, and its personal values."""
        gone = len(await self.page(business_id, limit=MOST_ENTRIES))
        self._dropped[business_id] = f"{next(self._numbers):015}-0"
        await self.forget_counts(business_id)
        await self.redact(lambda value: True, business_id)
        return gone

    async def forget_counts(self, business_id: str) -> None:
        """Remove what was counted of a deleted business."""
        self._refusals.pop(business_id, None)

    async def redact(self, matches: Callable[[str], bool], business_id: str | None) -> int:
        """Erase personal values that match."""
        redacted = 0
        for at, entry in enumerate(self._log):
            if business_id in (None, entry.business_id):
                kept = {name: one for name, one in entry.personal.items() if not matches(one)}
                gone = {name: ERASED for name in entry.personal.keys() - kept.keys()}
                redacted += len(gone)
                self._log[at] = replace(entry, personal=kept, data={**entry.data, **gone})
        return redacted

    async def count_personal(self, matches: Callable[[str], bool], business_id: str | None) -> int:
        """Count the personal values that match."""
        return sum(
            matches(value)
            for entry in self._log
            if business_id in (None, entry.business_id)
            for value in entry.personal.values()
        )
