"""Find values unlike those before them, by median and median absolute deviation (MAD).

Mean and standard deviation would be moved by the very values that they should find: one latency of 10 s among
sixty of 20 ms makes the standard deviation 1.3 s, and the next one of 2 s looks normal. Median and MAD follow once
half of the window is anomalous, and then they should: that is the new normal.

Source: Iglewicz and Hoaglin, "How to Detect and Handle Outliers", ASQC, 1993.
"""

import math
from collections import deque
from dataclasses import dataclass
from typing import Literal

import numpy as np

SIGMA_PER_MAD = 1.4826
SIGMA_PER_MEAN_DEVIATION = 1.2533
"""Ratios in a normal distribution."""


@dataclass(frozen=True)
class Rule:
    """Defines what counts as an anomaly in one series.

    With the default window and threshold, normal and log-normal noise raise fewer than one alarm in 5,000 values
    (tests/unit/monitoring/test_anomaly.py measures it).

    Attributes:
        side: direction of the deviations that count.
        floor: the least standard deviation to assume, in the series' unit (of its logarithm if `log`).
        log: compare logarithms: for times, whose noise is proportional to them.
        window: number of earlier values that the next one is compared with.
        least: with fewer earlier values there is no verdict.
        threshold: standard deviations from the median.
    """

    side: Literal["above", "below"]
    floor: float
    log: bool = False
    window: int = 60
    least: int = 20
    threshold: float = 6.0


@dataclass(frozen=True)
class Verdict:
    """A value, and how far it is from what was expected.

    Attributes:
        score: robust standard deviations from the median, positive in the direction that the rule watches.
    """

    value: float
    median: float
    score: float
    anomalous: bool


class Detector:
    """Judges each value of a series by those before it."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self._values: deque[float] = deque(maxlen=rule.window)

    @property
    def median(self) -> float | None:
        """Median of the values so far, None before the first."""
        return self._back(float(np.median(self._values))) if self._values else None

    def update(self, value: float, noise: float = 0.0) -> Verdict | None:
        """Judge a value, then remember it, anomalous or not; None while there are too few to compare with.

        Args:
            value: positive, if the rule compares logarithms.
            noise: standard deviation of this value alone, which the earlier ones may not show: the share of errors
                among ten requests is coarser than among a thousand.

        Raises:
            ValueError: it is not finite, or not positive where it must be.
        """
        if not math.isfinite(value) or (self.rule.log and value <= 0):
            raise ValueError(f"expected a finite{', positive' if self.rule.log else ''} value, got {value}")
        number = math.log(value) if self.rule.log else value
        verdict = self._judge(number, value, noise) if len(self._values) >= self.rule.least else None
        self._values.append(number)
        return verdict

    def _judge(self, number: float, value: float, noise: float) -> Verdict:
        values = np.array(self._values)
        median = float(np.median(values))
        deviations = np.abs(values - median)
        # If more than half of the values are the same, as counts may be, the MAD is 0 and says nothing.
        spread = SIGMA_PER_MAD * float(np.median(deviations)) or SIGMA_PER_MEAN_DEVIATION * float(deviations.mean())
        scale = max(spread, self.rule.floor, noise)
        score = (number - median) / scale * (1 if self.rule.side == "above" else -1)
        return Verdict(value, self._back(median), score, score > self.rule.threshold)

    def _back(self, number: float) -> float:
        return math.exp(number) if self.rule.log else number
