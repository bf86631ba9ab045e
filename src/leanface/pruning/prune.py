"""Removes whole channels from a network, and everything that depends on them.

Source: dependency groups as in Fang et al., DepGraph, CVPR 2023 (arXiv:2301.12900).
"""

import copy
from typing import Any, NamedTuple

import torch
from torch_pruning.pruner import BasePruner, function

from leanface.config import Prune
from leanface.errors import ConfigError
from leanface.networks.resnet import FaceReconstructionNet, widths_of
from leanface.pruning.importance import build_importance

Kept = dict[str, list[int]]
"""The pruning record: which of the original's output channels each convolution kept, in its own order."""

TRACING_SIZE = 64
"""Image size for tracing the dependencies, which do not depend on it."""


class PruneResult(NamedTuple):
    """A smaller network (in eval mode, without gradients) and its pruning record."""

    network: FaceReconstructionNet
    kept: Kept


def prune(network: FaceReconstructionNet, config: Prune, seed: int) -> PruneResult:
    """Remove the least important channels of every group of coupled convolutions.

    The same share goes from every group, the residual streams included; what is left is rounded down to a
    multiple of `config.round_to`. The heads keep all their outputs. `network` itself is left as it is.

    Raises:
        ConfigError: the ratio would empty a convolution, or the criterion is wrong.
    """
    pruned = copy.deepcopy(network).eval()
    widths = widths_of(pruned)
    names = {pruned.get_submodule(name): name for name in widths}
    kept = {name: list(range(outputs)) for name, (_, outputs) in widths.items()}
    _check_ratio(config, min(outputs for name, (_, outputs) in widths.items() if name.startswith("backbone.")))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        pruner: Any = BasePruner(
            pruned,
            torch.zeros(1, 3, TRACING_SIZE, TRACING_SIZE),
            importance=build_importance(config.importance),
            pruning_ratio=config.ratio,
            round_to=config.round_to,
            ignored_layers=list(pruned.final_layers),
        )
        for group in pruner.step(interactive=True):
            # The record is taken from the very indices that are removed, so it is exact by construction.
            for dependency, indices in group:
                if dependency.handler == function.prune_conv_out_channels:
                    name, gone = names[dependency.target.module], set(indices)
                    kept[name] = [channel for place, channel in enumerate(kept[name]) if place not in gone]
            group.prune()
    pruned.zero_grad()  # tracing left gradients of the old shapes
    return PruneResult(pruned, kept)


def _check_ratio(config: Prune, smallest: int) -> None:
    """Refuse what torch-pruning would skip in silence, leaving that group whole."""
    left = int(smallest * (1 - config.ratio))
    if config.ratio > 0 and left < config.round_to:
        raise ConfigError(
            f"prune.ratio {config.ratio} leaves {left} of the smallest convolution's {smallest} channels, "
            f"which prune.round_to {config.round_to} rounds down to none; use a ratio of at most "
            f"{1 - config.round_to / smallest:.3g} or a smaller round_to."
        )
