"""How many channels every group keeps: by a ratio, or by what the network may cost."""

import logging
from typing import NamedTuple

from leanface.config import Prune
from leanface.errors import ConfigError
from leanface.networks.resnet import FaceReconstructionNet
from leanface.pruning.allocation import Errors, sensitive_counts
from leanface.pruning.cost_share import latency_share, macs_share
from leanface.pruning.prune import Scorer
from leanface.pruning.scopes import Counts, largest_ratio, ranked_counts

logger = logging.getLogger(__name__)

MACS_BISECTIONS = 16
LATENCY_BISECTIONS = 7
"""Timing tells a hundredth of the ratio, not more."""


class Plan(NamedTuple):
    """Channels that are left, and the ratio that leads there."""

    counts: Counts
    ratio: float


def plan(network: FaceReconstructionNet, scorer: Scorer, config: Prune, size: int, errors: Errors) -> Plan:
    """Decide, for a network that reads images of `size` pixels.

    With a target, the smallest ratio that meets it is bisected.

    Args:
        network: the original.
        scorer: of the original's channels.
        config: ratio or target, scope, residual, allocation.
        size: for multiply-accumulates and latency.
        errors: what pruning each group alone costs; only allocation sensitivity reads them.

    Raises:
        ConfigError: the ratio would empty a layer, or the target is out of reach.
    """
    inside = {name for name, group in scorer.groups.items() if config.residual or group.inside_block}
    scores = {name: score for name, score in scorer.scores.items() if name in inside}
    limits = config.scope, config.round_to, config.max_ratio
    macs = macs_share(network, scorer.groups, size)

    def counts(ratio: float) -> Counts:
        scope, round_to, max_ratio = limits
        uniform = ranked_counts(scorer.groups, scores, scope, ratio, round_to, max_ratio)
        if config.allocation == "uniform" or ratio == 0:
            return uniform
        channels = {name: scorer.channels[name] for name in scores}
        return sensitive_counts(channels, errors, macs, macs(uniform), round_to, max_ratio)

    target = config.target
    if target is None:
        return Plan(counts(config.ratio), config.ratio)
    if target.macs is not None:
        kind, wanted, cost, bisections = "macs", target.macs, macs, MACS_BISECTIONS
    else:
        assert target.latency is not None
        cost = latency_share(network, scorer.groups, size)
        kind, wanted, bisections = "latency", target.latency, LATENCY_BISECTIONS
    low, high = 0.0, largest_ratio(scorer.groups, scores, *limits)
    if (least := cost(counts(high))) > wanted:
        raise ConfigError(
            f"prune.target {kind} {wanted} is out of reach: between {least:.3g} and 1 of the original's {kind} can be "
            f"left with residual {config.residual}, scope {config.scope}, round_to {config.round_to} and max_ratio "
            f"{config.max_ratio}."
        )
    for _ in range(bisections):
        middle = (low + high) / 2
        low, high = (middle, high) if cost(counts(middle)) > wanted else (low, middle)
    logger.info("prune.target %s %g is met at ratio %.4f", kind, wanted, high)
    return Plan(counts(high), high)
