"""The range of an activation in INT8, from the histogram of its magnitudes: beyond it they are clipped, within rounded.

ModelOpt collects the histograms. The searches are written anew: in ModelOpt 0.47 that for the smallest squared error
passes the number of bits as an offset and finds ranges that destroy the network, and that by entropy takes half a
second per activation.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from scipy.stats import entropy

PERCENTILE = 99.999
LEVELS = 128
"""Magnitudes that symmetric INT8 tells apart, and the fewest bins that a range is tried at."""

STRIDE = 16
"""Bins between two ranges that are tried; a histogram has 2,048 or some more."""

Counts = Float[np.ndarray, " bins"]
Edges = Float[np.ndarray, " bins+1"]


def by_percentile(counts: Counts, edges: Edges, percentile: float = PERCENTILE) -> float:
    """All but a share of the magnitudes: a few outliers would take the levels of all others."""
    cumulative = counts.cumsum()
    return float(edges[1:][np.searchsorted(cumulative, percentile / 100 * cumulative[-1])])


def by_mse(counts: Counts, edges: Edges) -> float:
    """The smallest mean squared difference of the magnitudes from what they become."""
    centers, ranges = (edges[1:] + edges[:-1]) / 2, edges[_stops(counts), None]
    scale = ranges / (LEVELS - 1)
    rounded = scale * (centers / scale).round().clip(max=LEVELS - 1)
    return float(ranges[(np.square(rounded - centers) @ counts).argmin(), 0])


def by_entropy(counts: Counts, edges: Edges) -> float:
    """The smallest KL divergence of the distribution after rounding from that before.

    Source: Migacz, 8-bit inference with TensorRT, GTC 2017.
    """
    counts = counts.copy()
    counts[0] = counts[1]  # zeros, of which ReLU makes many, are exact at any range
    stops = _stops(counts)
    return float(edges[stops[int(np.argmin([_divergence(counts, int(stop)) for stop in stops]))]])


def _stops(counts: Counts) -> np.ndarray:
    """The bins that a range may end before; the last of all is among them."""
    return np.arange(len(counts), LEVELS - 1, -STRIDE)[::-1]


def _divergence(counts: Counts, stop: int) -> float:
    """Of `stop` bins, spread over the levels, from the same bins with what is clipped in the last one."""
    before = counts[:stop].copy()
    level, filled = np.arange(stop) * LEVELS // stop, before > 0
    means = np.bincount(level, before, LEVELS) / np.bincount(level, filled, LEVELS).clip(min=1)
    after = np.where(filled, means[level], 0.0)
    before[-1] += counts[stop:].sum()
    return float(entropy(before, after)) if after.any() else np.inf


FROM_HISTOGRAM: dict[str, Callable[[Counts, Edges], float]] = {
    "percentile": by_percentile,
    "mse": by_mse,
    "entropy": by_entropy,
}
