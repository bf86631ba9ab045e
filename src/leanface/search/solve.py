"""Share out width and depth at equal cost by trying: pattern search with exact checks.

Every case is measured at the same cost, so its error alone says whether a move was good. Moves that help are tried
together, as many at a time as still help: what they do to each other is measured, not assumed.

Source: Hooke and Jeeves, "Direct Search" Solution of Numerical and Statistical Problems, J. ACM 8, 1961.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import NamedTuple

from leanface.search.space import UNIFORM, Pattern

NARROWER, WIDER = 0.8, 1.25
"""A move makes the groups of a kind so much narrower or wider, and all others a little the other way."""

LOSS = 0.01
"""A move that raises the error by more than this share is not tried again."""

Errors = Callable[[Pattern], float | None]
"""The error of a pattern at the cost that is searched at; None: it cannot be that cheap."""


class Move(NamedTuple):
    """One change of a pattern: of a kind's width, or a block dropped (`factor` None)."""

    name: str
    factor: float | None = None

    def of(self, pattern: Pattern) -> Pattern:
        """Return the pattern after the move."""
        return pattern.without(self.name) if self.factor is None else pattern.scaled(self.name, self.factor)


class Trial(NamedTuple):
    """A pattern that was measured."""

    pattern: Pattern
    error: float


class _OverBudgetError(Exception):
    """No more cases may be measured."""


def improve(kinds: Iterable[str], blocks: Sequence[str], error: Errors, cases: int) -> list[Trial]:
    """Search from the uniform network on; return all that was measured, the best first, at most `cases`.

    Blocks of one stage, those in the same module, are dropped from the last one on.

    Raises:
        ValueError: the uniform network cannot be that cheap.
    """
    trials: dict[str, Trial] = {}

    def measure(pattern: Pattern) -> float:
        key = repr((sorted(pattern.dropped), sorted(pattern.factors.items())))
        if key not in trials:
            if len(trials) >= cases:
                raise _OverBudgetError
            found = error(pattern)
            trials[key] = Trial(pattern, float("inf") if found is None else found)
        return trials[key].error

    if measure(UNIFORM) == float("inf"):
        raise ValueError("the uniform network cannot be that cheap")
    stages: defaultdict[str, list[str]] = defaultdict(list)
    for block in blocks:
        stages[block.rpartition(".")[0]].append(block)
    open_kinds, best = list(kinds), UNIFORM
    with suppress(_OverBudgetError):
        while open_kinds or any(stages.values()):
            before, gains = measure(best), dict[Move, float]()
            for stage in stages.values():
                if stage:
                    gains[Move(stage[-1])] = before - measure(Move(stage[-1]).of(best))
            for kind in open_kinds:
                for move in (Move(kind, NARROWER), Move(kind, WIDER)):
                    gains[move] = before - measure(move.of(best))
                    if gains[move] > 0:
                        break
            good = sorted((move for move, gain in gains.items() if gain > 0), key=gains.__getitem__, reverse=True)
            if not good:
                break
            best = _together(best, good, measure)
            # What clearly lost is not tried again; of a stage that may lose a block the next one is.
            lost = {move.name for move, gain in gains.items() if gain < -LOSS * before}
            near = {move.name for move, gain in gains.items() if gain >= -LOSS * before}
            open_kinds = [kind for kind in open_kinds if kind in near]
            for stage in stages.values():
                if stage and stage[-1] in lost:
                    stage.clear()
                elif stage and stage[-1] in best.dropped:
                    stage.pop()
    return sorted(trials.values(), key=lambda trial: trial.error)


def _together(pattern: Pattern, moves: Sequence[Move], measure: Callable[[Pattern], float]) -> Pattern:
    """Make the best of these moves, or as many together as help most, halving their number."""
    best, count = moves[0].of(pattern), len(moves)
    while count > 1:
        joint = pattern
        for move in moves[:count]:
            joint = move.of(joint)
        if measure(joint) < measure(best):
            best = joint
        count //= 2
    return best
