"""Read faces with a small network, and unusual ones again with a larger network, as far as a budget allows.

A face is unusual if its coefficients lie far from the training's: there is no truth to compare with, and the distance
costs next to nothing. What this is worth: docs/results/serving.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from leanface.monitoring.population import Population

Read = Callable[[UInt8[np.ndarray, "N size size 3"]], Float[np.ndarray, "N 257"]]
"""A network."""

SAVED_FACES = 32
"""How many faces' budgets can be saved up while nothing is unusual."""

COST_SHARE = 0.1
"""Weight of the latest run in the estimate of what reading a face again costs."""


class Prediction(NamedTuple):
    """Coefficients, and which of them come from the larger network."""

    coefficients: Float[np.ndarray, "N 257"]
    reread: Bool[np.ndarray, " N"]


@dataclass
class Policy:
    """Chooses the faces to read again. Not thread-safe.

    Attributes:
        threshold: distance from which on a face is unusual.
        budget_ms: what reading again may cost per face, on average over all faces.
        cost_ms: what it costs per face that is read again, as far as is known.
    """

    threshold: float
    budget_ms: float
    cost_ms: float

    def __post_init__(self) -> None:
        self._saved_ms = 0.0

    @classmethod
    def calibrated(cls, distances: Float[np.ndarray, " count"], budget_ms: float, cost_ms: float) -> "Policy":
        """Set the threshold so that, of faces with these distances, the budget pays for exactly those beyond it."""
        share = min(1.0, budget_ms / cost_ms)
        return cls(float(np.quantile(distances, 1 - share)), budget_ms, cost_ms)

    def choose(self, distances: Float[np.ndarray, " N"]) -> Int[np.ndarray, " chosen"]:
        """Choose a batch's unusual faces that the budget pays for, the farthest first, and pay for them."""
        most = max(self.cost_ms, SAVED_FACES * self.budget_ms)
        self._saved_ms = min(self._saved_ms + len(distances) * self.budget_ms, most)
        order = np.argsort(-distances, kind="stable")
        unusual = order[distances[order] >= self.threshold]
        chosen = unusual[: int(self._saved_ms // self.cost_ms)]
        self._saved_ms -= len(chosen) * self.cost_ms
        return chosen

    def paid(self, faces: int, duration_ms: float) -> None:
        """Learn from the time that it took to read so many faces again."""
        self.cost_ms += COST_SHARE * (duration_ms / faces - self.cost_ms)


class Adaptive:
    """Uses two networks as one."""

    def __init__(self, small: Read, large: Read, population: Population, policy: Policy) -> None:
        """Both networks take crops of the same size."""
        self._small, self._large = small, large
        self._population, self._policy = population, policy

    def read(self, crops: UInt8[np.ndarray, "N size size 3"]) -> Prediction:
        """Predict the coefficients of aligned crops."""
        coefficients = self._small(crops)
        chosen = self._policy.choose(self._population.distance(coefficients))
        reread = np.zeros(len(crops), bool)
        if len(chosen):
            start = time.perf_counter()
            coefficients[chosen] = self._large(crops[chosen])
            self._policy.paid(len(chosen), 1000 * (time.perf_counter() - start))
            reread[chosen] = True
        return Prediction(coefficients, reread)


def cost_ms(read: Read, size: int, runs: int = 7) -> float:
    """Measure the network's median time for one face, after a first run."""
    crop = np.zeros((1, size, size, 3), np.uint8)
    times: list[float] = []
    for _ in range(runs + 1):
        start = time.perf_counter()
        read(crop)
        times.append(1000 * (time.perf_counter() - start))
    return float(np.median(times[1:]))
