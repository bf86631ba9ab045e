"""Channels matter by how far the outputs move, to first order, if the channel is switched off."""

from collections import defaultdict

import torch
from torch import Tensor, nn
from torch_pruning.dependency import Group

from leanface.pruning.groups import layers_with_outputs


class Taylor:
    """Mean square, over calibration images, of the derivative by a gate on the channel.

    The gate sits behind the batch norm, where its derivative is gamma dL/dgamma + beta dL/dbeta; channels that
    are added have one gate for all of them. (torch-pruning's GroupTaylorImportance leaves out batch norms, and
    sums gradients over images before it takes their size.) L is what `leanface.pruning.gradients` says.

    Source: Molchanov et al., CVPR 2019 (arXiv:1906.10771), equation 8, with gates.
    """

    def __init__(self) -> None:
        self._gates: dict[nn.Module, list[Tensor]] = defaultdict(list)

    def observe(self, network: nn.Module) -> None:
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                assert module.weight.grad is not None
                assert module.bias.grad is not None
                gate = module.weight * module.weight.grad + module.bias * module.bias.grad
                self._gates[module].append(gate.detach())

    def __call__(self, group: Group) -> Tensor:
        norms = layers_with_outputs(group, nn.BatchNorm2d)
        gates = torch.stack([torch.stack(self._gates[norm]) for norm in norms]).sum(dim=0)
        return gates.square().mean(dim=0)
