"""Whose an Exotel pair is, looked up at a bounded cost however many pairs are guessed.

Wrong pairs and right ones come from one address, since Exotel's customers share its
addresses. So a pair that has not been seen before is always looked up, and only waits its turn.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from app.errors import StoreUnavailable
from app.plans import Business

_T = TypeVar("_T")

# Look-ups at once of pairs that were not right a moment ago. The store answers thousands a
# second, and has connections left for calls.
MOST_AT_ONCE: Final = 8
WAIT_SECONDS: Final = 5.0
# For how long a wrong pair is not looked up again; a new pair is good within a second.
WRONG_SECONDS: Final = 0.5
# Pairs that a process remembers, of either kind; the least recent go first.
MOST_REMEMBERED: Final = 4096


class PairOwners:
    """Look up whose a pair is. `find` asks the store; `clock` returns monotonic seconds."""

    def __init__(
        self,
        find: Callable[[str], Awaitable[Business | None]],
        clock: Callable[[], float],
        *,
        wait_seconds: float = WAIT_SECONDS,
    ) -> None:
        self._find = find
        self._clock = clock
        self._wait_seconds = wait_seconds
        self._turns = asyncio.Semaphore(MOST_AT_ONCE)
        self._under_way: dict[str, asyncio.Task[str]] = {}
        self._right: OrderedDict[str, None] = OrderedDict()
        self._wrong_until: OrderedDict[str, float] = OrderedDict()

    async def owner_of(self, digest: str) -> str:
        """Return the id of the business that has a pair, by its digest; empty for a wrong pair.

        Raises:
            StoreUnavailable: the store is away, or the look-up's turn did not come in time.
        """
        if self._wrong_until.get(digest, 0.0) > self._clock():
            return ""
        task = self._under_way.get(digest)
        if task is None:
            task = asyncio.create_task(self._look_up(digest))
            self._under_way[digest] = task
            task.add_done_callback(lambda done: self._note_done(digest, done))
        # A peer that goes away must not end the look-up of another.
        return await asyncio.shield(task)

    async def _look_up(self, digest: str) -> str:
        if digest in self._right:
            return await self._ask(digest)  # before all that may be guesses
        try:
            async with asyncio.timeout(self._wait_seconds):
                await self._turns.acquire()
        except TimeoutError:
            raise StoreUnavailable(
                "too many Exotel pairs are being looked up; try again in a moment"
            ) from None
        try:
            return await self._ask(digest)
        finally:
            self._turns.release()

    async def _ask(self, digest: str) -> str:
        owner = await self._find(digest)
        if owner is None:
            self._right.pop(digest, None)
            _remember(self._wrong_until, digest, self._clock() + WRONG_SECONDS)
            return ""
        _remember(self._right, digest, None)
        return owner.id

    def _note_done(self, digest: str, task: asyncio.Task[str]) -> None:
        del self._under_way[digest]
        if not task.cancelled():
            task.exception()  # whoever waits has it too, unless they are gone


def _remember(known: OrderedDict[str, _T], digest: str, value: _T) -> None:
    known[digest] = value
    known.move_to_end(digest)
    if len(known) > MOST_REMEMBERED:
        known.popitem(last=False)
