"""ResNet-50 (v1.5) with seven 1x1-convolution heads, under the state-dict keys of ModelScope's ReconNetWrapper.

Sources: He et al., CVPR 2016 (arXiv:1512.03385); stride in the 3x3 convolution as in torchvision's v1.5; the heads and
their order as in Deep3DFaceRecon (Deng et al., CVPRW 2019).
"""

import torch
from jaxtyping import Float
from torch import Tensor, fx, nn

from leanface.networks.graph import ResidualAdd
from leanface.networks.widths import Widths, dropped_blocks, widths_of, without_blocks

HEAD_SIZES = (80, 64, 80, 3, 27, 2, 1)
"""Outputs of the seven heads: identity, expression, albedo, angles, lighting, x and y, z."""

STAGE_DEPTHS = (3, 4, 6, 3)
STAGE_WIDTHS = (64, 128, 256, 512)
EXPANSION = 4


class Bottleneck(nn.Module):
    """1x1 reduce, 3x3 (strided), 1x1 expand, plus the identity or its projection."""

    def __init__(self, inputs: int, width: int, stride: int, project: bool) -> None:
        super().__init__()
        outputs = width * EXPANSION
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.add = ResidualAdd()
        self.downsample = (
            nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
            if project
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        return self.relu(self.add(identity, self.bn3(self.conv3(x))))


class Backbone(nn.Module):
    """ResNet-50 up to global average pooling: images (B,3,H,W) to features (B,2048,1,1)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        inputs = 64
        for index, (depth, width) in enumerate(zip(STAGE_DEPTHS, STAGE_WIDTHS, strict=True), start=1):
            stride = 1 if index == 1 else 2
            blocks = [Bottleneck(inputs, width, stride, project=True)]
            inputs = width * EXPANSION
            blocks += [Bottleneck(inputs, width, 1, project=False) for _ in range(depth - 1)]
            self.add_module(f"layer{index}", nn.Sequential(*blocks))
        self.avgpool = nn.AdaptiveAvgPool2d(1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for index in range(1, len(STAGE_DEPTHS) + 1):
            x = self.get_submodule(f"layer{index}")(x)
        return self.avgpool(x)


class FaceReconstructionNet(nn.Module):
    """Regresses the 257 coefficients of one face per image.

    Input: float images (B,3,H,W), RGB in [0,1], aligned by `leanface.photos.alignment`; H and W are multiples of 16
    from 64 up (the network is fully convolutional). Output: raw coefficients (B,257), see `leanface.face.coefficients`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.backbone = Backbone()
        self.final_layers = nn.ModuleList(nn.Conv2d(STAGE_WIDTHS[-1] * EXPANSION, size, 1) for size in HEAD_SIZES)
        for module in self.modules():
            # Without storage there is nothing to fill, and PyTorch would import for seconds to do so.
            if isinstance(module, nn.Conv2d) and not module.weight.is_meta:
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch 257"]:
        return self.predict(self.backbone(images))

    def predict(self, features: Tensor) -> Float[Tensor, "batch 257"]:
        """Compute the heads alone, from pooled features (B,C,1,1); not in reduced precision, even under autocast."""
        if isinstance(features, fx.Proxy):  # while it is traced, there is neither a device nor a precision
            return self._answers(features)
        with torch.autocast(features.device.type, enabled=False):
            return self._answers(features.to(self.final_layers.get_parameter("0.weight").dtype))

    def _answers(self, features: Tensor) -> Tensor:
        return torch.cat([head(features) for head in self.final_layers], dim=1).flatten(1)


def scaled_widths(factor: float, round_to: int = 8) -> Widths:
    """Return a network's widths with that share of the channels between image and heads, but at least `round_to`."""

    def scaled(channels: int, fixed: int | None) -> int:
        return channels if channels == fixed else max(round_to, round(channels * factor / round_to) * round_to)

    with torch.device("meta"):
        full = widths_of(FaceReconstructionNet())
    return {
        name: (scaled(inputs, 3), outputs if name.startswith("final_layers") else scaled(outputs, None))
        for name, (inputs, outputs) in full.items()
    }


def build_network(widths: Widths | None = None) -> FaceReconstructionNet:
    """Build a freshly initialized network; with `widths`, its convolutions and batch norms take those channel counts.

    Bottlenecks of which `widths` has no layer are the identity.

    Raises:
        ValueError: `widths` names other convolutions than the network has.
    """
    if widths is None:
        return FaceReconstructionNet()
    # Full-width tensors that are about to be replaced need no memory.
    with torch.device("meta"):
        network = FaceReconstructionNet()
    blocks = dropped_blocks(network, widths)
    for name in blocks:
        block = network.get_submodule(name)
        if not isinstance(block, Bottleneck) or block.downsample is not None:
            raise ValueError(f"widths do not describe this network; they lack {name}")
    without_blocks(network, blocks)
    for name, (inputs, outputs) in widths.items():
        old = network.get_submodule(name)
        assert isinstance(old, nn.Conv2d)
        conv = nn.Conv2d(
            inputs,
            outputs,
            old.kernel_size,  # pyright: ignore[reportArgumentType]
            old.stride,  # pyright: ignore[reportArgumentType]
            old.padding,  # pyright: ignore[reportArgumentType]
            bias=old.bias is not None,
            device="cpu",
        )
        network.set_submodule(name, conv)
        norm = batch_norm_of(name)
        if norm is not None:
            network.set_submodule(norm, nn.BatchNorm2d(outputs))
    return network


def batch_norm_of(conv: str) -> str | None:
    """Name the batch norm behind a convolution; None for the heads, which have none."""
    parent, _, leaf = conv.rpartition(".")
    if leaf.startswith("conv"):
        return f"{parent}.bn{leaf.removeprefix('conv')}"
    return f"{parent}.1" if parent.endswith("downsample") else None
