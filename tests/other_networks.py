"""Small networks that are not ResNets: what compression must find by tracing."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIZE = 32
CLASSES = 5


def _conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU6(inplace=True))


class Separable(nn.Module):
    """Depthwise-separable with an inverted residual, as in MobileNetV2; its additions are plain."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _conv(3, 16, stride=2)
        self.expand = _conv(16, 32, 1)
        self.depthwise = _conv(32, 32, groups=32)
        self.project = nn.Sequential(nn.Conv2d(32, 16, 1, bias=False), nn.BatchNorm2d(16))
        self.head = _conv(16, 32, 1)
        self.classify = nn.Linear(32, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images)
        x = x + self.project(self.depthwise(self.expand(x)))
        return self.classify(self.head(x).mean((2, 3)))


class Vgg(nn.Module):
    """Convolutions with biases, pooling, a flatten of several pixels and two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.AdaptiveAvgPool2d(4),
        )  # fmt: skip
        self.classifier = nn.Sequential(nn.Linear(512, 32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, CLASSES))

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(torch.flatten(self.features(images), 1))


class Branching(nn.Module):
    """Two branches concatenated, a grouped convolution, a batch norm before its activation and an in-place addition."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _conv(3, 16, stride=2)
        self.left, self.right = _conv(16, 8), _conv(16, 16, 1)
        self.mix = nn.Sequential(nn.BatchNorm2d(24), nn.SiLU(), nn.Conv2d(24, 16, 1))
        self.grouped = nn.Conv2d(16, 16, 3, padding=1, groups=4)
        self.last = nn.Conv2d(16, CLASSES, 1)

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images)
        x = self.mix(torch.cat([self.left(x), self.right(x)], dim=1))
        y = F.relu(self.grouped(x), inplace=True)
        y += x
        return F.adaptive_avg_pool2d(self.last(y), 1).flatten(1)


NETWORKS: dict[str, Callable[[], nn.Module]] = {"separable": Separable, "vgg": Vgg, "branching": Branching}


def trained_a_little(name: str) -> nn.Module:
    """Return one of the networks with batch norms that a training might have left, in eval mode."""
    torch.manual_seed(0)
    network = NETWORKS[name]()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
    network.train()
    with torch.no_grad():
        for _ in range(3):
            network(torch.rand(16, 3, SIZE, SIZE))
    return network.eval()
