"""Zero weights in convolutions: where they are put, and how they stay.

In the 2:4 pattern two of every four consecutive input channels are zero, for each output channel and kernel position:
sparse tensor cores then do the same in half of the multiplications.

Source: Mishra et al., "Accelerating Sparse Deep Neural Networks", 2021 (arXiv:2104.08378); by magnitude as in Han et
al., NIPS 2015 (arXiv:1506.02626).
"""

import copy
from functools import partial
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from leanface.networks.resnet import FaceReconstructionNet, widths_of

Sparsity = Literal["2of4"] | float
"""The 2:4 pattern, or the share of each convolution's weights that are zero."""


@torch.no_grad()
def sparsify(network: FaceReconstructionNet, sparsity: Sparsity) -> FaceReconstructionNet:
    """A copy whose convolutions have their smallest weights set to zero; the heads stay dense.

    The 2:4 pattern leaves out convolutions whose input channels do not come in fours: the first one.
    """
    sparse = copy.deepcopy(network)
    for name in widths_of(sparse):
        weight = sparse.get_submodule(name).get_parameter("weight")
        if name.startswith("backbone.") and (sparsity != "2of4" or weight.shape[1] % 4 == 0):
            keep = _two_of_four(weight) if sparsity == "2of4" else _largest(weight, 1 - sparsity)
            weight *= keep
    return sparse


def keep_zeros(network: nn.Module) -> None:
    """From now on, weights of convolutions that are zero get no gradient: AdamW and averages leave them zero."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and bool((module.weight == 0).any()):
            module.weight.register_hook(partial(_where_not_zero, module.weight))


def zero_share(network: nn.Module) -> float:
    """Share of zeros among the weights of all convolutions."""
    weights = [module.weight for module in network.modules() if isinstance(module, nn.Conv2d)]
    return sum(int((weight == 0).sum()) for weight in weights) / sum(weight.numel() for weight in weights)


def _where_not_zero(weight: Tensor, gradient: Tensor) -> Tensor:
    return gradient * (weight != 0)


def _two_of_four(weight: Float[Tensor, "out in h w"]) -> Bool[Tensor, "out in h w"]:
    outputs, inputs, height, width = weight.shape
    fours = weight.abs().view(outputs, inputs // 4, 4, height, width)
    order = fours.argsort(dim=2, descending=True, stable=True)
    return torch.zeros_like(fours, dtype=torch.bool).scatter_(2, order[:, :, :2], True).view(weight.shape)


def _largest(weight: Tensor, share: float) -> Tensor:
    order = weight.abs().flatten().argsort(descending=True, stable=True)
    keep = torch.zeros(weight.numel(), dtype=torch.bool, device=weight.device)
    keep[order[: round(share * weight.numel())]] = True
    return keep.view(weight.shape)
