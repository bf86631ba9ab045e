"""The networks that a search chooses from: the original without some of its blocks, and with fewer channels."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, fx, nn

from leanface.networks.graph import Graph, layers_of, trace
from leanface.networks.widths import Widths, is_depthwise
from leanface.pruning.groups import ChannelGraph, ChannelGroup
from leanface.pruning.plan import Architecture, widths_left


@dataclass(frozen=True)
class Pattern:
    """How a network's width and depth are shared out, at any size.

    Attributes:
        dropped: blocks that are the identity.
        factors: how much wider than a uniform network the groups of a kind are; 1 for those that are not named.
    """

    dropped: frozenset[str] = frozenset()
    factors: Mapping[str, float] = field(default_factory=dict[str, float])

    @property
    def is_uniform(self) -> bool:
        """Whether all blocks are there, and all groups as wide."""
        return not self.dropped and all(factor == 1 for factor in self.factors.values())


UNIFORM = Pattern()

Cost = Callable[[Architecture], float]


class LayerShape(NamedTuple):
    """What the time of a convolution or linear layer depends on.

    Attributes:
        kernel: its area.
        positions: of its output's feature map.
        inputs: channels that each output reads.
    """

    kernel: int
    positions: int
    inputs: int
    outputs: int


class Space:
    """All architectures of one network.

    Groups of as many channels that are all inside blocks, or all on streams, are of one kind, and are pruned alike.

    Attributes:
        network: the original.
        image_size: of its images (px).
        kinds: the groups of each kind, by the name of the first one.
        blocks: which can be dropped, since they add something to what they read.
    """

    def __init__(self, network: nn.Module, image_size: int, round_to: int = 8) -> None:
        """Look at a network in eval mode.

        Args:
            round_to: channels are a multiple of it.
        """
        self.network, self.image_size, self._round_to = network, image_size, round_to
        self._groups = ChannelGraph(network, image_size).groups()
        alike: defaultdict[tuple[bool, int], list[str]] = defaultdict(list)
        for name, group in self._groups.items():
            alike[group.inside_block, group.channels].append(name)
        self.kinds = {names[0]: tuple(names) for names in alike.values()}
        self.blocks = residual_blocks(network)
        self._shapes = _layer_shapes(network, image_size)

    @property
    def groups(self) -> Mapping[str, ChannelGroup]:
        """The coupled channels of the original."""
        return self._groups

    def architecture(self, pattern: Pattern, scale: float) -> Architecture:
        """Return a pattern at a share of the original's channels; no group has more, or fewer than `round_to`."""
        counts = {
            name: self._rounded(self._groups[name].channels, scale * pattern.factors.get(kind, 1.0))
            for kind, names in self.kinds.items()
            for name in names
        }
        return Architecture(tuple(sorted(pattern.dropped)), counts)

    def at_cost(self, pattern: Pattern, limit: float, cost: Cost) -> Architecture | None:
        """Return a pattern as wide as it may be to cost at most `limit`; None: it cannot be so narrow."""
        low, high = 0.0, max(1.0, 1 / min((pattern.factors.get(kind, 1.0) for kind in self.kinds), default=1.0))
        if cost(self.architecture(pattern, high)) <= limit:
            return self.architecture(pattern, high)
        if cost(self.architecture(pattern, low)) > limit:
            return None
        for _ in range(12):
            middle = (low + high) / 2
            low, high = (low, middle) if cost(self.architecture(pattern, middle)) > limit else (middle, high)
        return self.architecture(pattern, low)

    def random(self, generator: np.random.Generator) -> Architecture:
        """Draw an architecture of any size."""
        chance, scale = generator.uniform(0, 0.6), generator.uniform(0.1, 1.0)
        dropped = frozenset(block for block in self.blocks if generator.random() < chance)
        factors = {kind: float(np.exp(generator.normal(0, 0.35))) for kind in self.kinds}
        return self.architecture(Pattern(dropped, factors), scale)

    def widths(self, architecture: Architecture) -> Widths:
        """Return the widths of the layers that are left."""
        every = widths_left(self.network, self._groups, architecture.counts)
        blocks = tuple(f"{block}." for block in architecture.dropped)
        return {name: widths for name, widths in every.items() if not blocks or not name.startswith(blocks)}

    def shapes(self, architecture: Architecture) -> list[LayerShape]:
        """Return the shapes of the layers that are left."""
        shapes: list[LayerShape] = []
        for name, (inputs, outputs) in self.widths(architecture).items():
            whole = self._shapes[name]
            layer = self.network.get_submodule(name)
            read = 1 if is_depthwise(layer) else inputs // getattr(layer, "groups", 1)
            shapes.append(whole._replace(inputs=read, outputs=outputs))
        return shapes

    def _rounded(self, channels: int, share: float) -> int:
        count = math.floor(min(1.0, share) * channels / self._round_to + 1e-9) * self._round_to
        return channels if share >= 1 else min(channels, max(self._round_to, count))


def residual_blocks(network: nn.Module) -> tuple[str, ...]:
    """Name the modules that add something to what they read, and could be the identity in place of that."""
    graph = trace(network)
    modules = cast(Iterable[tuple[str, nn.Module]], network.named_modules())
    return tuple(name for name, _ in modules if name and _adds_to_its_input(graph, name))


def _adds_to_its_input(graph: Graph, name: str) -> bool:
    inside = [node for node in graph.nodes if graph.is_inside(node, (name,))]
    read = {source for node in inside for source in node.all_input_nodes if source not in inside}
    added = [operands for node in inside if (operands := graph.operands(node))]
    if len(read) != 1 or len(added) != 1:
        return False
    return bool(read & {_passed(graph, operand) for operand in added[0]})


def _passed(graph: Graph, node: fx.Node) -> fx.Node:
    """Return what an identity passes on."""
    while graph.module(node, nn.Identity) is not None:
        node = node.all_input_nodes[0]
    return node


@torch.inference_mode()
def _layer_shapes(network: nn.Module, image_size: int) -> dict[str, LayerShape]:
    shapes: dict[str, LayerShape] = {}

    def record(name: str, layer: nn.Conv2d | nn.Linear, _: object, output: Tensor) -> None:
        kernel = math.prod(layer.kernel_size) if isinstance(layer, nn.Conv2d) else 1
        shapes[name] = LayerShape(kernel, output[0, 0].numel(), layer.weight.shape[1], output.shape[1])

    handles = [layer.register_forward_hook(partial(record, name)) for name, layer in layers_of(network).items()]
    try:
        network(torch.zeros(1, 3, image_size, image_size, device=next(network.parameters()).device))
    finally:
        for handle in handles:
            handle.remove()
    return shapes
