"""Random draws for a batch, from one generator on one device."""

import functools
from collections.abc import Mapping

import numpy as np
import torch
from torch import Generator, Tensor

Range = tuple[float, float, float]
"""Probability, and the bounds between which a strength is uniform when it is not zero."""


class Random:
    """Shorthand for draws from one generator on its device."""

    def __init__(self, generator: Generator) -> None:
        self.generator = generator
        self.device = generator.device

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator, device=self.device)

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        return torch.rand(*shape, generator=self.generator, device=self.device).mul_(high - low).add_(low)

    def chance(self, probability: float, *shape: int) -> Tensor:
        """Draw 1.0 with that probability, else 0.0."""
        return (self.uniform(0.0, 1.0, *shape) < probability).float()

    def table(self, ranges: Mapping[str, Range], count: int, amount: float = 1.0) -> dict[str, Tensor]:
        """Draw strengths (count,) by name, in a few kernels; `amount` scales every probability."""
        probability, low, high = constant(tuple(ranges.values()), self.device).T[:, :, None]
        present = self.uniform(0.0, 1.0, len(ranges), count) < probability * amount
        strength = torch.lerp(low, high, self.uniform(0.0, 1.0, len(ranges), count)) * present
        return dict(zip(ranges, strength.unbind(0), strict=True))


@functools.lru_cache(maxsize=256)
def constant(values: tuple[float, ...] | tuple[tuple[float, ...], ...], device: torch.device) -> Tensor:
    """Return a float32 tensor that was copied to its device once: a copy per batch would make the GPU wait."""
    return torch.tensor(values, device=device)


def seed_of(*parts: int) -> int:
    """Make one seed from several numbers.

    PyTorch's CPU generator looks at a seed's lowest 32 bits only, so numbers must be mixed, not shifted.
    """
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint32)[0])
