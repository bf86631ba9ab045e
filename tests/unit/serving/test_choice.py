"""Which of two networks reads a batch: the better one within the budget, the faster one under load."""

from collections import deque

import numpy as np
import pytest

from leanface.serving.choice import ANSWERS, SECONDS, Choice

BUDGET_MS = 500.0


class Clock:
    """A clock that tests turn."""

    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def choice(clock: Clock) -> Choice:
    return Choice(BUDGET_MS, clock)


def test_a_photo_alone_is_read_by_the_better_network(choice: Choice) -> None:
    assert choice.better(0.0, photos=1, waiting=0)
    assert not choice.better(0.0, photos=2, waiting=0)
    assert not choice.better(0.0, photos=1, waiting=1)


def test_whoever_comes_next_must_be_in_time(choice: Choice) -> None:
    choice.took(True, 300.0)
    choice.took(False, 150.0)
    assert choice.better(0.0, photos=1, waiting=0)
    assert not choice.better(100.0, photos=1, waiting=0)  # it has waited so long already
    choice.took(False, 250.0)
    assert not choice.better(0.0, photos=1, waiting=0)


def test_what_was_slow_once_is_tried_again(choice: Choice, clock: Clock) -> None:
    choice.took(True, 2 * BUDGET_MS)
    assert not choice.better(0.0, photos=1, waiting=0)
    clock.seconds = SECONDS + 1
    assert choice.better(0.0, photos=1, waiting=0)


def test_late_answers_stop_it_until_there_are_none(choice: Choice) -> None:
    choice.answered(BUDGET_MS + 1)
    assert choice.better(0.0, photos=1, waiting=0)  # one in a hundred may be late
    choice.answered(BUDGET_MS + 1)
    assert not choice.better(0.0, photos=1, waiting=0)
    for _ in range(ANSWERS - 1):
        choice.answered(1.0)
    assert not choice.better(0.0, photos=1, waiting=0)  # one of the two is left
    choice.answered(1.0)
    assert choice.better(0.0, photos=1, waiting=0)


def simulated(per_second: float, choice: Choice, clock: Clock) -> tuple[float, float]:
    """Serve 3,000 photos that come at random; the 99th percentile of latency (ms), and the better network's share.

    A batch takes 50 ms a photo, and 100 ms a photo more by the better network.
    """
    chance = np.random.default_rng(0)
    arrivals = deque(np.cumsum(chance.exponential(1 / per_second, 3000)))
    latencies_ms: list[float] = []
    better_count = 0
    while arrivals:
        clock.seconds = max(clock.seconds, arrivals[0])
        come = sum(1 for arrival in arrivals if arrival <= clock.seconds)
        batch = [arrivals.popleft() for _ in range(min(8, come))]
        better = choice.better(1000 * (clock.seconds - batch[0]), len(batch), come - len(batch))
        batch_ms = len(batch) * (150.0 if better else 50.0) * chance.lognormal(0.0, 0.1)
        clock.seconds += batch_ms / 1000
        choice.took(better, batch_ms)
        better_count += better * len(batch)
        for arrival in batch:
            latencies_ms.append(1000 * (clock.seconds - arrival))
            choice.answered(latencies_ms[-1])
    return float(np.percentile(latencies_ms, 99)), better_count / len(latencies_ms)


def test_the_better_network_reads_less_the_more_comes_and_the_budget_is_kept() -> None:
    shares: list[float] = []
    for per_second in (1.0, 4.0, 8.0, 30.0):
        clock = Clock()
        p99_ms, share = simulated(per_second, Choice(BUDGET_MS, clock), clock)
        assert p99_ms <= BUDGET_MS or per_second > 20  # the faster network alone can read 20
        shares.append(share)
    assert shares == sorted(shares, reverse=True)
    assert shares[0] > 0.8
    assert shares[-1] < 0.01
