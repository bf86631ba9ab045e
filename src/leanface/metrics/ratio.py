"""Ratios and medians of repeated measurements, with their 95 % intervals."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

CONFIDENCE = 0.95

PAIRS_MIN = 6
"""Fewer give no 95 % interval of a median: even their whole range holds it with at most 1 - 2 / 2**5 = 94 %."""

WIDE = 0.5
"""An interval whose upper end is more than 1.5 times its lower one is too wide to compare anything by."""


@dataclass(frozen=True)
class MedianEstimate:
    """A median of repeated measurements.

    Attributes:
        value: the median.
        low: lower end of its 95 % interval; None: there are too few measurements for one.
        high: upper end of it.
        count: measurements.
    """

    value: float
    low: float | None
    high: float | None
    count: int

    @property
    def width(self) -> float:
        """How much the interval's upper end exceeds its lower one, as a share of that."""
        return math.inf if self.low is None or self.high is None else self.high / self.low - 1

    @property
    def too_wide(self) -> bool:
        """Whether the interval says next to nothing."""
        return self.width > WIDE


def estimate_median(values: Sequence[float]) -> MedianEstimate:
    """Estimate the median that these values are samples of, by their order statistics.

    The interval from the k-th smallest to the k-th largest misses the median if fewer than k values lie on one side of
    it, each with probability 1/2. No distribution is assumed.

    Raises:
        ValueError: there are no values.

    Source: David and Nagaraja, "Order Statistics", 3rd edition, 2003, section 7.1.
    """
    if not values:
        raise ValueError("a median needs at least one value")
    ordered, count = sorted(values), len(values)
    rank = _rank(count)
    if rank == 0:
        return MedianEstimate(median(ordered), None, None, count)
    return MedianEstimate(median(ordered), ordered[rank - 1], ordered[-rank], count)


def paired_ratio(baseline: Sequence[float], own: Sequence[float]) -> MedianEstimate:
    """Estimate how many times `baseline` is `own`: the median of the ratios of pairs that were measured together.

    A machine that slows down slows both of a pair, so their ratio holds where neither time does. This is the one place
    where a speed-up is computed.

    Raises:
        ValueError: the two have different lengths, or none.
    """
    return estimate_median([one / other for one, other in zip(baseline, own, strict=True)])


def _rank(count: int) -> int:
    """Find the largest k whose k-th smallest and largest of `count` values hold the median with 95 %, or 0."""
    missed, rank = 0.0, 0
    while rank < count // 2:
        missed += 2 * math.comb(count, rank) / 2**count
        if missed > 1 - CONFIDENCE:
            break
        rank += 1
    return rank
