"""How much of the reconstruction each group of coupled channels carries: what is lost when only it is pruned.

Source: Li et al., "Pruning Filters for Efficient ConvNets", ICLR 2017 (arXiv:1608.08710), for whole groups.
"""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from leanface.metrics.sensitivity import Change, deviations
from leanface.networks.graph import trace
from leanface.pruning.cost import layer_costs
from leanface.pruning.groups import ChannelGraph
from leanface.pruning.importance import Importance, Magnitude
from leanface.task import Deviation, Task


@dataclass(frozen=True)
class GroupSensitivity:
    """One group of coupled channels.

    Attributes:
        convolutions: whose outputs they are, in order of execution.
        parameters: of these convolutions.
        macs: of these convolutions, for one image.
        errors: without the least important channels and without recovery, by the share that is gone ("0.5").
    """

    convolutions: tuple[str, ...]
    parameters: int
    macs: int
    errors: dict[str, Deviation]


def pruning_sensitivity(
    network: nn.Module,
    images: Float[Tensor, "batch 3 height width"],
    task: Task,
    ratios: Sequence[float],
) -> dict[str, GroupSensitivity]:
    """Measure every group, by its first convolution, in order of execution; the least channels by magnitude go.

    Args:
        network: in eval mode; as before when this returns.
        images: faces; no labels are needed.
        task: what the network's outputs mean.
        ratios: shares of a group's channels, rounded down to whole channels.
    """
    groups = ChannelGraph(network, images.shape[-1]).groups()
    norms = trace(network).norms
    importance = cast(Importance, Magnitude())
    changes: dict[tuple[str, float], Change] = {}
    for name, group in groups.items():
        switched = [norms.get(layer, layer) for layer in group.convolutions]
        scores = cast(Tensor, importance(group.dependencies))  # there are convolutions in it, so not None
        order = scores.argsort(stable=True)
        for ratio in ratios:
            gone = order[: int(ratio * group.channels)]
            changes[name, ratio] = Change(name, partial(_without, network, switched, gone))
    found = deviations(network, images, changes, partial(task.deviation_from, image_size=images.shape[-1]))
    costs = layer_costs(network, images.shape[-1])
    return {
        name: GroupSensitivity(
            convolutions=group.convolutions,
            parameters=sum(costs[conv].parameters for conv in group.convolutions),
            macs=sum(costs[conv].macs for conv in group.convolutions),
            errors={str(ratio): found[name, ratio] for ratio in ratios},
        )
        for name, group in groups.items()
    }


@contextmanager
@torch.no_grad()
def _without(network: nn.Module, modules: Sequence[str], channels: Int[Tensor, " channels"]) -> Generator[None]:
    """Let batch norms, and layers without one, answer 0 in these channels, as if they were gone."""
    parameters = [parameter for name in modules for parameter in network.get_submodule(name).parameters()]
    before = [parameter.clone() for parameter in parameters]
    try:
        for parameter in parameters:
            parameter[channels] = 0.0
        yield
    finally:
        for parameter, values in zip(parameters, before, strict=True):
            parameter.copy_(values)
