"""A bounded pool that many businesses use: a share for each, and a reserve for operators."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from app.errors import BridgeError


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """How many of a pool may be in use: in all, by one business, and by all businesses.

    What is left of `total` is for operators.
    """

    total: int
    of_business: int
    of_businesses: int


def leaves_room(own: int, in_all: int, most: int) -> bool:
    """Return whether a business may use one more of a pool that it could fill in moments.

    It may use as many as are free: one business gets half of the pool, and each further one
    half of what the others leave. So none finds the pool full because of another.
    """
    return own < most - in_all


class Shares:
    """Count who uses a pool. `refuse` makes the error for one more, from a sentence."""

    def __init__(self, what: str, limits: PoolLimits, refuse: Callable[[str], BridgeError]) -> None:
        self._what = what
        self._limits = limits
        self._refuse = refuse
        self._used: Counter[str] = Counter()
        self._in_all = 0

    def check(self, business_id: str | None) -> None:
        """Raise the pool's error unless one more may use it; None stands for an operator."""
        limits, of_operators = self._limits, self._used[""]
        if self._in_all >= limits.total:
            raise self._refuse(f"{self._what}: {limits.total} in this process are the limit")
        if not business_id:
            return
        if self._used[business_id] >= limits.of_business:
            raise self._refuse(
                f"{self._what}: {limits.of_business} of one business in a process are the limit"
            )
        if self._in_all - of_operators >= limits.of_businesses:
            raise self._refuse(
                f"{self._what}: {limits.of_businesses} of all businesses in a process are the limit"
            )

    @contextmanager
    def use(self, business_id: str | None) -> Iterator[None]:
        """Use one of the pool for as long as the block runs; raise as `check`."""
        self.check(business_id)
        name = business_id or ""
        self._used[name] += 1
        self._in_all += 1
        try:
            yield
        finally:
            self._in_all -= 1
            self._used[name] -= 1
            if not self._used[name]:
                del self._used[name]
