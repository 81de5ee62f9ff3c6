"""Names that are remembered for a while, in this process."""

from collections import OrderedDict
from collections.abc import Callable


class Once:
    """Remember names for a while. Those asked about first are forgotten first."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._expires_at: OrderedDict[str, float] = OrderedDict()

    def first(self, name: str, ttl_seconds: float) -> bool:
        """Tell whether `name` is not remembered, and remember it."""
        is_first = not self.knows(name)
        if is_first:
            self._expires_at[name] = self._clock() + ttl_seconds
            self._expires_at.move_to_end(name)
        return is_first

    def knows(self, name: str) -> bool:
        """Tell whether `name` is remembered."""
        now, known = self._clock(), self._expires_at
        while known and next(iter(known.values())) <= now:
            known.popitem(last=False)
        return known.get(name, now) > now
