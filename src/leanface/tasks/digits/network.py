"""The network that reads digits: a narrow ResNet-18 for small images."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from leanface.networks.graph import ResidualAdd
from leanface.networks.widths import with_widths
from leanface.task import Layout

CLASSES, SIZE = 10, 32
OUTPUTS: Layout = {"scores": (0, CLASSES)}
WIDTHS = (32, 64, 128, 256)
"""Channels of the four stages; ResNet-18 has twice as many."""


class Block(nn.Module):
    """Two 3x3 convolutions, plus the identity or its projection."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs)
        self.relu, self.add = nn.ReLU(inplace=True), ResidualAdd()
        self.project = (
            nn.Identity()
            if (inputs, stride) == (outputs, 1)
            else nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        )

    def forward(self, x: Tensor) -> Tensor:
        residual = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(self.add(self.project(x), residual))


class SmallResNet(nn.Module):
    """ResNet-18's four stages of two blocks, behind a 3x3 convolution in place of its 7x7 and its pooling.

    Images (B,3,H,W), RGB in [0,1], to logits (B,10).

    Source: He et al., CVPR 2016 (arXiv:1512.03385).
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, WIDTHS[0], 3, 2, 1, bias=False), nn.BatchNorm2d(WIDTHS[0]), nn.ReLU(inplace=True)
        )
        inputs = WIDTHS[0]
        for index, outputs in enumerate(WIDTHS, start=1):
            stride = 1 if index == 1 else 2
            self.add_module(f"layer{index}", nn.Sequential(Block(inputs, outputs, stride), Block(outputs, outputs, 1)))
            inputs = outputs
        self.pool, self.classify = nn.AdaptiveAvgPool2d(1), nn.Linear(inputs, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images)
        for index in range(1, len(WIDTHS) + 1):
            x = self.get_submodule(f"layer{index}")(x)
        return self.classify(torch.flatten(self.pool(x), 1))


class DigitsNetwork:
    """Implements `leanface.task.TaskNetwork`."""

    any_size = False

    @property
    def outputs(self) -> Layout:
        """The layout of the outputs."""
        return OUTPUTS

    def build(self, widths: Mapping[str, tuple[int, int]] | None = None) -> nn.Module:
        """Build the network; see `leanface.task.TaskNetwork.build`."""
        return SmallResNet() if widths is None else with_widths(SmallResNet(), widths, SIZE)
