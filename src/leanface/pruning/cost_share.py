"""What share of the original's computation or time a network of other widths takes."""

import copy
import logging
from collections.abc import Callable, Mapping

import torch

from leanface.metrics.latency import measure_latency
from leanface.networks.resnet import FaceReconstructionNet, Widths, build_network, widths_of
from leanface.pruning.cost import layer_costs
from leanface.pruning.groups import ChannelGroup
from leanface.pruning.scopes import Counts

logger = logging.getLogger(__name__)

CostShare = Callable[[Counts], float]
"""Cost of a network with so many channels left in each group, or all where none are named; the original's is 1."""


def macs_share(network: FaceReconstructionNet, groups: Mapping[str, ChannelGroup], size: int) -> CostShare:
    """By multiply-accumulates for one image of `size` pixels; exact, without building the smaller network."""
    widths = widths_of(network)
    macs = {name: cost.macs for name, cost in layer_costs(network, size).items()}

    def share(counts: Counts) -> float:
        after = _widths_left(widths, groups, counts)
        left = [
            count * after[name][0] * after[name][1] / (widths[name][0] * widths[name][1])
            for name, count in macs.items()
        ]
        return sum(left) / sum(macs.values())

    return share


def latency_share(network: FaceReconstructionNet, groups: Mapping[str, ChannelGroup], size: int) -> CostShare:
    """By latency on this machine: PyTorch on the CPU in FP32, one image of `size` pixels, both networks in turns.

    PyTorch rather than what is exported, so that searching takes seconds; stage benchmark measures the latter.
    """
    widths = widths_of(network)
    network, image = copy.deepcopy(network).cpu(), torch.zeros(1, 3, size, size)

    @torch.inference_mode()
    def share(counts: Counts) -> float:
        smaller = build_network(_widths_left(widths, groups, counts)).eval()
        calls = {"original": lambda: network(image), "pruned": lambda: smaller(image)}
        timings = measure_latency(calls, warmup=3, window=10, windows_max=30, stability=0.05)
        for name, timing in timings.items():
            if timing.status != "stable":
                logger.warning("the %s network's latency does not settle: %s", name, timing.reason)
        return timings["pruned"].p50_ms / timings["original"].p50_ms

    return share


def _widths_left(widths: Widths, groups: Mapping[str, ChannelGroup], counts: Counts) -> Widths:
    outputs = {name: count for group, count in counts.items() for name in groups[group].convolutions}
    inputs = {name: count for group, count in counts.items() for name in groups[group].consumers}
    return {name: (inputs.get(name, before[0]), outputs.get(name, before[1])) for name, before in widths.items()}
