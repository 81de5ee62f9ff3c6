"""Configuration as one process remembers it, and for how long it may decide without Redis.

Every edit changes the version of the configuration. What was read under the version that is
confirmed last cannot have been edited before that moment, however long ago it was read. What
was read under another one decides nothing any more: it is read again.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, TypeVar

from app.errors import ConfigurationError, StoreUnavailable

# What is saved is seen by the next call within a second, however it was read: a number's
# owner, then the business, then its plan.
FRESH_SECONDS: Final = 0.5
# What was confirmed decides for this long after the store was last heard of.
SERVED_SECONDS: Final = 900.0
# Read again at once after an edit; the rest follows with the next confirmation.
REREAD_AT_ONCE: Final = 1_000
# Calls share the connections; reading many records leaves them most.
READ_AT_A_TIME: Final = 8

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class _Entry:
    """What was read, by what, and under which version; None where that was not known."""

    value: Any
    read: Callable[[], Awaitable[Any]]
    fresh_until: float
    version: str | None


class Remembered:
    """Remember what is configured. `clock` gives monotonic seconds.

    `was_used` tells whether anything was decided without the store since the last
    confirmation.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        # Holds what is configured, and so is no longer than the configuration.
        self._entries: dict[str, _Entry] = {}
        self._version: str | None = None
        self._confirmed_at = float("-inf")
        self.was_used = False

    async def recall(self, key: str, read: Callable[[], Awaitable[_T | None]]) -> _T | None:
        """Return what was read under `key` a moment ago, else read it.

        Raises:
            StoreUnavailable: it cannot be read, and what is known of it is not confirmed.
        """
        known = self._entries.get(key)
        if known and known.version == self._version and self._clock() < known.fresh_until:
            value: _T | None = known.value
            return value
        version = self._version  # an edit may be seen while this is read
        try:
            value = await read()
        except StoreUnavailable:
            known = self._entries.get(key)
            if known is None or not self._is_confirmed(known):
                raise
            self.was_used = True
            value = known.value
            return value
        if value is None:
            self._entries.pop(key, None)
        else:
            self._entries[key] = _Entry(value, read, self._clock() + FRESH_SECONDS, version)
        return value

    def forget(self, *keys: str) -> None:
        """Read these again the next time: they were edited here."""
        for key in keys:
            self._entries.pop(key, None)

    def confirm(self, version: str, at: float) -> None:
        """Note that the configuration had this version at a time or later."""
        if at < self._confirmed_at:
            return  # an edit of this process has ended since
        self._version, self._confirmed_at = version, at
        self.was_used = False

    def doubt(self) -> None:
        """Note that an edit is under way: nothing decides without the store until it is over."""
        self._version = None

    async def reread(self) -> None:
        """Read again what was read under another version, so that it can be relied on.

        Raises:
            StoreUnavailable: the rest is read another time.
        """
        outdated = (
            (key, entry.read)
            for key, entry in list(self._entries.items())
            if entry.version != self._version
        )
        room = asyncio.Semaphore(READ_AT_A_TIME)

        async def reread_one(key: str, read: Callable[[], Awaitable[Any]]) -> bool:
            try:
                async with room:
                    await self.recall(key, read)
            except ConfigurationError:
                self.forget(key)  # whoever asks for it is told
            except StoreUnavailable:
                return False
            return True

        some = list(islice(outdated, REREAD_AT_ONCE))
        if not all(await asyncio.gather(*(reread_one(*one) for one in some))):
            raise StoreUnavailable("what was edited could not be read again")

    def _is_confirmed(self, known: _Entry) -> bool:
        return (
            self._version is not None
            and known.version == self._version
            and self._clock() - self._confirmed_at <= SERVED_SECONDS
        )
