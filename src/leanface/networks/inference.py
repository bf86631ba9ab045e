"""The network as inference needs it: batch norms folded into the convolutions; on a GPU in FP16, with fused kernels."""

import copy
from collections.abc import Callable, Iterable
from typing import Any, cast

import torch
from torch import Tensor, nn

from leanface.networks.graph import NORMS, trace
from leanface.networks.resnet import Bottleneck


@torch.no_grad()
def inference_form(network: nn.Module) -> nn.Module:
    """Return a copy in eval mode that computes the same function without the batch norms behind layers.

    With k the batch norm's weight over its standard deviation, per output channel, a layer's weights W become W k. A
    quantized one's range becomes amax |k|, so that the 8-bit numbers, round(127 W / amax) in INT8, stay
    what they were, up to their sign.
    """
    folded = copy.deepcopy(network).cpu().eval()
    for name, norm_name in trace(folded).norms.items():
        layer, norm = folded.get_submodule(name), folded.get_submodule(norm_name)
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        assert isinstance(norm, NORMS)
        gain, shift = _affine(norm)
        per_output = gain.view(-1, *[1] * (layer.weight.ndim - 1))
        layer.weight.mul_(per_output)
        layer.bias = nn.Parameter(shift if layer.bias is None else layer.bias * gain + shift)
        quantizer: Any = getattr(layer, "weight_quantizer", None)
        if quantizer is not None and quantizer.is_enabled:
            quantizer.amax = quantizer.amax * per_output.abs()
        folded.set_submodule(norm_name, nn.Identity())
    return folded


class HalfPrecision(nn.Module):
    """A network computed in FP16 and channels last: float32 coefficients of images, float32 (B,3,H,W) in [0,1] or
    uint8 (B,H,W,3).

    Args:
        fused: bias, ReLU and residual addition are part of cuDNN's convolutions: half of the time of an FP16 network
            that computes them apart. On CUDA only; for networks without quantizers.
        stem: makes what computes the first convolution, ReLU and pooling instead, of that convolution with its batch
            norm folded into it; it reads the images as they are.
    """

    def __init__(
        self, network: nn.Module, *, fused: bool = False, stem: Callable[[nn.Conv2d], nn.Module] | None = None
    ) -> None:
        super().__init__()
        self.network = inference_form(network)
        self._converts = stem is None
        if stem is not None:
            first = self.network.get_submodule("backbone.conv1")
            assert isinstance(first, nn.Conv2d)
            self.network.set_submodule("backbone.conv1", stem(first))
            self.network.set_submodule("backbone.relu", nn.Identity())
            self.network.set_submodule("backbone.maxpool", nn.Identity())
        self.network.half()
        if fused:
            _fuse(self.network)
        self.network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def forward(self, images: Tensor) -> Tensor:
        if self._converts:
            if images.dtype == torch.uint8:
                images = images.permute(0, 3, 1, 2).to(torch.float16) / 255  # channels last as it lies in memory
            images = images.to(torch.float16, memory_format=torch.channels_last)
        with torch.autocast(images.device.type, enabled=False):
            return self.network(images).float()


class _FusedBottleneck(nn.Module):
    """A folded bottleneck in three kernels, and one for its projection."""

    def __init__(self, block: Bottleneck) -> None:
        super().__init__()
        self.conv1, self.conv2, self.conv3, self.downsample = block.conv1, block.conv2, block.conv3, block.downsample
        projections = [] if self.downsample is None else [m for m in self.downsample if isinstance(m, nn.Conv2d)]
        for conv in projections:  # its bias, added by the last convolution, costs no kernel of its own
            assert conv.bias is not None
            assert self.conv3.bias is not None
            self.conv3.bias = nn.Parameter(self.conv3.bias + conv.bias)
            conv.bias = None

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        x = _conv_relu(self.conv2, _conv_relu(self.conv1, x))
        last = self.conv3
        return torch.cudnn_convolution_add_relu(x, last.weight, identity, 1.0, last.bias, *_geometry(last))


def _conv_relu(conv: nn.Conv2d, x: Tensor) -> Tensor:
    return torch.cudnn_convolution_relu(x, conv.weight, conv.bias, *_geometry(conv))


def _geometry(conv: nn.Conv2d) -> tuple[Any, Any, Any, int]:
    return conv.stride, conv.padding, conv.dilation, conv.groups


def _fuse(network: nn.Module) -> None:
    """Replace the bottlenecks. The first convolution stays: cuDNN's fused 7x7 one is many times slower."""
    modules = list(cast(Iterable[tuple[str, nn.Module]], network.named_modules()))
    for name, block in modules:
        if isinstance(block, Bottleneck):
            network.set_submodule(name, _FusedBottleneck(block))


def _affine(norm: nn.BatchNorm2d | nn.BatchNorm1d) -> tuple[Tensor, Tensor]:
    """Return the gain and shift (C,) of a batch norm in eval mode."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    gain = norm.weight / (norm.running_var + norm.eps).sqrt()
    return gain, norm.bias - norm.running_mean * gain
