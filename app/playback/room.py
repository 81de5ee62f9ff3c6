"""How much audio may wait in a process, over all its calls."""

from typing import Final

# DESIGN: "Bounded everything."
PROCESS_BYTES: Final = 128 * 1024 * 1024


class Room:
    """Count bytes that wait, and let no more wait than fit."""

    __slots__ = ("_limit", "used")

    def __init__(self, limit: int = PROCESS_BYTES) -> None:
        self._limit = limit
        self.used = 0

    def take(self, size: int) -> bool:
        """Take so many bytes; False, and nothing taken, where fewer are left."""
        if self.used + size > self._limit:
            return False
        self.used += size
        return True

    def give_back(self, size: int) -> None:
        """Give bytes back that were taken."""
        self.used -= size
