"""Counts of what comes in a day, which bound it in the service's audit log.

They lie in a plain hash that is not signed. Whatever cannot be counted there counts as nothing,
so that damage to the hash makes the log longer, and never hides an entry.
"""

import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

from app.admin.audit_scripts import COUNT, COUNTS_KEY, FORGET_COUNTS
from app.errors import StoreUnavailable

log = logging.getLogger(__name__)

DAY_SECONDS: Final = 86_400
DAY_MS: Final = DAY_SECONDS * 1000


class AuditCounts:
    """Count refusals, and entries made with keys, over all replicas; `ask` sends a command."""

    def __init__(self, ask: Callable[..., Awaitable[Any]]) -> None:
        self._ask = ask

    async def count_refusal(self, whose: str) -> int:
        """Count a refusal; return how many of `whose` there were in the day."""
        return await self._count(f"refused {whose}")

    async def count_made(self, business_id: str) -> int:
        """Count an entry made with a key of a business; return how many there were in the day."""
        return await self._count(f"made {business_id}")

    async def forget(self, business_id: str) -> None:
        """Remove the counts of a business."""
        fields = f"refused {business_id}", f"made {business_id}"
        await self._ask("EVAL", FORGET_COUNTS, 1, COUNTS_KEY, *fields)

    async def _count(self, what: str) -> int:
        """Return how often it came in the day, or 0 where that cannot be counted."""
        try:
            count = await self._ask("EVAL", COUNT, 1, COUNTS_KEY, what, DAY_SECONDS)
        except StoreUnavailable as error:
            log.warning("[admin] The audit log does not count %s: %s", what, error)
            return 0
        if not isinstance(count, int):
            log.error("[admin] ❌ %s was unreadable and was removed: counts begin anew", COUNTS_KEY)
            return 0
        return count


class OnceADay:
    """Remember what this process has recorded on a day (UTC)."""

    def __init__(self) -> None:
        self._day = 0
        self._names: set[str] = set()

    def has(self, name: str, at: int) -> bool:
        """Return whether `name` was recorded on the day of a time (Unix milliseconds)."""
        if at // DAY_MS > self._day:
            self._day = at // DAY_MS
            self._names.clear()
        return name in self._names

    def add(self, name: str) -> None:
        """Remember that `name` was recorded today."""
        self._names.add(name)
