"""Which layers share their output channels, so that they must lose the same ones.

Source: dependency groups as in Fang et al., DepGraph, CVPR 2023 (arXiv:2301.12900).
"""

from collections import Counter
from typing import Any, NamedTuple, TypeVar

import torch
from torch import nn
from torch_pruning import DependencyGraph
from torch_pruning.dependency import Group
from torch_pruning.pruner import function as _function

from leanface.networks.graph import LAYERS, layers_of, trace
from leanface.networks.widths import is_depthwise

Layer = TypeVar("Layer", bound=nn.Module)

KeptChannels = dict[str, list[int]]
"""The pruning record: which of the teacher's output channels each layer kept, in its own order."""

TRACING_SIZE = 64
"""Image size (px) for tracing, where none is given: a fully convolutional network's dependencies have none."""

function: Any = _function

OUTPUTS: tuple[Any, ...] = (
    function.prune_conv_out_channels,
    function.prune_depthwise_conv_out_channels,
    function.prune_linear_out_channels,
)
INPUTS: tuple[Any, ...] = (function.prune_conv_in_channels, function.prune_linear_in_channels)


class ChannelGroup(NamedTuple):
    """Channels that only go together.

    Attributes:
        convolutions: the layers whose outputs they are, in order of execution; more than one that is not depthwise
            makes a residual stream.
        consumers: how many inputs each of them is of the layers that read them, by name in order of execution; more
            than one behind a flatten.
        channels: how many there are.
        dependencies: every layer that has them, as torch-pruning records it.
        inside_block: whether one layer makes them and one reads them; otherwise they are the stem's or a residual
            stream's.
    """

    convolutions: tuple[str, ...]
    consumers: dict[str, int]
    channels: int
    dependencies: Group
    inside_block: bool


def layers_with_outputs(group: Any, kind: type[Layer]) -> list[Layer]:
    """List the layers of that kind that have a group's channels, as torch-pruning records it, as outputs."""
    handlers = (*OUTPUTS, function.prune_batchnorm_out_channels)
    layers = [each.dep.target.module for each in group if each.dep.handler in handlers]
    return [layer for layer in layers if isinstance(layer, kind)]


class ChannelGraph:
    """The coupled channels of one network (in eval mode), which may be pruned through it; the outputs stay.

    Args:
        network: to be pruned in place.
        image_size: of the images that it reads (px).

    Raises:
        NetworkError: the network has an operation that is not known.
    """

    def __init__(self, network: nn.Module, image_size: int = TRACING_SIZE) -> None:
        self._network = network
        traced = trace(network)
        self._order = list(traced.layers)
        self._outputs = {network.get_submodule(name) for name in traced.output_layers}
        self._names = {layer: name for name, layer in layers_of(network).items()}
        example = torch.zeros(1, 3, image_size, image_size, device=next(network.parameters()).device)
        self._graph: Any = DependencyGraph().build_dependency(network, example)
        network.zero_grad()  # tracing leaves gradients

    def groups(self) -> dict[str, ChannelGroup]:
        """Return every group that can be pruned, by its first layer, in order of execution.

        Channels stay that a grouped convolution reads or makes, and those of which only a part is coupled with others.
        """
        found: dict[str, ChannelGroup] = {}
        roots = {"ignored_layers": list(self._outputs), "root_module_types": list(LAYERS)}
        for dependencies in self._graph.get_all_groups(**roots):
            channels = len(dependencies[0].idxs)
            made = [(each.dep.target.module, each.idxs) for each in dependencies if each.dep.handler in OUTPUTS]
            read = [(each.dep.target.module, each.idxs) for each in dependencies if each.dep.handler in INPUTS]
            grouped = any(getattr(layer, "groups", 1) > 1 and not is_depthwise(layer) for layer, _ in (*made, *read))
            partly = any(len(indices) != len(layer.weight) for layer, indices in made)
            if grouped or partly or {layer for layer, _ in made} & self._outputs:
                continue
            makers = self._in_order({self._names[layer] for layer, _ in made})
            reads = Counter[str]()
            for layer, indices in read:
                reads[self._names[layer]] += len(indices)
            consumers = {name: reads[name] // channels for name in self._in_order(set(reads))}
            convolving = [name for name in makers if not is_depthwise(self._network.get_submodule(name))]
            inside = len(convolving) == len(consumers) == 1
            found[makers[0]] = ChannelGroup(makers, consumers, channels, dependencies, inside)
        return {name: found[name] for name in self._order if name in found}

    def remove(self, group: str, channels: list[int]) -> None:
        """Take these channels out of every layer that has them."""
        layer = self._network.get_submodule(group)
        handler: Any = self._graph.get_pruner_of_module(layer).prune_out_channels
        self._graph.get_pruning_group(layer, handler, channels).prune()

    def _in_order(self, names: set[str]) -> tuple[str, ...]:
        return tuple(sorted(names, key=self._order.index))
