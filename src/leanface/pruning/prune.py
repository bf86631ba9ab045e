"""Removes the least important channels of a network, and re-fits what is left to the teacher's responses."""

import copy
from collections.abc import Mapping
from typing import NamedTuple, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from leanface.config import Prune
from leanface.errors import ConfigError
from leanface.networks.widths import widths_of, without_blocks
from leanface.pruning.compensate import LayerFit, compensate
from leanface.pruning.gradients import Calibration, observe_gradients
from leanface.pruning.groups import TRACING_SIZE, ChannelGraph, KeptChannels
from leanface.pruning.importance import GradientImportance, Importance, build_importance
from leanface.pruning.plan import Architecture, Counts, counts_left, plan
from leanface.task import Task


class PruneResult(NamedTuple):
    """A smaller network (in eval mode, without gradients) and its pruning record."""

    network: nn.Module
    kept: KeptChannels


class Pruned(NamedTuple):
    """What became of a network (all in eval mode).

    Attributes:
        network: the result.
        kept: its pruning record.
        states: the network before the re-fit ("pruned") and after it ("compensated"), if that was asked for.
        fits: of the re-fit.
    """

    network: nn.Module
    kept: KeptChannels
    states: dict[str, nn.Module]
    fits: list[LayerFit]


def prune(
    teacher: nn.Module,
    config: Prune,
    images: Float[Tensor, "batch 3 height width"],
    task: Task,
    seed: int,
    architecture: Architecture | None = None,
) -> Pruned:
    """Remove the least important channels of every group of coupled convolutions; `teacher` is left as it is.

    Args:
        teacher: in eval mode.
        config: everything that can be chosen.
        images: for the re-fit, in [0,1]; gradient-based criteria look at the first `config.gradient_count`.
        task: what the outputs mean, for gradient-based criteria.
        seed: of what is left to chance.
        architecture: what is to be left, in place of the ratio or target of `config`.

    Raises:
        ConfigError: the ratio would empty a layer, the target is out of reach, or the criterion is wrong.
    """
    calibration = Calibration(images[: config.gradient_count], task)
    shallower = teacher if architecture is None else without_blocks(copy.deepcopy(teacher), architecture.dropped)
    scorer = Scorer(shallower, build_importance(config.importance), seed, calibration, images.shape[-1])
    groups = {name: scorer.groups[name] for name in scorer.scores}
    counts = plan(teacher, groups, config, images.shape[-1]) if architecture is None else architecture.counts
    network, kept = scorer.keep(counts)
    states, fits = {"pruned": network}, list[LayerFit]()
    if config.compensate:
        network, fits = compensate(network, teacher, kept, images, config.ridge, config.position_share)
        states["compensated"] = network
    return Pruned(network, kept, states, fits)


def prune_channels(
    network: nn.Module,
    ratios: Mapping[str, float],
    importance: Importance,
    *,
    round_to: int = 1,
    seed: int = 0,
    calibration: Calibration | None = None,
    image_size: int = TRACING_SIZE,
) -> PruneResult:
    """Copy `network` without the least important channels of the groups that `ratios` names, and without a re-fit.

    Args:
        network: in eval mode.
        ratios: share of its channels that a group loses, by its name in `ChannelGraph.groups`; others stay whole.
        importance: scores the channels of a group.
        round_to: what is left of a group is rounded down to a multiple of it.
        seed: of criteria that leave it to chance.
        calibration: what gradient-based criteria look at; others need none.
        image_size: of the images that the network reads (px).

    Raises:
        ConfigError: a ratio would empty a convolution, or the criterion needs `calibration`.
    """
    scorer = Scorer(network, importance, seed, calibration, image_size)
    return scorer.keep(counts_left(scorer.channels, ratios, round_to))


class Scorer:
    """A copy of a network, its channels scored, from which the least important may be taken once.

    Attributes:
        groups: the coupled groups of the network.
        channels: how many each has.
        scores: of every channel, by group; groups that the criterion cannot judge are left out.
    """

    def __init__(
        self,
        network: nn.Module,
        importance: Importance | Mapping[str, Tensor],
        seed: int,
        calibration: Calibration | None,
        image_size: int = TRACING_SIZE,
    ) -> None:
        """Score the channels.

        Args:
            importance: a criterion, or the scores that one gave to all groups before.

        Raises:
            ConfigError: the criterion looks at gradients, and there is no `calibration`.
        """
        self._network = copy.deepcopy(network).eval()
        self._graph = ChannelGraph(self._network, image_size)
        self.groups = self._graph.groups()
        self.channels = {name: group.channels for name, group in self.groups.items()}
        if isinstance(importance, Mapping):
            self.scores = {name: importance[name] for name in self.groups if name in importance}
            return
        if isinstance(importance, GradientImportance):
            if calibration is None:
                raise ConfigError(f"{type(importance).__name__} looks at gradients: it needs calibration images.")
            observe_gradients(self._network, calibration, importance.observe, seed)
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(seed)
            scores = {name: importance(group.dependencies) for name, group in self.groups.items()}
        self._network.zero_grad()
        self.scores = {name: score.cpu() for name, score in scores.items() if score is not None}

    def keep(self, counts: Counts) -> PruneResult:
        """Keep this many channels of each group; groups without a count stay whole."""
        kept = {name: list(range(outputs)) for name, (_, outputs) in widths_of(self._network).items()}
        for name, score in self.scores.items():
            order = cast(list[int], torch.argsort(score, stable=True).tolist())
            gone = sorted(order[: len(order) - counts.get(name, len(order))])
            if gone:
                self._graph.remove(name, gone)
            for convolution in self.groups[name].convolutions:
                kept[convolution] = sorted(set(kept[convolution]) - set(gone))
        return PruneResult(self._network, kept)
