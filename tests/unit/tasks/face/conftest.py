"""Faces and a stand-in for a network that knows them."""

import pytest
import torch
from torch import Tensor, nn

from leanface.face.morphable_model import MorphableModel
from leanface.synthesis.synthesis import sample_coefficients


class Oracle(nn.Module):
    """Answers every image with one given reading."""

    def __init__(self, reading: Tensor) -> None:
        super().__init__()
        self.reading = reading

    def forward(self, images: Tensor) -> Tensor:
        return self.reading.expand(len(images), -1)


@pytest.fixture(scope="session")
def sampled(model: MorphableModel) -> Tensor:
    """Twelve sampled faces, (12,257)."""
    return sample_coefficients(model, 12, torch.Generator().manual_seed(3))
