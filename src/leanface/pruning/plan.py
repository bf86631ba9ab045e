"""How many channels every group keeps: by a ratio, or by what the network may cost."""

import logging

from leanface.config import Prune
from leanface.errors import ConfigError
from leanface.networks.resnet import FaceReconstructionNet
from leanface.pruning.allocation import Errors, sensitive_counts
from leanface.pruning.cost_share import latency_share, macs_share
from leanface.pruning.prune import Scorer
from leanface.pruning.scopes import Counts, largest_ratio, least_left, ranked_counts

logger = logging.getLogger(__name__)

MACS_BISECTIONS = 16
LATENCY_BISECTIONS = 7
"""Timing tells a hundredth of the ratio, not more."""


def plan(network: FaceReconstructionNet, scorer: Scorer, config: Prune, size: int, errors: Errors) -> Counts:
    """Decide, for a network that reads images of `size` pixels; stem and streams have no count if they stay whole.

    A target is met by bisection: of the ratio, or, where sensitivity allots, of the multiply-accumulates that go.

    Args:
        network: the original.
        scorer: of the original's channels.
        config: ratio or target, scope, residual, allocation.
        size: for multiply-accumulates and latency.
        errors: what pruning each group alone costs; only allocation sensitivity reads them.

    Raises:
        ConfigError: the ratio would empty a layer, or the target is out of reach.
    """
    groups, round_to, max_ratio = scorer.groups, config.round_to, config.max_ratio
    scores = {name: score for name, score in scorer.scores.items() if config.residual or groups[name].inside_block}
    channels = {name: scorer.channels[name] for name in scores}
    macs = macs_share(network, groups, size)

    def uniform(ratio: float) -> Counts:
        return ranked_counts(groups, scores, config.scope, ratio, round_to, max_ratio)

    def sensitive(saved: float) -> Counts:
        return sensitive_counts(channels, errors, macs, 1 - saved, round_to, max_ratio)

    by_sensitivity, target = config.allocation == "sensitivity", config.target
    if target is None:
        counts = uniform(config.ratio)
        return sensitive(1 - macs(counts)) if by_sensitivity else counts
    if by_sensitivity:
        least = {name: least_left(whole, round_to, max_ratio) for name, whole in channels.items()}
        knob, low, high = sensitive, 0.0, 1 - macs(least)
    else:
        knob, low, high = uniform, 0.0, largest_ratio(groups, scores, config.scope, round_to, max_ratio)
    if target.macs is not None:
        kind, wanted, cost, bisections = "macs", target.macs, macs, MACS_BISECTIONS
    else:
        assert target.latency is not None
        cost = latency_share(network, groups, size)
        kind, wanted, bisections = "latency", target.latency, LATENCY_BISECTIONS
    if (reachable := cost(knob(high))) > wanted:
        raise ConfigError(
            f"prune.target {kind} {wanted} is out of reach: between {reachable:.3g} and 1 of the original's {kind} can "
            f"be left with residual {config.residual}, scope {config.scope}, round_to {round_to} and max_ratio "
            f"{max_ratio}."
        )
    for _ in range(bisections):
        middle = (low + high) / 2
        low, high = (middle, high) if cost(knob(middle)) > wanted else (low, middle)
    what = "a share of MACs removed of" if by_sensitivity else "ratio"
    logger.info("prune.target %s %g is met at %s %.4f", kind, wanted, what, high)
    return knob(high)
