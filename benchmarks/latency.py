"""A sample of latencies, as the numbers one reads."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class Latencies:
    """Percentiles of a sample, in ms; NaN when it is empty."""

    p50: float
    p99: float
    p999: float
    longest: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Self:
        """Sum up a sample, given in seconds, by nearest rank: each is a value that occurred."""
        ranked = sorted(seconds)

        def at(share: float) -> float:
            rank = max(1, math.ceil(share * len(ranked)))
            return ranked[rank - 1] * 1000 if ranked else math.nan

        return cls(at(0.5), at(0.99), at(0.999), at(1))
