"""Fragile groups lose fewer channels, robust ones more, at the same computation.

The rule: what pruning a group alone costs in millimetres, e_g(r), was measured at a few ratios and is interpolated.
Errors of independent groups add up in squares, so the ratios r_g minimise sum_g e_g(r_g)^2 + price * MACs, with one
price for all groups, which is bisected until the network has the multiply-accumulates that are asked for.

Source: sensitivity as in Li et al., ICLR 2017 (arXiv:1608.08710); one multiplier for all as in Shoham and Gersho,
"Efficient bit allocation for an arbitrary set of quantizers", 1988.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from leanface.config import Prune
from leanface.errors import ArtifactError, ConfigError
from leanface.pruning.cost_share import CostShare
from leanface.pruning.scopes import Counts, least_left

Errors = dict[str, dict[float, float]]
"""Vertex error in mm against the original after pruning one group alone, by group and ratio."""

BISECTIONS = 40


def read_errors(path: Path) -> Errors:
    """What stage analyze measured.

    Raises:
        ArtifactError: the file is missing or is something else.
    """
    try:
        groups: dict[str, Any] = json.loads(path.read_text())["groups"]
        return {
            name: {float(ratio): float(error["vertex_mm"]) for ratio, error in group["errors"].items()}
            for name, group in groups.items()
        }
    except FileNotFoundError:
        raise ArtifactError(f"{path} is missing; run `dvc repro analyze`.") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{path} is no sensitivity report ({error!r}); run `dvc repro -f analyze`.") from None


def errors_for(settings: Prune, path: Path) -> Errors:
    """What stage analyze measured, if the allocation goes by it.

    Raises:
        ArtifactError: as `read_errors`.
    """
    return read_errors(path) if settings.allocation == "sensitivity" else {}


def sensitive_counts(
    channels: Mapping[str, int], errors: Errors, macs: CostShare, budget: float, round_to: int, max_ratio: float
) -> Counts:
    """What is left of every group, in multiples of `round_to`.

    Args:
        channels: how many each group has.
        errors: of these groups, and maybe of others.
        macs: share of multiply-accumulates that is left.
        budget: the largest share allowed; the result has the most that does not exceed it.
        round_to: of the counts.
        max_ratio: the most that a group loses.

    Raises:
        ArtifactError: a group was not measured.
        ConfigError: the budget is out of reach.
    """
    if missing := sorted(set(channels) - set(errors)):
        raise ArtifactError(f"the sensitivity report lacks {missing[:3]}; run `dvc repro -f analyze`.")
    options = {name: _Options(whole, errors[name], macs, name, round_to, max_ratio) for name, whole in channels.items()}

    def at(price: float) -> Counts:
        return {name: option.best(price) for name, option in options.items()}

    budget += 1e-9  # for the rounding of a budget that is itself a sum of shares
    least = macs({name: int(option.counts[0]) for name, option in options.items()})
    if least > budget:
        raise ConfigError(
            f"allocation sensitivity leaves {least:.3g} of the MACs at least (prune.max_ratio {max_ratio}, "
            f"prune.round_to {round_to}), {budget:.3g} were asked for; use a lower ratio or a higher max_ratio."
        )
    low, high = 0.0, 1.0
    while macs(at(high)) > budget:
        low, high = high, 4 * high
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if macs(at(middle)) > budget else (low, middle)
    return at(high)


class _Options:
    """The counts that one group may have, the square of what each costs alone, and the MACs that each saves alone."""

    def __init__(
        self, whole: int, errors: Mapping[float, float], macs: CostShare, name: str, round_to: int, max_ratio: float
    ) -> None:
        counts = range(least_left(whole, round_to, max_ratio), whole, round_to)
        self.counts = np.array([*counts, whole])
        ratios = 1 - self.counts / whole
        # Nothing lost costs nothing; beyond the last measured ratio the last slope goes on.
        known = [0.0, *sorted(errors)]
        costs = [0.0, *(errors[ratio] for ratio in known[1:])]
        slope = (costs[-1] - costs[-2]) / (known[-1] - known[-2])
        beyond = np.clip(ratios - known[-1], 0, None) * max(slope, 0.0)
        self.squares = (np.interp(ratios, known, costs) + beyond) ** 2
        self.saved = np.array([1 - macs({name: int(count)}) for count in self.counts])

    def best(self, price: float) -> int:
        return int(self.counts[np.argmin(self.squares - price * self.saved)])
