"""Sharing out width and depth, on errors that are known."""

import math
from collections.abc import Callable

import pytest
from optuna.samplers import RandomSampler, TPESampler

from leanface.search.solve import WIDEST, Trial, improve
from leanface.search.space import UNIFORM, Pattern

KINDS, BLOCKS = ("stem", "inner", "stream"), ("a.one", "b.one", "b.two", "b.three")


def bowl(pattern: Pattern) -> float:
    """Best with a wider stem, a narrower stream and without block b.three; all others are needed."""
    wanted = {"stem": 1.25, "stream": 0.8}
    off = sum(math.log(pattern.factors.get(kind, 1.0) / wanted.get(kind, 1.0)) ** 2 for kind in KINDS)
    return 1 + off - 0.1 * ("b.three" in pattern.dropped) + 0.5 * len(pattern.dropped - {"b.three"})


def search(error: Callable[[Pattern], float | None], cases: int, seed: int = 0) -> list[Trial]:
    return improve(KINDS, BLOCKS, error, cases, TPESampler(seed=seed))


def test_it_finds_what_is_better_than_uniform() -> None:
    best = search(bowl, 60)[0]
    assert best.error < 0.95 < bowl(UNIFORM)
    assert best.pattern.dropped == {"b.three"}
    assert best.pattern.factors["stem"] > 1 > best.pattern.factors["stream"]


def test_it_finds_more_than_chance_does() -> None:
    def best(sampler: type[RandomSampler | TPESampler], seed: int) -> float:
        return improve(KINDS, BLOCKS, bowl, 40, sampler(seed=seed))[0].error

    assert all(best(TPESampler, seed) < best(RandomSampler, seed) for seed in range(3))


def test_as_many_patterns_as_allowed_are_measured_the_uniform_one_first() -> None:
    seen: list[Pattern] = []

    def counting(pattern: Pattern) -> float:
        seen.append(pattern)
        return bowl(pattern)

    trials = search(counting, 12)
    assert len(seen) == len(trials) == 12
    assert seen[0].is_uniform
    assert [trial.error for trial in trials] == sorted(map(bowl, seen))
    assert all(1 / WIDEST <= factor <= WIDEST for pattern in seen for factor in pattern.factors.values())


def test_blocks_of_a_module_are_dropped_from_the_last_one_on() -> None:
    dropped = {trial.pattern.dropped - {"a.one"} for trial in search(bowl, 40)}
    assert dropped == set(map(frozenset, ([], ["b.three"], ["b.two", "b.three"])))


def test_a_search_that_was_stopped_proposes_the_same_again() -> None:
    def stopping(pattern: Pattern) -> float:
        known.append(pattern)
        if len(known) == 15:
            raise KeyboardInterrupt
        return bowl(pattern)

    known: list[Pattern] = []
    with pytest.raises(KeyboardInterrupt):
        search(stopping, 20)
    again: list[Pattern] = []
    search(lambda pattern: again.append(pattern) or bowl(pattern), 20)
    assert again[:15] == known


def test_patterns_that_cannot_be_so_cheap_are_passed_over() -> None:
    def narrow(pattern: Pattern) -> float | None:
        return None if pattern.factors["stem"] > 1 else bowl(pattern)

    trials = search(narrow, 30)
    assert 0 < len(trials) < 30
    assert all(trial.pattern.factors["stem"] <= 1 for trial in trials)
