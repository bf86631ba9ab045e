"""The channel counts of a network's layers: what distinguishes a pruned network from the one that it was."""

import copy
import warnings
from collections.abc import Collection, Iterable, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from leanface.networks.graph import NORMS, layers_of

Widths = Mapping[str, tuple[int, int]]
"""(inputs, outputs) of each convolution and linear layer, by module name."""


def widths_of(network: nn.Module) -> dict[str, tuple[int, int]]:
    """Return (inputs, outputs) of every convolution and linear layer, by module name."""
    return {
        name: (layer.in_channels, layer.out_channels)
        if isinstance(layer, nn.Conv2d)
        else (layer.in_features, layer.out_features)
        for name, layer in layers_of(network).items()
    }


def is_depthwise(layer: nn.Module) -> bool:
    """Tell whether each output channel of a layer reads only its own input channel."""
    return isinstance(layer, nn.Conv2d) and 1 < layer.groups == layer.in_channels == layer.out_channels


def without_blocks(network: nn.Module, blocks: Iterable[str]) -> nn.Module:
    """Put the identity in place of these modules, in place."""
    for name in blocks:
        network.set_submodule(name, nn.Identity())
    return network


def dropped_blocks(network: nn.Module, layers: Collection[str]) -> list[str]:
    """Name the outermost modules of a network of which `layers`, those that are left, has none.

    Raises:
        ValueError: the network does not have these layers, or a missing one is in no such module.
    """
    known, left = set(layers_of(network)), {parent for name in layers for parent in _parents(name)}
    blocks = {next(parent for parent in _parents(name) if parent not in left) for name in known - set(layers)}
    if odd := sorted((set(layers) - known) | (known & blocks)):
        raise ValueError(f"widths do not describe this network; they differ at {', '.join(odd[:5])}")
    return sorted(blocks)


def _parents(name: str) -> list[str]:
    """List the modules that a layer is in, the outermost first, and the layer itself."""
    parts = name.split(".")
    return [".".join(parts[: end + 1]) for end in range(len(parts))]


def with_widths(network: nn.Module, widths: Widths, image_size: int) -> nn.Module:
    """Return a copy with these channel counts, freshly initialized; batch norms follow what they read.

    Args:
        network: at full width.
        widths: of all its layers but those of dropped blocks, which become the identity.
        image_size: of the images that it reads.

    Raises:
        ValueError: `widths` names other layers than the network has, or they do not fit each other.
    """
    blocks = dropped_blocks(network, widths)
    network = without_blocks(copy.deepcopy(network), blocks)
    for name, layer in layers_of(network).items():
        network.set_submodule(name, _resized(layer, *widths[name]))
    modules = list(cast(Iterable[tuple[str, nn.Module]], network.named_modules()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch says that lazy modules are new
        for name, norm in modules:
            if isinstance(norm, NORMS):
                kind = nn.LazyBatchNorm2d if isinstance(norm, nn.BatchNorm2d) else nn.LazyBatchNorm1d
                momentum: Any = norm.momentum
                network.set_submodule(name, kind(norm.eps, momentum, norm.affine, norm.track_running_stats))
        try:
            with torch.no_grad():
                network.eval()(torch.zeros(1, 3, image_size, image_size))
        except RuntimeError as error:
            raise ValueError(f"the recorded widths do not fit each other ({str(error).splitlines()[0]})") from None
    return network


def _resized(layer: nn.Conv2d | nn.Linear, inputs: int, outputs: int) -> nn.Module:
    bias: Tensor | None = layer.bias
    if isinstance(layer, nn.Linear):
        return nn.Linear(inputs, outputs, bias=bias is not None)
    return nn.Conv2d(
        inputs,
        outputs,
        layer.kernel_size,  # pyright: ignore[reportArgumentType]
        layer.stride,  # pyright: ignore[reportArgumentType]
        layer.padding,  # pyright: ignore[reportArgumentType]
        layer.dilation,  # pyright: ignore[reportArgumentType]
        outputs if is_depthwise(layer) else layer.groups,
        bias=bias is not None,
        padding_mode=layer.padding_mode,
    )
