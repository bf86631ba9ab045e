"""Channels matter by how much, to second order, their weights' absence costs."""

from typing import cast

import torch
from torch import Tensor, nn
from torch_pruning.dependency import Group
from torch_pruning.pruner.importance import GroupHessianImportance


class HessianDiagonal(GroupHessianImportance):
    """Mean over the coupled layers of sum w^2 h, h the diagonal of the Hessian (Optimal Brain Damage).

    h is the mean over calibration images of the squared gradient of L (see `leanface.pruning.gradients`): its
    expectation is the diagonal of the Gauss-Newton matrix of the squared error against the original, which is the
    Hessian where that error is zero.

    Source: LeCun, Denker and Solla, NIPS 1989; the estimator as in Bekas, Kokiopoulou and Saad, 2007.
    """

    def __init__(self) -> None:
        # Not relative to the group's mean: second-order costs of all groups have one unit.
        super().__init__(normalizer=None)  # pyright: ignore[reportArgumentType]
        self._squares: dict[nn.Parameter, Tensor] = {}
        self._count = 0

    def observe(self, network: nn.Module) -> None:
        # The parent's own accumulate_grad looks tensors up by name and so keeps the last image only.
        self._count += 1
        for parameter in network.parameters():
            assert parameter.grad is not None
            total = self._squares.setdefault(parameter, torch.zeros_like(parameter, requires_grad=False))
            total += parameter.grad.square()

    def __call__(self, group: Group) -> Tensor | None:
        for parameter, total in self._squares.items():
            parameter.grad = total / self._count  # where the parent reads h
        return cast(Tensor | None, super().__call__(group))
