"""Wrong keys, counted: for each address over all replicas, and in all for this process."""

from collections import deque
from collections.abc import Callable

from app.errors import StoreUnavailable, TooManyAttempts
from app.store.access import Access
from app.store.memory_access import MemoryAccess

WINDOW_SECONDS = 300.0
MOST_OF_ADDRESS = 10
MOST_IN_ALL = 1000


class Attempts:
    """Count wrong keys, and refuse whoever tries too many.

    With the store away this process counts by itself. `clock` gives monotonic seconds.
    """

    def __init__(self, access: Access, clock: Callable[[], float]) -> None:
        self._access = access
        self._here = MemoryAccess(clock)
        self._clock = clock
        self._all: deque[float] = deque(maxlen=MOST_IN_ALL)

    async def check(self, address: str) -> None:
        """Raise TooManyAttempts when this address, or all together, tried too many."""
        if await self._of(address) >= MOST_OF_ADDRESS or self._count_all() >= MOST_IN_ALL:
            raise _too_many()

    async def note_wrong(self, address: str) -> None:
        """Count a wrong key; raise TooManyAttempts when it is one too many."""
        self._all.append(self._clock() + WINDOW_SECONDS)
        counted = await self._here.note_attempt(address, WINDOW_SECONDS)
        try:
            counted = max(counted, await self._access.note_attempt(address, WINDOW_SECONDS))
        except StoreUnavailable:
            pass
        if counted > MOST_OF_ADDRESS or self._count_all() >= MOST_IN_ALL:
            raise _too_many()

    async def _of(self, address: str) -> int:
        here = await self._here.attempts_of(address)
        try:
            return max(here, await self._access.attempts_of(address))
        except StoreUnavailable:
            return here

    def _count_all(self) -> int:
        while self._all and self._all[0] <= self._clock():
            self._all.popleft()
        return len(self._all)


def _too_many() -> TooManyAttempts:
    return TooManyAttempts(
        "too many wrong keys came from your address; wait five minutes, then try the right one",
        retry_seconds=int(WINDOW_SECONDS),
    )
