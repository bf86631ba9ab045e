"""Removes whole channels from a network, and everything that depends on them."""

import copy
import math
from collections.abc import Mapping
from typing import NamedTuple, cast

import torch

from leanface.config import Prune
from leanface.errors import ConfigError
from leanface.networks.resnet import FaceReconstructionNet, widths_of
from leanface.pruning.groups import ChannelGraph, coupled_groups
from leanface.pruning.importance import Importance, build_importance

Kept = dict[str, list[int]]
"""The pruning record: which of the original's output channels each convolution kept, in its own order."""


class PruneResult(NamedTuple):
    """A smaller network (in eval mode, without gradients) and its pruning record."""

    network: FaceReconstructionNet
    kept: Kept


def prune(network: FaceReconstructionNet, config: Prune, seed: int) -> PruneResult:
    """Remove the same share of the least important channels of every group of coupled convolutions.

    `network` itself is left as it is; the heads keep all their outputs.

    Raises:
        ConfigError: the ratio would empty a convolution, or the criterion is wrong.
    """
    ratios = dict.fromkeys(coupled_groups(network), config.ratio)
    return prune_channels(network, ratios, build_importance(config.importance), round_to=config.round_to, seed=seed)


def prune_channels(
    network: FaceReconstructionNet,
    ratios: Mapping[str, float],
    importance: Importance,
    *,
    round_to: int = 1,
    seed: int = 0,
) -> PruneResult:
    """A copy of `network` without the least important channels of the groups that `ratios` names.

    Args:
        network: in eval mode.
        ratios: share of its channels that a group loses, by its name in `coupled_groups`; other groups stay whole.
        importance: scores the channels of a group.
        round_to: what is left of a group is rounded down to a multiple of it.
        seed: of criteria that leave it to chance.

    Raises:
        ConfigError: a ratio would empty a convolution.
    """
    groups = coupled_groups(network)
    widths = widths_of(network)
    counts = {group: channels_left(group, widths[group][1], ratio, round_to) for group, ratio in ratios.items()}
    pruned = copy.deepcopy(network).eval()
    graph = ChannelGraph(pruned)
    kept = {name: list(range(outputs)) for name, (_, outputs) in widths.items()}
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        scores = {name: importance(group.dependencies) for name, group in graph.groups().items() if name in counts}
    for name, score in scores.items():
        if score is None:
            continue
        order = cast(list[int], torch.argsort(score, stable=True).tolist())
        gone = sorted(order[: len(order) - counts[name]])
        if gone:
            graph.remove(name, gone)
        for convolution in groups[name]:
            kept[convolution] = sorted(set(kept[convolution]) - set(gone))
    return PruneResult(pruned, kept)


def channels_left(group: str, channels: int, ratio: float, round_to: int) -> int:
    """How many channels a group keeps.

    Raises:
        ConfigError: none.
    """
    if ratio == 0:
        return channels
    left = math.floor(channels * (1 - ratio) + 1e-9)  # 80 times (1 - 0.9) is 8, not 7.99...
    if left < round_to:
        raise ConfigError(
            f"pruning ratio {ratio} leaves {left} of {group}'s {channels} channels, which prune.round_to {round_to} "
            f"rounds down to none; use a ratio of at most {1 - round_to / channels:.3g} or a smaller round_to."
        )
    return left - left % round_to
