"""How many channels each group keeps, when channels are ranked within a group or across groups."""

import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping

import torch
from torch import Tensor

from leanface.errors import ConfigError
from leanface.pruning.groups import ChannelGroup

Counts = dict[str, int]
"""How many channels a group keeps, by the group's name."""

Scores = dict[str, Tensor]
"""What each of its channels is worth, by the group's name."""


def _alone(name: str, group: ChannelGroup) -> Hashable:
    return name


def _together(name: str, group: ChannelGroup) -> Hashable:
    return None


def _alike(name: str, group: ChannelGroup) -> Hashable:
    return group.structure()


SCOPES: dict[str, Callable[[str, ChannelGroup], Hashable]] = {
    "local": _alone,
    "global": _together,
    "isomorphic": _alike,
}
"""Groups for which this gives the same are ranked together: none, all, or those that the same layers make up.

Source: isomorphic pruning is Fang et al., ECCV 2024 (arXiv:2407.04616).
"""


def local_counts(channels: Mapping[str, int], ratios: Mapping[str, float], round_to: int) -> Counts:
    """What is left of every group of `ratios` after it loses that share, rounded down to a multiple of `round_to`.

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


def ranked_counts(
    groups: Mapping[str, ChannelGroup], scores: Scores, scope: str, ratio: float, round_to: int, max_ratio: float
) -> Counts:
    """What is left of every group if the least important channels of each scope go, `ratio` of them.

    A group that shares its scope with others loses `max_ratio` of its channels at most. What is left is rounded down
    to a multiple of `round_to`.

    Raises:
        ConfigError: a scope has fewer channels to give.
    """
    counts: Counts = {}
    for names in _ranked_with(groups, scores, scope):
        if len(names) == 1:
            channels = {name: len(scores[name]) for name in names}
            counts |= local_counts(channels, dict.fromkeys(names, ratio), round_to)
        else:
            counts |= _ranked_together({name: scores[name] for name in names}, ratio, round_to, max_ratio)
    return counts


def largest_ratio(
    groups: Mapping[str, ChannelGroup], scores: Scores, scope: str, round_to: int, max_ratio: float
) -> float:
    """The largest `ratio` that `ranked_counts` does not refuse."""
    shares: list[float] = []
    for names in _ranked_with(groups, scores, scope):
        channels = [len(scores[name]) for name in names]
        least = [round_to] if len(names) == 1 else [least_left(count, round_to, max_ratio) for count in channels]
        shares.append(1 - sum(least) / sum(channels))
    return max(0.0, min(shares))


def least_left(channels: int, round_to: int, max_ratio: float) -> int:
    """The smallest multiple of `round_to` that leaves a group at least 1 - `max_ratio` of its channels."""
    return min(channels, max(1, math.ceil(channels * (1 - max_ratio) / round_to - 1e-9)) * round_to)


def _ranked_with(groups: Mapping[str, ChannelGroup], scores: Scores, scope: str) -> list[list[str]]:
    """The groups that have scores, those together that are ranked together."""
    members: dict[Hashable, list[str]] = defaultdict(list)
    for name in scores:
        members[SCOPES[scope](name, groups[name])].append(name)
    return list(members.values())


def _ranked_together(scores: Scores, ratio: float, round_to: int, max_ratio: float) -> Counts:
    least = {name: least_left(len(score), round_to, max_ratio) for name, score in scores.items()}
    # The channels that a group must keep are not up for ranking.
    loose = {name: score.sort().values[: len(score) - least[name]] for name, score in scores.items()}
    ranked = torch.cat(list(loose.values()))
    total = sum(len(score) for score in scores.values())
    lost = total - math.floor(total * (1 - ratio) + 1e-9)
    if lost > len(ranked):
        raise ConfigError(
            f"prune.ratio {ratio:.3g} asks for {lost} of the {total} channels that are ranked together; "
            f"prune.max_ratio {max_ratio} and prune.round_to {round_to} leave {len(ranked)} to take: use a ratio of at "
            f"most {math.floor(1000 * len(ranked) / total) / 1000} or a higher max_ratio."
        )
    owner = torch.cat([torch.full((len(score),), index) for index, score in enumerate(loose.values())])
    losses = torch.bincount(owner[torch.argsort(ranked, stable=True)[:lost]], minlength=len(scores))
    counts: Counts = {}
    for (name, score), loss in zip(scores.items(), map(int, losses), strict=True):
        left = len(score) - loss
        counts[name] = left - left % round_to if loss else left
    return counts
