"""Which convolutions share their output channels, so that they must lose the same ones.

Source: dependency groups as in Fang et al., DepGraph, CVPR 2023 (arXiv:2301.12900).
"""

from typing import Any, NamedTuple, TypeVar

import torch
from torch import nn
from torch_pruning import DependencyGraph
from torch_pruning.dependency import Group
from torch_pruning.pruner import function

from leanface.networks.resnet import FaceReconstructionNet, widths_of
from leanface.pruning.cost import layer_costs

Layer = TypeVar("Layer", bound=nn.Module)

KeptChannels = dict[str, list[int]]
"""The pruning record: which of the teacher's output channels each convolution kept, in its own order."""

TRACING_SIZE = 64
"""Image size for tracing the dependencies, which do not depend on it."""


class ChannelGroup(NamedTuple):
    """Channels that only go together.

    Attributes:
        convolutions: those whose outputs they are, in order of execution; more than one makes a residual stream.
        consumers: those that read them.
        channels: how many there are.
        dependencies: every layer that has them, as torch-pruning records it.
    """

    convolutions: tuple[str, ...]
    consumers: tuple[str, ...]
    channels: int
    dependencies: Group

    @property
    def inside_block(self) -> bool:
        """Whether they are inside of one bottleneck; otherwise they are the stem's or a residual stream's."""
        return len(self.convolutions) == len(self.consumers) == 1


def layers_with_outputs(group: Any, kind: type[Layer]) -> list[Layer]:
    """The layers of that kind whose output channels a group of torch-pruning's consists of.

    The group's channels are all of theirs, in order: nothing in this network concatenates or splits channels.
    """
    handlers: Any = (function.prune_conv_out_channels, function.prune_batchnorm_out_channels)
    layers = [each.dep.target.module for each in group if each.dep.handler in handlers]
    return [layer for layer in layers if isinstance(layer, kind)]


class ChannelGraph:
    """The coupled channels of one network (in eval mode), which may be pruned through it; heads keep their outputs."""

    def __init__(self, network: FaceReconstructionNet) -> None:
        self._network = network
        self._order = list(layer_costs(network, TRACING_SIZE))
        self._names = {network.get_submodule(name): name for name in widths_of(network)}
        example = torch.zeros(1, 3, TRACING_SIZE, TRACING_SIZE, device=next(network.parameters()).device)
        self._graph: Any = DependencyGraph().build_dependency(network, example)
        network.zero_grad()  # tracing leaves gradients

    def groups(self) -> dict[str, ChannelGroup]:
        """Every group, by its first convolution, in order of execution."""
        heads = list(self._network.final_layers)
        found: dict[str, ChannelGroup] = {}
        for dependencies in self._graph.get_all_groups(ignored_layers=heads, root_module_types=[nn.Conv2d]):
            convolutions = self._holders(dependencies, function.prune_conv_out_channels)
            consumers = self._holders(dependencies, function.prune_conv_in_channels)
            channels = len(dependencies[0].idxs)
            found[convolutions[0]] = ChannelGroup(convolutions, consumers, channels, dependencies)
        return {name: found[name] for name in self._order if name in found}

    def remove(self, group: str, channels: list[int]) -> None:
        """Take these channels out of every layer that has them."""
        conv = self._network.get_submodule(group)
        self._graph.get_pruning_group(conv, function.prune_conv_out_channels, channels).prune()

    def _holders(self, dependencies: Any, handler: Any) -> tuple[str, ...]:
        """Convolutions that have the group's channels as outputs or as inputs, in order of execution."""
        names = {self._names[each.dep.target.module] for each in dependencies if each.dep.handler == handler}
        return tuple(sorted(names, key=self._order.index))
