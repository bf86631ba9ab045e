"""Share out width and depth at equal cost: Optuna proposes patterns, by what came of those before.

Every case is measured at the same cost, so its error alone says how good a pattern is.

Source: Bergstra et al., "Algorithms for Hyper-Parameter Optimization", NeurIPS 2011 (the tree-structured Parzen
estimator); Akiba et al., "Optuna", KDD 2019.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import NamedTuple

import optuna
from optuna.samplers import BaseSampler

from leanface.search.space import Pattern

WIDEST = 1.3
"""Groups of a kind are at most so many times as wide, or as narrow, as a uniform network's: few cases are too few to
find the best in a wide space, most of which is worse than the uniform network."""

Errors = Callable[[Pattern], float | None]
"""The error of a pattern at the cost that is searched at; None: it cannot be that cheap."""


class Trial(NamedTuple):
    """A pattern that was measured."""

    pattern: Pattern
    error: float


def improve(
    kinds: Iterable[str], blocks: Iterable[str], error: Errors, cases: int, sampler: BaseSampler
) -> list[Trial]:
    """Measure so many patterns, the uniform one first; return those that can be so cheap, the best first.

    A sampler with a seed proposes the same patterns again if it is told the same errors: so a search that was stopped
    goes on if `error` remembers.

    Args:
        kinds: of groups, each of which is made wider or narrower.
        blocks: that may be dropped; of those in the same module at most the last half is.
    """
    kinds, stages = list(kinds), defaultdict[str, list[str]](list)
    for block in blocks:
        stages[block.rpartition(".")[0]].append(block)
    tried: list[Trial] = []

    def objective(trial: optuna.Trial) -> float:
        factors = {kind: trial.suggest_float(kind, 1 / WIDEST, WIDEST, log=True) for kind in kinds}
        dropped: list[str] = []
        for stage, blocks in stages.items():
            dropped += blocks[len(blocks) - trial.suggest_int(f"{stage} dropped", 0, (len(blocks) + 1) // 2) :]
        pattern = Pattern(frozenset(dropped), factors)
        found = error(pattern)
        if found is None:
            raise optuna.TrialPruned
        tried.append(Trial(pattern, found))
        return found

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=sampler)
    study.enqueue_trial({**dict.fromkeys(kinds, 1.0), **{f"{stage} dropped": 0 for stage in stages}})
    study.optimize(objective, n_trials=cases)
    return sorted(tried, key=lambda trial: trial.error)
