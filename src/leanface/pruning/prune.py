"""Removes whole channels from a network, and everything that depends on them.

Source: dependency groups as in Fang et al., DepGraph, CVPR 2023 (arXiv:2301.12900).
"""

import copy
from typing import Any, NamedTuple

import torch
from torch import nn
from torch_pruning import prune_conv_out_channels
from torch_pruning.pruner import BasePruner

from leanface.config import Prune
from leanface.errors import ConfigError
from leanface.networks.resnet import FaceReconstructionNet
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

    The same share goes from every group, the residual streams included; what is left is rounded down to a multiple of
    `config.round_to`. The heads keep all their outputs. `network` itself is left as it is.

    Raises:
        ConfigError: the ratio would empty a convolution, or the criterion is wrong.
    """
    pruned = copy.deepcopy(network).eval()
    names = {module: name for name, module in pruned.named_modules() if isinstance(module, nn.Conv2d)}
    kept = {name: list(range(conv.out_channels)) for conv, name in names.items()}
    heads = list(pruned.final_layers)
    _check_ratio(config, min(conv.out_channels for conv in names if conv not in heads))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        pruner: Any = BasePruner(
            pruned,
            torch.zeros(1, 3, TRACING_SIZE, TRACING_SIZE),
            importance=build_importance(config.importance),
            pruning_ratio=config.ratio,
            round_to=config.round_to,
            ignored_layers=heads,
        )
        for group in pruner.step(interactive=True):
            # The record is taken from the very indices that are removed, so it is exact by construction.
            for dependency, indices in group:
                if dependency.handler == prune_conv_out_channels:
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
            f"prune.ratio {config.ratio} leaves {left} of the smallest convolution's {smallest} channels, which "
            f"prune.round_to {config.round_to} rounds down to none; use a ratio of at most "
            f"{1 - config.round_to / smallest:.3g} or a smaller round_to."
        )
