"""Allowances that refill with time: what a peer may do at once, and what all the time."""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf


@dataclass(frozen=True, slots=True)
class Allowance:
    """So many units `at_once`, and `a_second` more each second after."""

    at_once: float
    a_second: float


NO_LIMIT = Allowance(inf, 0)


class Budget:
    """A token bucket: spent by a peer, refilled by time, never above its allowance.

    `clock` gives monotonic seconds. Over `t` seconds no more can be spent than
    `at_once + t * a_second`, and what was earned.
    """

    __slots__ = ("_allowance", "_clock", "_left", "_looked_at")

    def __init__(self, allowance: Allowance, clock: Callable[[], float]) -> None:
        self._allowance = allowance
        self._clock = clock
        self._left = allowance.at_once
        self._looked_at = clock()

    def spend(self, amount: float = 1.0) -> bool:
        """Take `amount` out; False, and nothing taken, where less is left."""
        now = self._clock()
        self.earn((now - self._looked_at) * self._allowance.a_second)
        self._looked_at = now
        if amount > self._left:
            return False
        self._left -= amount
        return True

    def earn(self, amount: float = 1.0) -> None:
        """Put `amount` back, as far as the allowance goes."""
        self._left = min(self._allowance.at_once, self._left + amount)
