"""How fast calls may come: so many in any stretch of time, counted exactly."""

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pace:
    """At most `calls` in any `seconds`."""

    calls: int
    seconds: float

    @classmethod
    def of(cls, per_second: float) -> "Pace | None":
        """Read calls per second, where 0.5 is one in two seconds; None: as fast as they like."""
        if math.isinf(per_second):
            return None
        calls = max(1, math.floor(per_second))
        return cls(calls, calls / per_second)


class RecentCalls:
    """Remember when each business's last calls were taken. `clock` gives seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._taken: dict[str, deque[float]] = {}

    def has_room(self, business_id: str, pace: Pace | None) -> bool:
        """Tell whether one more call keeps the pace."""
        taken = self._taken.get(business_id, ())
        if pace is None or len(taken) < pace.calls:
            return True
        return taken[-pace.calls] <= self._clock() - pace.seconds

    def add(self, business_id: str, pace: Pace | None) -> None:
        """Note a call that was taken now; without a pace nothing is noted."""
        if pace is None:
            return
        taken = self._taken.setdefault(business_id, deque())
        taken.append(self._clock())
        while len(taken) > pace.calls:
            taken.popleft()
