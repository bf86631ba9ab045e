"""Measure how far coefficients lie from those that the network was trained on."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from jaxtyping import Float

from leanface.face.coefficients import COUNT
from leanface.face.morphable_model import MorphableModel
from leanface.synthesis.synthesis import sample_coefficients

SAMPLES = 20_000
RIDGE = 1e-3
"""Added to the correlations' diagonal: some of the lighting's bands almost determine each other."""


@dataclass(frozen=True)
class Population:
    """Mean of the training's coefficients, and the matrix that removes their covariance."""

    mean: Float[np.ndarray, "257"]
    whiten: Float[np.ndarray, "257 257"]

    @classmethod
    def of_training(cls, model: MorphableModel) -> Self:
        """Sample faces as stage prepare does (fixed seed)."""
        sample = sample_coefficients(model, SAMPLES, torch.Generator(model.mean_vertices.device).manual_seed(1))
        return cls.of(sample.double().cpu().numpy())

    @classmethod
    def of(cls, coefficients: Float[np.ndarray, "count 257"]) -> Self:
        """Estimate it from coefficients; there must be many more than 257."""
        spread = coefficients.std(axis=0)
        correlation = np.corrcoef(coefficients.T) + RIDGE * np.eye(COUNT)
        return cls(coefficients.mean(axis=0), np.linalg.inv(np.linalg.cholesky(correlation)) / spread)

    def distance(self, coefficients: Float[np.ndarray, "count 257"]) -> Float[np.ndarray, " count"]:
        """Compute the Mahalanobis distance over the square root of 257: its root mean square in the population is 1."""
        return np.sqrt(np.square((coefficients - self.mean) @ self.whiten.T).mean(axis=1))
