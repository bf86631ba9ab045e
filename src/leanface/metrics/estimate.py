"""A mean over test samples, and how sure we are of it."""

import csv
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from leanface.files import staged_file

RESAMPLES = 2000
CONFIDENCE = 0.95

Samples = dict[str, Float[np.ndarray, " count"]]
"""A measure's value for each sample, by the measure's name."""


@dataclass(frozen=True)
class MeanEstimate:
    """Mean of a per-sample measure with its bootstrap interval, and its extremes.

    Attributes:
        count: samples that the measure is defined for.
        mean: over them.
        low: lower end of the 95 % interval of the mean.
        high: upper end of it.
        p95: 95th percentile of the samples.
        smallest: the least sample.
        largest: the greatest sample.
    """

    count: int
    mean: float
    low: float
    high: float
    p95: float
    smallest: float
    largest: float


def estimate(samples: Float[np.ndarray, " N"], seed: int = 0) -> MeanEstimate | None:
    """Estimate by percentile bootstrap over the samples that are not NaN (undefined); None where none is left.

    Deterministic for a given seed.

    Raises:
        ValueError: not a vector, or a sample is infinite.

    Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13.
    """
    values = np.asarray(samples, dtype=np.float64)
    if values.ndim != 1:
        raise ValueError(f"expected a vector of samples, got shape {values.shape}")
    if np.isinf(values).any():
        raise ValueError(f"{np.count_nonzero(np.isinf(values))} of {values.size} samples are infinite")
    values = values[~np.isnan(values)]
    if values.size == 0:
        return None
    picks = np.random.default_rng(seed).integers(values.size, size=(RESAMPLES, values.size))
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(values[picks].mean(axis=1), (tail, 1 - tail))
    return MeanEstimate(
        count=values.size,
        mean=float(values.mean()),
        low=float(low),
        high=float(high),
        p95=float(np.quantile(values, 0.95)),
        smallest=float(values.min()),
        largest=float(values.max()),
    )


def estimates(samples: Samples) -> dict[str, MeanEstimate | None]:
    """Estimate each measure's mean."""
    return {name: estimate(values) for name, values in samples.items()}


def summarize(samples: Samples) -> dict[str, dict[str, Any] | None]:
    """Estimate each measure's mean, as JSON."""
    return {name: None if found is None else asdict(found) for name, found in estimates(samples).items()}


def undefined(samples: Samples) -> dict[str, int]:
    """Count the samples that each mean leaves out because its measure is undefined; only means that leave out some."""
    counts = {name: int(np.isnan(values).sum()) for name, values in samples.items()}
    return {name: count for name, count in counts.items() if count}


def means(samples: Samples) -> dict[str, float]:
    """Average each measure over the samples that it is defined for; leave out those that are defined for none."""
    defined = {name: values[~np.isnan(values)] for name, values in samples.items()}
    return {name: float(values.mean()) for name, values in defined.items() if values.size}


def write_samples(samples: Samples, path: Path) -> None:
    """Write a CSV with a row per sample and a column per measure; undefined values are left empty."""
    with staged_file(path) as staging, staging.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["sample", *samples])
        for index, row in enumerate(zip(*samples.values(), strict=True)):
            writer.writerow([index, *("" if np.isnan(value) else f"{value:.6g}" for value in row)])
