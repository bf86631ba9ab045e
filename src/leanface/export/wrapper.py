"""What is exported: a network in the form that the tracer needs."""

from typing import Any, cast

from torch import nn


def traced_as_int8(network: nn.Module) -> nn.Module:
    """Let the quantizers of a network, in place, be written as INT8; they keep their ranges.

    FP8 ones ModelOpt writes as nodes of TensorRT's own, and not per channel.
    """
    for module in network.modules():
        if isinstance(getattr(module, "num_bits", None), tuple):
            cast(Any, module).num_bits = 8
    return network
