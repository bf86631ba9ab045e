"""A network of your own: a depthwise-separable classifier of gratings by direction, on data made here.

`leanface compress examples/own_network/gratings.py:Gratings`, or in params.yaml `task: examples/own_network/...`.
"""

import torch
from torch import Tensor, nn

from leanface.tasks.classification.classifier import Classifier

SIZE, CLASSES = 32, 8


def block(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    depthwise = nn.Conv2d(inputs, inputs, 3, stride, 1, groups=inputs, bias=False)
    pointwise = nn.Conv2d(inputs, outputs, 1, bias=False)
    return nn.Sequential(depthwise, nn.BatchNorm2d(inputs), nn.ReLU(), pointwise, nn.BatchNorm2d(outputs), nn.ReLU())


def samples(count: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(CLASSES, (count,), generator=generator)
    angle, (phase, noise) = labels * torch.pi / CLASSES, torch.rand(2, count, 1, 1, generator=generator)
    y, x = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    wave = x * angle.cos()[:, None, None] + y * angle.sin()[:, None, None] + 6.28 * phase
    dust = torch.randn(count, 3, SIZE, SIZE, generator=generator) / 4
    return (0.5 + 0.2 * wave.sin()[:, None] + noise[:, None] * dust).clamp(0, 1), labels


class Gratings(Classifier):
    class_count, image_size = CLASSES, SIZE

    def network(self) -> nn.Module:
        stem = nn.Sequential(nn.Conv2d(3, 24, 3, 2, 1, bias=False), nn.BatchNorm2d(24), nn.ReLU())
        head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, CLASSES))
        return nn.Sequential(stem, block(24, 48, 2), block(48, 64, 1), head)

    def samples(self, seed: int) -> dict[str, tuple[Tensor, Tensor]]:
        return {"train": samples(2000, seed), "val": samples(300, seed + 1), "test": samples(1000, seed + 2)}
