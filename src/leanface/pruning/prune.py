"""Removes whole channels from a network, and everything that depends on them."""

import copy
from collections.abc import Mapping
from typing import NamedTuple, cast

import torch

from leanface.errors import ConfigError
from leanface.networks.resnet import FaceReconstructionNet, widths_of
from leanface.pruning.gradients import Calibration, observe_gradients
from leanface.pruning.groups import ChannelGraph
from leanface.pruning.importance import GradientImportance, Importance
from leanface.pruning.scopes import Counts, Scores, local_counts

Kept = dict[str, list[int]]
"""The pruning record: which of the original's output channels each convolution kept, in its own order."""


class PruneResult(NamedTuple):
    """A smaller network (in eval mode, without gradients) and its pruning record."""

    network: FaceReconstructionNet
    kept: Kept


def prune_channels(
    network: FaceReconstructionNet,
    ratios: Mapping[str, float],
    importance: Importance,
    *,
    round_to: int = 1,
    seed: int = 0,
    calibration: Calibration | None = None,
) -> PruneResult:
    """A copy of `network` without the least important channels of the groups that `ratios` names.

    Args:
        network: in eval mode.
        ratios: share of its channels that a group loses, by its name in `coupled_groups`; other groups stay whole.
        importance: scores the channels of a group.
        round_to: what is left of a group is rounded down to a multiple of it.
        seed: of criteria that leave it to chance.
        calibration: what gradient-based criteria look at; others need none.

    Raises:
        ConfigError: a ratio would empty a convolution, or the criterion needs `calibration`.
    """
    scorer = Scorer(network, importance, seed, calibration)
    return scorer.keep(local_counts(scorer.channels, ratios, round_to))


class Scorer:
    """A copy of a network, its channels scored, from which the least important may be taken once.

    Attributes:
        groups: the coupled groups of the network.
        channels: how many each has.
        scores: of every channel, by group; groups that the criterion cannot judge are left out.
    """

    def __init__(
        self, network: FaceReconstructionNet, importance: Importance, seed: int, calibration: Calibration | None
    ) -> None:
        self._network = copy.deepcopy(network).eval()
        self._graph = ChannelGraph(self._network)
        self.groups = self._graph.groups()
        self.channels = {name: group.channels for name, group in self.groups.items()}
        if isinstance(importance, GradientImportance):
            if calibration is None:
                raise ConfigError(f"{type(importance).__name__} looks at gradients: it needs calibration images.")
            observe_gradients(self._network, calibration, importance.observe, seed)
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(seed)
            scores = {name: importance(group.dependencies) for name, group in self.groups.items()}
        self._network.zero_grad()
        self.scores: Scores = {name: score.cpu() for name, score in scores.items() if score is not None}

    def keep(self, counts: Counts) -> PruneResult:
        """The network with this many channels left in each group; groups without a count stay whole."""
        kept = {name: list(range(outputs)) for name, (_, outputs) in widths_of(self._network).items()}
        for name, score in self.scores.items():
            order = cast(list[int], torch.argsort(score, stable=True).tolist())
            gone = sorted(order[: len(order) - counts.get(name, len(order))])
            if gone:
                self._graph.remove(name, gone)
            for convolution in self.groups[name].convolutions:
                kept[convolution] = sorted(set(kept[convolution]) - set(gone))
        return PruneResult(self._network, kept)
