"""A line through samples, and how far it can be trusted."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import inf, sqrt
from statistics import fmean, linear_regression
from typing import Self

# Samples that follow each other resemble each other; means of so many stretches do not.
STRETCHES = 20
# Student's t for 95 % with STRETCHES - 2 degrees of freedom.
T_95 = 2.101


@dataclass(frozen=True, slots=True)
class Trend:
    """A slope a second, and by how much it may be off (95 %)."""

    slope: float
    margin: float

    @classmethod
    def of(cls, samples: Sequence[tuple[float, float]]) -> Self:
        """Fit (second, value) pairs, in order, by least squares.

        Of fewer than two samples a stretch nothing can be said.
        """
        if len(samples) < 2 * STRETCHES:
            return cls(0.0, inf)
        ends = [round(len(samples) * end / STRETCHES) for end in range(STRETCHES + 1)]
        parts = [samples[first:last] for first, last in pairwise(ends)]
        at = [fmean(second for second, _ in part) for part in parts]
        value = [fmean(value for _, value in part) for part in parts]
        slope, begin = linear_regression(at, value)
        left = sum((y - begin - slope * x) ** 2 for x, y in zip(at, value, strict=True))
        spread = sum((x - fmean(at)) ** 2 for x in at)
        return cls(slope, T_95 * sqrt(left / (STRETCHES - 2) / spread))

    def __mul__(self, factor: float) -> "Trend":
        """Give the trend in another unit."""
        return Trend(self.slope * factor, self.margin * abs(factor))

    def verdict(self, most: float) -> str:
        """Tell whether the slope is at most `most`, or that this cannot be told."""
        if self.slope + self.margin <= most:
            return "held"
        return "not held" if self.slope - self.margin > most else "open: measure for longer"
