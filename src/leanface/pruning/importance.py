"""Pruning criteria: what each channel of a group of coupled convolutions is worth.

A new criterion is one class here, one line in `IMPORTANCES` and one YAML in conf/prune/importance/.
"""

import inspect
from collections import defaultdict
from collections.abc import Callable
from typing import Any, Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn
from torch_pruning.dependency import Group
from torch_pruning.pruner.importance import (
    BNScaleImportance,
    GroupHessianImportance,
    GroupMagnitudeImportance,
    RandomImportance,
)

from leanface import config
from leanface.errors import ConfigError
from leanface.networks.graph import NORMS
from leanface.pruning.groups import layers_with_outputs


class Importance(Protocol):
    """A pruning criterion."""

    def __call__(self, group: Group) -> Tensor | None:
        """Score the channels that coupled layers share; higher is more important, shape (channels,).

        None says that the group holds nothing that the criterion can judge; it then stays whole.
        """
        ...


@runtime_checkable
class GradientImportance(Importance, Protocol):
    """A criterion that looks at gradients first; only such a one makes pruning pay for them."""

    def observe(self, network: nn.Module) -> None:
        """Look at one calibration image's gradients, in `.grad` (see `leanface.pruning.gradients`), before scoring."""
        ...


class Magnitude(GroupMagnitudeImportance):
    """Score by the mean over the coupled layers (convolutions in and out, batch norms) of sum |w|^p.

    Source: Li et al., ICLR 2017 (arXiv:1608.08710); summed over coupled layers as in Fang et al., CVPR 2023
    (arXiv:2301.12900).

    Args:
        p: 1 for the sum of absolute weights, 2 for the sum of squares.

    Raises:
        ValueError: `p` is neither 1 nor 2.
    """

    def __init__(self, p: int = 2) -> None:
        if p not in (1, 2):
            raise ValueError(f"p is {p}, expected 1 or 2")
        super().__init__(p=p)


class BatchNormScale(BNScaleImportance):
    """Score by the mean |gamma| over the coupled batch norms, relative to the group's mean.

    Source: Liu et al., Network Slimming, ICCV 2017 (arXiv:1708.06519).
    """

    def __init__(self) -> None:
        super().__init__()


class FPGM:
    """Score by how far a channel's filters are from the others: what others can stand in for may go.

    The sum of a filter's Euclidean distances to the others of its convolution, relative to the convolution's mean;
    mean over the coupled convolutions. (torch-pruning's FPGMImportance measures distances between squared weights,
    which takes a filter and its negative for the same.)

    Source: He et al., Filter Pruning via Geometric Median, CVPR 2019 (arXiv:1811.00250).
    """

    def __call__(self, group: Group) -> Tensor:
        layers = [*layers_with_outputs(group, nn.Conv2d), *layers_with_outputs(group, nn.Linear)]
        filters = [layer.weight.detach().flatten(1) for layer in layers]
        distances = [torch.cdist(each, each).sum(dim=1) for each in filters]
        return torch.stack([each / each.mean() for each in distances]).mean(dim=0)


class Taylor:
    """Score by how far the outputs move, to first order, if the channel is switched off.

    Mean square, over calibration images, of the derivative by a gate on the channel. The gate sits behind the batch
    norm, where its derivative is gamma dL/dgamma + beta dL/dbeta; channels that are added have one gate for all of
    them. (torch-pruning's GroupTaylorImportance leaves out batch norms, and sums gradients over images before it
    takes their size.) L is what `leanface.pruning.gradients` says.

    Source: Molchanov et al., CVPR 2019 (arXiv:1906.10771), equation 8, with gates.
    """

    def __init__(self) -> None:
        self._gates: dict[nn.Module, list[Tensor]] = defaultdict(list)

    def observe(self, network: nn.Module) -> None:
        for module in network.modules():
            if isinstance(module, NORMS):
                assert module.weight.grad is not None
                assert module.bias.grad is not None
                gate = module.weight * module.weight.grad + module.bias * module.bias.grad
                self._gates[module].append(gate.detach())

    def __call__(self, group: Group) -> Tensor | None:
        layers = [*layers_with_outputs(group, nn.BatchNorm2d), *layers_with_outputs(group, nn.BatchNorm1d)]
        channels = len(cast(Any, group)[0].idxs)
        norms = [norm for norm in layers if len(norm.weight) == channels]
        if not norms:
            return None
        gates = torch.stack([torch.stack(self._gates[norm]) for norm in norms]).sum(dim=0)
        return gates.square().mean(dim=0)


class HessianDiagonal(GroupHessianImportance):
    """Score by what the weights' absence costs, to second order (Optimal Brain Damage).

    Mean over the coupled layers of sum w^2 h, where h is the mean over calibration images of the squared gradient of
    L (see `leanface.pruning.gradients`): its expectation is the diagonal of the Gauss-Newton matrix of the squared
    error against the teacher, which is the Hessian where that error is zero.

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


class Random(RandomImportance):
    """Score at random, from torch's generator, which `prune` seeds: the control that any criterion must beat."""


IMPORTANCES: dict[str, Callable[..., Importance]] = {
    "magnitude": Magnitude,
    "batch_norm_scale": BatchNormScale,
    "fpgm": FPGM,
    "taylor": Taylor,
    "hessian": HessianDiagonal,
    "random": Random,
}
"""Pruning criteria by name; the keys of `prune.importance.options` are the criterion's keyword arguments."""


def build_importance(choice: config.Importance) -> Importance:
    """Build the criterion that a configuration names.

    Raises:
        ConfigError: there is none of that name, or it refuses the options.
    """
    criterion = IMPORTANCES.get(choice.name)
    if criterion is None:
        raise ConfigError(f"prune.importance.name: there is no {choice.name!r}; use one of {', '.join(IMPORTANCES)}.")
    parameters = inspect.signature(criterion).parameters
    unknown = sorted(set(choice.options) - set(parameters))
    if unknown:
        raise ConfigError(
            f"prune.importance.options: {choice.name} has no option {', '.join(unknown)}; "
            f"it takes {', '.join(parameters) or 'none'}. Fix conf/prune/importance/{choice.name}.yaml."
        )
    try:
        return criterion(**choice.options)
    except ValueError as error:
        raise ConfigError(f"prune.importance.options of {choice.name}: {error}") from None
