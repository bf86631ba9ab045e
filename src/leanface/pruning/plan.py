"""How many channels every group keeps: by a ratio, or by what the network may cost."""

import logging
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from torch import nn

from leanface.config import Prune
from leanface.errors import ArtifactError, ConfigError
from leanface.files import read_json
from leanface.networks.graph import layers_of
from leanface.networks.widths import Widths, is_depthwise, widths_of
from leanface.pruning.cost import layer_costs
from leanface.pruning.groups import ChannelGroup

logger = logging.getLogger(__name__)

Counts = dict[str, int]
"""How many channels a group keeps, by the group's name."""


class Architecture(NamedTuple):
    """What is left of a network.

    Attributes:
        dropped: modules that are the identity from now on.
        counts: how many channels each group keeps; those that are not named stay whole.
    """

    dropped: tuple[str, ...]
    counts: Counts


def read_architecture(path: Path) -> Architecture | None:
    """Read what stage search chose; None: it had no targets.

    Raises:
        ArtifactError: the file is missing or damaged.
    """
    found = read_json(path)
    try:
        return Architecture(tuple(found["dropped"]), dict(found["counts"])) if found else None
    except (KeyError, TypeError, ValueError):
        raise ArtifactError(f"{path} holds no architecture; make it again with `dvc repro --force search`.") from None


CostShare = Callable[[Counts], float]
"""Cost of a network with so many channels left in each group, or all where none are named; the teacher's is 1."""

BISECTIONS = 16


def plan(network: nn.Module, groups: Mapping[str, ChannelGroup], config: Prune, size: int) -> Counts:
    """Decide, for a network that reads images of `size` pixels; a target is met by bisection of the ratio.

    Args:
        network: the teacher.
        groups: of its coupled channels.
        config: ratio or target, round_to.
        size: for multiply-accumulates.

    Raises:
        ConfigError: the ratio would empty a layer, or the target is out of reach.
    """
    channels = {name: group.channels for name, group in groups.items()}

    def counts_at(ratio: float) -> Counts:
        return counts_left(channels, dict.fromkeys(channels, ratio), config.round_to)

    if config.target is None:
        return counts_at(config.ratio)
    wanted, cost = config.target.macs, macs_share(network, groups, size)
    low, high = 0.0, max(0.0, 1 - config.round_to / min(channels.values()))
    if (reachable := cost(counts_at(high))) > wanted:
        raise ConfigError(
            f"prune.target macs {wanted} is out of reach: between {reachable:.3g} and 1 of the teacher's can be left "
            f"with round_to {config.round_to}."
        )
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if cost(counts_at(middle)) > wanted else (low, middle)
    logger.info("prune.target macs %g is met at ratio %.4f", wanted, high)
    return counts_at(high)


def counts_left(channels: Mapping[str, int], ratios: Mapping[str, float], round_to: int) -> Counts:
    """Count what is left of every group of `ratios`, rounded down to a multiple of `round_to`.

    Raises:
        ConfigError: nothing is left of one.
    """
    counts: Counts = {}
    for name, ratio in ratios.items():
        whole = channels[name]
        left = math.floor(whole * (1 - ratio) + 1e-9)  # 80 times (1 - 0.9) is 8, not 7.99...
        if ratio > 0 and left < round_to:
            raise ConfigError(
                f"prune.ratio {ratio:.3g} leaves {left} of {name}'s {whole} channels, which prune.round_to {round_to} "
                f"rounds down to none; use a ratio of at most {1 - round_to / whole:.3g} or a smaller round_to."
            )
        counts[name] = left - left % round_to if ratio > 0 else whole
    return counts


def macs_share(network: nn.Module, groups: Mapping[str, ChannelGroup], size: int) -> CostShare:
    """Measure by multiply-accumulates for one image of `size` pixels; exact, without building the smaller network."""
    widths, layers = widths_of(network), layers_of(network)
    macs = {name: cost.macs for name, cost in layer_costs(network, size).items()}

    def cost(name: str, widths: Widths) -> int:
        inputs, outputs = widths[name]
        # A grouped convolution's outputs read no more inputs of a wider one.
        return outputs if getattr(layers[name], "groups", 1) > 1 else inputs * outputs

    def share(counts: Counts) -> float:
        after = widths_left(network, groups, counts)
        left = [count * cost(name, after) / cost(name, widths) for name, count in macs.items()]
        return sum(left) / sum(macs.values())

    return share


def widths_left(network: nn.Module, groups: Mapping[str, ChannelGroup], counts: Counts) -> Widths:
    """Return the widths of all layers of a network when its groups keep so many channels."""
    left = {name: list(before) for name, before in widths_of(network).items()}
    for name, count in counts.items():
        gone = groups[name].channels - count
        for reader, times in groups[name].consumers.items():
            left[reader][0] -= gone * times
        for maker in groups[name].convolutions:
            left[maker][1] = count
            if is_depthwise(network.get_submodule(maker)):
                left[maker][0] = count
    return {name: (inputs, outputs) for name, (inputs, outputs) in left.items()}
