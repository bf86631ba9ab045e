"""How many channels every group keeps: by a ratio, or by what the network may cost."""

import copy
import logging
import math
from collections.abc import Callable, Mapping

import torch
from torch import nn

from leanface.config import Prune
from leanface.errors import ConfigError
from leanface.metrics.latency import measure_latency
from leanface.networks.graph import layers_of
from leanface.networks.widths import Widths, is_depthwise, widths_of, with_widths
from leanface.pruning.cost import layer_costs
from leanface.pruning.groups import ChannelGroup

logger = logging.getLogger(__name__)

Counts = dict[str, int]
"""How many channels a group keeps, by the group's name."""

CostShare = Callable[[Counts], float]
"""Cost of a network with so many channels left in each group, or all where none are named; the teacher's is 1."""

MACS_BISECTIONS = 16
LATENCY_BISECTIONS = 7
"""Timing tells a hundredth of the ratio, not more."""


def plan(network: nn.Module, groups: Mapping[str, ChannelGroup], config: Prune, size: int) -> Counts:
    """Decide, for a network that reads images of `size` pixels; a target is met by bisection of the ratio.

    Args:
        network: the teacher.
        groups: of its coupled channels; without `config.residual`, the stem and the streams get no count: they stay.
        config: ratio or target, residual, round_to.
        size: for multiply-accumulates and latency.

    Raises:
        ConfigError: the ratio would empty a layer, or the target is out of reach.
    """
    channels = {name: group.channels for name, group in groups.items() if config.residual or group.inside_block}

    def counts_at(ratio: float) -> Counts:
        return counts_left(channels, dict.fromkeys(channels, ratio), config.round_to)

    if config.target is None:
        return counts_at(config.ratio)
    if config.target.macs is not None:
        kind, wanted, cost, bisections = "macs", config.target.macs, macs_share(network, groups, size), MACS_BISECTIONS
    else:
        assert config.target.latency is not None
        cost = latency_share(network, groups, size)
        kind, wanted, bisections = "latency", config.target.latency, LATENCY_BISECTIONS
    low, high = 0.0, max(0.0, 1 - config.round_to / min(channels.values()))
    if (reachable := cost(counts_at(high))) > wanted:
        raise ConfigError(
            f"prune.target {kind} {wanted} is out of reach: between {reachable:.3g} and 1 of the teacher's {kind} can "
            f"be left with residual {config.residual} and round_to {config.round_to}."
        )
    for _ in range(bisections):
        middle = (low + high) / 2
        low, high = (middle, high) if cost(counts_at(middle)) > wanted else (low, middle)
    logger.info("prune.target %s %g is met at ratio %.4f", kind, wanted, high)
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
        after = _widths_left(network, groups, counts)
        left = [count * cost(name, after) / cost(name, widths) for name, count in macs.items()]
        return sum(left) / sum(macs.values())

    return share


def latency_share(network: nn.Module, groups: Mapping[str, ChannelGroup], size: int) -> CostShare:
    """Measure by latency on this machine: PyTorch on the CPU in FP32, one image of `size` pixels, both in turns.

    PyTorch rather than what is exported, so that searching takes seconds; stage benchmark measures the latter.
    """
    network, image = copy.deepcopy(network).cpu(), torch.zeros(1, 3, size, size)

    @torch.inference_mode()
    def share(counts: Counts) -> float:
        smaller = with_widths(network, _widths_left(network, groups, counts), size)
        calls = {"teacher": lambda: network(image), "pruned": lambda: smaller(image)}
        timings = measure_latency(
            calls, baselines={"pruned": "teacher"}, warmup=3, window=10, windows_max=30, interval=0.05
        )
        speedup = timings["pruned"].speedup
        assert speedup is not None
        if speedup.too_wide:
            logger.warning("how much faster this pruning is varies too much to tell here: leave the machine idle")
        return 1 / speedup.value

    return share


def _widths_left(network: nn.Module, groups: Mapping[str, ChannelGroup], counts: Counts) -> Widths:
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
