"""Two networks that are not ResNets, and a task that is hard enough for pruning to cost accuracy.

Handwritten digits of scikit-learn's, turned, scaled, moved and colored at random, over smaller digits and under noise.
Splits have no digit in common.
"""

import importlib
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from leanface.networks.graph import ResidualAdd
from leanface.tasks.classification.classifier import Classifier

SIZE, CLASSES = 32, 10
SPLITS = {"train": (0, 1100, 6000), "val": (1100, 1300, 600), "test": (1300, 1797, 2000)}
"""Which digits each split shows, and how many images it has."""

BEHIND = 5
"""Smaller digits behind each one."""


def placed(digits: Tensor, size: tuple[float, float], reach: float, generator: torch.Generator) -> Tensor:
    """Turn, scale and move digits (N,1,8,8) at random, each in a frame (N,1,SIZE,SIZE).

    Args:
        size: smallest and largest height of a digit, as shares of the frame's.
        reach: how far from the middle a digit may be, as a share of half the frame.
    """
    low, high = size
    turn, scale, x, y = torch.rand(4, len(digits), generator=generator)
    turn, scale = (2 * turn - 1) * math.radians(35), 1 / (low + (high - low) * scale)
    cos, sin = turn.cos() * scale, turn.sin() * scale
    shift = torch.stack([2 * x - 1, 2 * y - 1], 1) * reach
    rotation = torch.stack([cos, -sin, sin, cos], 1).view(-1, 2, 2)
    affine = torch.cat([rotation, rotation @ shift[:, :, None]], 2)
    grid = F.affine_grid(affine, [len(digits), 1, SIZE, SIZE], align_corners=False)
    return F.grid_sample(digits, grid, align_corners=False)


def cluttered(digits: Tensor, labels: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw images (count,3,SIZE,SIZE) in [0,1], and their classes."""
    which = torch.randint(len(digits), (count,), generator=generator)
    ink = placed(digits[which], (0.5, 0.85), 0.25, generator)
    behind = torch.zeros_like(ink)
    for _ in range(BEHIND):
        others = digits[torch.randint(len(digits), (count,), generator=generator)]
        behind = torch.maximum(behind, placed(others, (0.25, 0.4), 0.9, generator))
    light, dark = torch.rand(2, count, 3, 1, 1, generator=generator)
    noise = torch.randn(count, 3, SIZE, SIZE, generator=generator) / 10
    paper = 0.4 * dark + 0.15 * behind
    return (paper + (0.5 + 0.5 * light - paper) * ink + noise).clamp(0, 1), labels[which]


class ClutteredDigits(Classifier):
    """The task; a network is what is missing."""

    class_count, image_size = CLASSES, SIZE

    def samples(self, seed: int) -> dict[str, tuple[Tensor, Tensor]]:
        datasets: Any = importlib.import_module("sklearn.datasets")  # it has no types
        source: Any = datasets.load_digits()
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(source.target), generator=generator)
        digits, labels = (torch.from_numpy(each)[order] for each in (source.images, source.target))
        return {
            name: cluttered(digits[start:stop, None].float() / 16, labels[start:stop], count, generator)
            for name, (start, stop, count) in SPLITS.items()
        }


def layer(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU6(inplace=True))


class InvertedResidual(nn.Module):
    """Expand, filter each channel by itself, project; plus the input where the shapes agree.

    Source: Sandler et al., "MobileNetV2", CVPR 2018 (arXiv:1801.04381).
    """

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int = 4) -> None:
        super().__init__()
        wide = inputs * expansion
        self.body = nn.Sequential(
            layer(inputs, wide, 1), layer(wide, wide, 3, stride, wide), nn.Conv2d(wide, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )  # fmt: skip
        self.add = ResidualAdd() if (inputs, stride) == (outputs, 1) else None

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) if self.add is None else self.add(x, self.body(x))


class MobileNet(ClutteredDigits):
    """Depthwise-separable, as MobileNetV2."""

    def network(self) -> nn.Module:
        return nn.Sequential(
            layer(3, 24, 3, 2),
            InvertedResidual(24, 24, 1), InvertedResidual(24, 40, 2), InvertedResidual(40, 40, 1),
            InvertedResidual(40, 64, 2), InvertedResidual(64, 64, 1), InvertedResidual(64, 64, 1),
            layer(64, 128, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, CLASSES),
        )  # fmt: skip


class Vgg(ClutteredDigits):
    """Plain convolutions and two linear layers behind a flatten of 4x4 pixels, as VGG with batch norms."""

    def network(self) -> nn.Module:
        pool = nn.MaxPool2d(2)
        return nn.Sequential(
            layer(3, 24, 3), pool, layer(24, 48, 3), layer(48, 48, 3), pool, layer(48, 96, 3), layer(96, 96, 3), pool,
            nn.Flatten(), nn.Linear(96 * 16, 128), nn.ReLU(inplace=True), nn.Linear(128, CLASSES),
        )  # fmt: skip
