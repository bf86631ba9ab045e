"""Batch norm's population statistics, measured instead of followed.

Source: Wu and Johnson, 2021 (arXiv:2105.07576), "precise" batch norm: the statistics of fixed weights over many images.
Running averages lag behind the weights; and where batches of several image sizes alternate, or weights are averaged,
they describe no network that there ever was.
"""

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage]


def batch_norms(network: nn.Module) -> list[_BatchNorm]:
    """Return every batch norm, in the network's order."""
    return [module for module in network.modules() if isinstance(module, _BatchNorm)]


@torch.no_grad()
def measure_batch_norm(network: nn.Module, batches: Iterable[Float[Tensor, "batch 3 height width"]]) -> None:
    """Set every running mean and variance to the mean over `batches` of the batches' own.

    All batches should be of one size, on the network's device: each image size has statistics of its own.
    """
    modes = [(module, module.training) for module in network.modules()]
    norms = batch_norms(network)
    momenta = [norm.momentum for norm in norms]
    network.eval()
    for norm in norms:
        norm.train()
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over the batches
    for images in batches:
        network(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    for module, training in modes:
        module.training = training
