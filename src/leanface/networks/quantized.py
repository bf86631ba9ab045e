"""Fake-quantized networks: 8-bit weights per output channel, 8-bit activations per tensor, by NVIDIA ModelOpt.

A `Quantizer` says all that is needed to rebuild one: where the quantizers sit follows from it, and their
ranges are buffers (`_amax`) of the state dict, so that a bundle holds them like any other weight.
"""

import contextlib
import copy
import io
import warnings
from collections.abc import Iterator
from typing import Any, Literal, cast

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from leanface.networks.graph import LAYERS, ResidualAdd, trace, with_residual_adds
from leanface.networks.interface import Flavor

with warnings.catch_warnings():  # at import ModelOpt warns of optional packages that it does not find
    warnings.simplefilter("ignore")
    import modelopt.torch.quantization as mtq
    from modelopt.torch.quantization.nn import QuantInputBase, QuantModuleRegistry, TensorQuantizer


QUANTIZED = ("nn.Conv2d", "nn.Linear")
"""Layers whose inputs and weights are quantized, as ModelOpt calls them."""


class Quantizer(BaseModel):
    """What is quantized, and to what: the inputs and weights of all layers but the `excluded_layers`.

    With `residual` also the identity branch of each residual addition: then feature maps stay in 8 bits.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    scheme: Literal["int8"] = "int8"
    residual: bool
    excluded_layers: tuple[str, ...] = ()
    """Convolutions, linear layers and residual additions that stay in floating point, by module name."""


@QuantModuleRegistry.register({ResidualAdd: "ResidualAdd"})
class QuantResidualAdd(QuantInputBase):
    """Its first input, the identity, is quantized; the other one a runtime adds inside the convolution."""


def add_quantizers(network: nn.Module, quantizer: dict[str, Any]) -> nn.Module:
    """Turn a floating-point network into its fake-quantized form, in place but for additions that are no modules yet.

    The ranges are 0, and the network useless, until they are calibrated (`leanface.quantization`) or loaded.

    Args:
        network: as its task builds it.
        quantizer: a `Quantizer` as plain JSON (`Spec.quantizer`).

    Raises:
        ValueError: `quantizer` is not a description that this version knows, or excludes layers that the network
            does not have.
    """
    description = Quantizer.model_validate(quantizer)
    if description.residual:
        network = with_residual_adds(network)
    modules = cast(Iterator[tuple[str, nn.Module]], network.named_modules())
    known = {name for name, module in modules if isinstance(module, (*LAYERS, ResidualAdd))}
    unknown = sorted(set(description.excluded_layers) - known)
    if unknown:
        raise ValueError(f"the quantizer excludes layers that the network does not have: {', '.join(unknown)}")
    per_channel = {"num_bits": 8, "axis": 0}
    per_tensor = {"num_bits": 8, "axis": None}
    entries: list[dict[str, Any]] = [
        {"quantizer_name": "*", "enable": False},
        *({"quantizer_name": "*weight_quantizer", "parent_class": kind, "cfg": per_channel} for kind in QUANTIZED),
        *({"quantizer_name": "*input_quantizer", "parent_class": kind, "cfg": per_tensor} for kind in QUANTIZED),
    ]
    if description.residual:
        entry = {"quantizer_name": "*input_quantizer", "parent_class": "ResidualAdd", "cfg": per_tensor}
        entries.append(entry)
    entries += [{"quantizer_name": f"{name}.*", "enable": False} for name in description.excluded_layers]
    with contextlib.redirect_stdout(io.StringIO()):  # ModelOpt prints how many quantizers it inserted
        mtq.quantize(network, {"quant_cfg": entries, "algorithm": None})
    for name, module in quantizers_of(network):
        parent, _, kind = name.rpartition(".")
        weight = cast(nn.Conv2d, network.get_submodule(parent)).weight if kind == "weight_quantizer" else None
        shape = () if weight is None else (len(weight), *[1] * (weight.ndim - 1))
        module.register_buffer("_amax", torch.zeros(shape))
    return network


def quantizers_of(network: nn.Module) -> Iterator[tuple[str, TensorQuantizer]]:
    """Yield the active quantizers of a network and their module names."""
    modules = cast(Iterator[tuple[str, nn.Module]], network.named_modules())
    for name, module in modules:
        if isinstance(module, TensorQuantizer) and module.is_enabled:
            yield name, module


def in_flavor(network: nn.Module, flavor: Flavor) -> nn.Module:
    """Copy an INT8 network so that it rounds and clips as its file of this flavor does.

    A feature map that cannot be negative, an image or what comes from ReLU, has 256 levels. In `tensorrt` the steps
    stay, so that it is clipped at 255 of them instead of 127. In `cpu` the levels divide the range, an image has one
    for each of its bytes, and what reads pooled features computes in floating point (docs/decisions/0017-flavors.md).
    """
    changed = copy.deepcopy(network)
    graph = trace(changed)
    sources = {str(node.target): node.all_input_nodes[0] for node in graph.nodes if node.all_input_nodes}
    for name, quantizer in list(quantizers_of(changed)):
        owner, _, kind = name.rpartition(".")
        source = sources[owner]
        if flavor == "cpu" and graph.module(source, nn.AdaptiveAvgPool2d) is not None:
            quantizer.disable()
        elif kind == "input_quantizer" and graph.non_negative(source):
            quantizer._unsigned = True  # pyright: ignore[reportPrivateUsage]
            if flavor == "tensorrt":
                quantizer.amax = cast(Tensor, quantizer.amax) * 255 / 127
            elif source.op == "placeholder":
                quantizer.amax = torch.ones_like(cast(Tensor, quantizer.amax))
    return changed
