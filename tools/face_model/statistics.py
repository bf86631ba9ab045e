"""Principal components and their int8 form."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


class Basis(NamedTuple):
    """Orthogonal components of a population.

    Attributes:
        mean: (values,) float32.
        components: (rank, values) float32, each scaled to one standard deviation of its coefficient, so that
            coefficients of the population are uncorrelated with unit variance.
        explained: (rank,) float64, cumulative fraction of the (weighted) variance.
    """

    mean: Floats
    components: Floats
    explained: NDArray[np.float64]


class Quantized(NamedTuple):
    """int8 components: ``levels * scale[:, None]`` restores them.

    Attributes:
        levels: (rank, values) int8 in -127..127.
        scale: (rank,) float32, above 0.
    """

    levels: NDArray[np.int8]
    scale: Floats


def principal_components(samples: Floats, rank: int, weights: Floats | None = None) -> Basis:
    """The leading principal components of a population with more values than members.

    Args:
        samples: (members, values).
        rank: number of components, below the number of members.
        weights: (values,) above 0: how much an error in each value matters. The components are orthogonal
            after weighting.
    """
    mean = samples.mean(axis=0)
    weighted = samples - mean
    if weights is not None:
        weighted *= weights
    # The Gram matrix is (members, members): far smaller than the covariance of the values.
    variance, vectors = np.linalg.eigh((weighted @ weighted.T).astype(np.float64))
    variance, vectors = np.clip(variance[::-1], 1e-12, None), vectors[:, ::-1]
    components = vectors[:, :rank].T.astype(np.float32) @ weighted
    components /= np.float32(np.sqrt(len(samples) - 1))
    if weights is not None:
        components /= weights
    # An eigenvector's sign is arbitrary: the largest entry is made positive, so that rebuilding repeats it.
    peak = np.abs(components).argmax(axis=1)
    components *= np.sign(components[np.arange(rank), peak])[:, None]
    explained = np.cumsum(variance)[:rank] / variance.sum()
    return Basis(mean, components.astype(np.float32), explained)


def project(samples: Floats, basis: Basis, weights: Floats | None = None) -> Floats:
    """The nearest members of the basis' span, in the weighted sense of ``principal_components``.

    Args:
        samples: (members, values).
        basis: the basis; its components must be orthogonal after weighting.
        weights: the weights that the basis was built with.
    """
    squared = np.ones_like(basis.mean) if weights is None else weights**2
    energy = (basis.components**2 * squared).sum(axis=1)
    coefficients = ((samples - basis.mean) * squared) @ basis.components.T / energy
    return basis.mean + coefficients @ basis.components


def quantize(components: Floats) -> Quantized:
    """Rounds each component to int8 with its own scale; no error exceeds half a scale step.

    Args:
        components: (rank, values).
    """
    scale = np.maximum(np.abs(components).max(axis=1) / 127, np.float32(1e-12)).astype(np.float32)
    levels: NDArray[np.int8] = np.rint(components / scale[:, None]).clip(-127, 127).astype(np.int8)
    return Quantized(levels, scale)


def dequantize(quantized: Quantized) -> Floats:
    """(rank, values) float32 components."""
    return quantized.levels.astype(np.float32) * quantized.scale[:, None]
