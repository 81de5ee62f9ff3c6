"""How much may wait for the broker, and how it is written."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class OutboxLimits:
    """Bound what waits, how much is written at once, and how long between tries.

    `buffer_seconds` of audio wait per stream and `buffer_bytes` in the process.
    `max_events` lifecycle events have a budget of their own.
    """

    buffer_seconds: float = 30.0
    buffer_bytes: int = 256 * 1024 * 1024
    max_events: int = 10_000
    batch_entries: int = 512
    entries_per_stream: int = 64
    retry_first_seconds: float = 0.05
    retry_longest_seconds: float = 0.25
    # The shortest frame any carrier is known to send is 10 ms: 100 entries a second.
    entries_per_second: int = 100
