"""Pattern search, on errors that are known."""

import math

import pytest

from leanface.search.solve import improve
from leanface.search.space import UNIFORM, Pattern

KINDS, BLOCKS = ("stem", "inner", "stream"), ("a.one", "b.two", "c.three")


def bowl(pattern: Pattern) -> float:
    """Best with a stem twice as wide, a narrower stream and without block two; blocks one and three are needed."""
    wanted = {"stem": 2.0, "stream": 0.7}
    off = sum(math.log(pattern.factors.get(kind, 1.0) / wanted.get(kind, 1.0)) ** 2 for kind in KINDS)
    return 1 + off - 0.1 * ("b.two" in pattern.dropped) + 0.5 * len(pattern.dropped & {"a.one", "c.three"})


def test_it_finds_what_is_better_than_uniform() -> None:
    best = improve(KINDS, BLOCKS, bowl, cases=60)[0]
    assert best.error < 0.95 < bowl(UNIFORM)
    assert best.pattern.dropped == {"b.two"}
    assert best.pattern.factors["stem"] > 1.5
    assert best.pattern.factors["stream"] < 1


def test_no_more_cases_are_measured_than_allowed_and_none_twice() -> None:
    seen: list[str] = []

    def counting(pattern: Pattern) -> float:
        seen.append(repr((sorted(pattern.dropped), sorted(pattern.factors.items()))))
        return bowl(pattern)

    trials = improve(KINDS, BLOCKS, counting, cases=12)
    assert len(seen) == len(set(seen)) == len(trials) == 12
    assert [trial.error for trial in trials] == sorted(trial.error for trial in trials)


def test_moves_that_spoil_each_other_are_not_made_together() -> None:
    def either(pattern: Pattern) -> float:
        return 1.0 - 0.2 * (len(pattern.dropped) == 1) + 0.5 * (len(pattern.dropped) > 1)

    best = improve((), BLOCKS, either, cases=40)[0]
    assert best.error == 0.8
    assert len(best.pattern.dropped) == 1


def test_where_uniform_is_best_it_stays() -> None:
    def needed(pattern: Pattern) -> float:
        return 1 + len(pattern.dropped) + sum(abs(math.log(factor)) for factor in pattern.factors.values())

    assert improve(KINDS, BLOCKS, needed, cases=40)[0].pattern == UNIFORM


def test_patterns_that_cannot_be_so_cheap_are_passed_over() -> None:
    def narrow(pattern: Pattern) -> float | None:
        return None if pattern.factors.get("stem", 1.0) > 1 else bowl(pattern)

    assert improve(KINDS, BLOCKS, narrow, cases=40)[0].pattern.factors.get("stem", 1.0) <= 1
    with pytest.raises(ValueError, match="uniform"):
        improve(KINDS, BLOCKS, lambda pattern: None, cases=4)
