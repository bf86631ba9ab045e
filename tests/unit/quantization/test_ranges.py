"""Ranges found in a histogram: each search does what its name says, at any scale."""

import numpy as np
import pytest

from leanface.quantization.ranges import FROM_HISTOGRAM, LEVELS, STRIDE, by_entropy, by_mse, by_percentile

BINS = 2048


def histogram(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    counts, edges = np.histogram(np.abs(values), bins=BINS, range=(0.0, np.abs(values).max()))
    return counts.astype(float), edges


@pytest.fixture(scope="module")
def normal() -> np.ndarray:
    return np.random.default_rng(0).normal(size=100_000)


def squared_error(values: np.ndarray, amax: float) -> float:
    scale = amax / (LEVELS - 1)
    return float(np.square(np.round(values / scale).clip(1 - LEVELS, LEVELS - 1) * scale - values).mean())


@pytest.mark.parametrize("name", FROM_HISTOGRAM)
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_a_range_scales_with_what_it_is_the_range_of(normal: np.ndarray, name: str, scale: float) -> None:
    search = FROM_HISTOGRAM[name]
    assert search(*histogram(scale * normal)) == pytest.approx(scale * search(*histogram(normal)))


@pytest.mark.parametrize("name", FROM_HISTOGRAM)
def test_nothing_is_gained_by_clipping_what_is_spread_evenly(name: str) -> None:
    assert FROM_HISTOGRAM[name](*histogram(np.linspace(0.0, 2.0, 100_000))) == pytest.approx(2.0, rel=0.02)


@pytest.mark.parametrize("name", FROM_HISTOGRAM)
def test_one_outlier_does_not_take_the_levels_of_all_others(normal: np.ndarray, name: str) -> None:
    counts, edges = histogram(np.append(np.tile(normal, 20), 20.0))
    assert FROM_HISTOGRAM[name](counts, edges) < 10.0


@pytest.mark.parametrize("percentile", [50.0, 99.0, 100.0])
def test_a_percentile_is_one(normal: np.ndarray, percentile: float) -> None:
    found = by_percentile(*histogram(normal), percentile)
    assert found == pytest.approx(np.percentile(np.abs(normal), percentile), abs=2 * np.abs(normal).max() / BINS)


def test_no_range_that_is_tried_has_a_smaller_squared_error(normal: np.ndarray) -> None:
    counts, edges = histogram(normal)
    best = squared_error(normal, by_mse(counts, edges))
    others = [squared_error(normal, amax) for amax in edges[LEVELS::STRIDE]]
    assert best <= min(others) * 1.001
    assert best < 0.9 * squared_error(normal, edges[-1])


def test_entropy_ignores_how_many_zeros_there_are(normal: np.ndarray) -> None:
    counts, edges = histogram(normal)
    with_zeros = counts.copy()
    with_zeros[0] += 10 * counts.sum()
    assert by_entropy(with_zeros, edges) == by_entropy(counts, edges)
