"""What the broker has promised lately, kept in case it breaks its word.

Replication to a replica is asynchronous: after a failover what was confirmed
last may be missing (Redis, "Replication", and "Sentinel", "Consistency").
"""

from collections import deque
from collections.abc import Sequence

from app.pubsub.base import Write

KEPT_BYTES = 64 * 1024 * 1024


class Recent:
    """Keep the writes of the last seconds, in order, and within a bound."""

    def __init__(self, seconds: float, max_bytes: int = KEPT_BYTES) -> None:
        self._seconds = seconds
        self._max_bytes = max_bytes
        self._batches: deque[tuple[float, int, Sequence[Write]]] = deque()
        self._bytes = 0

    def add(self, writes: Sequence[Write], size: int, now: float) -> None:
        """Keep a batch that was confirmed `now` (monotonic seconds); forget what is old.

        `size` is of its audio, in bytes.
        """
        if self._seconds:
            self._batches.append((now, size, writes))
            self._bytes += size
        self.forget_old(now)

    def forget_old(self, now: float) -> None:
        """Forget what the broker will not lose any more."""
        oldest = now - self._seconds
        while self._batches and (self._batches[0][0] < oldest or self._bytes > self._max_bytes):
            self._bytes -= self._batches.popleft()[1]

    def __bool__(self) -> bool:
        """Tell whether anything is kept."""
        return bool(self._batches)

    def writes(self) -> list[Write]:
        """Give all that is kept, the oldest first."""
        return [write for _, _, writes in self._batches for write in writes]
