from collections import Counter

import pytest

from leanface.metrics.latency import AGREEING_WINDOWS, SETTLE_RUNS, measure_latency


def busy(amount: int) -> int:
    return sum(range(amount))


def test_percentiles_are_ordered_and_more_work_takes_longer():
    timings = measure_latency(
        {"little": lambda: busy(500), "much": lambda: busy(100_000)},
        warmup=2,
        window=9,
        windows_max=3,
        stability=1.0,
    )
    for timing in timings.values():
        assert 0 < timing.p50_ms <= timing.p90_ms <= timing.p95_ms <= timing.p99_ms
    assert timings["much"].p50_ms > timings["little"].p50_ms


def test_calls_take_turns_window_by_window():
    order: list[str] = []
    warmup, window = 4, 5
    measure_latency(
        {name: lambda name=name: order.append(name) for name in "ab"},
        warmup=warmup,
        window=window,
        windows_max=AGREEING_WINDOWS,
        stability=1.0,
    )
    first, later = warmup + window, SETTLE_RUNS + window
    assert "".join(order) == "a" * first + "b" * first + ("a" * later + "b" * later) * (AGREEING_WINDOWS - 1)


def test_a_call_whose_time_grows_is_reported_unstable_with_its_numbers_and_the_knob():
    runs = Counter[str]()

    def slower_each_time() -> None:
        runs["grows"] += 1
        busy(2000 * runs["grows"] ** 2)

    timing = measure_latency(
        {"grows": slower_each_time}, warmup=1, window=5, windows_max=4, stability=0.05
    )["grows"]
    assert timing.status == "unstable"
    assert timing.windows == 4
    assert timing.p50_ms > 0
    assert timing.reason is not None and "benchmark.window" in timing.reason


def test_a_call_that_agrees_with_itself_stops_early():
    timing = measure_latency(
        {"steady": lambda: busy(20_000)}, warmup=1, window=15, windows_max=50, stability=0.5
    )["steady"]
    assert timing.status == "stable"
    assert AGREEING_WINDOWS <= timing.windows < 50
    assert timing.spread <= 0.5
    assert timing.reason is None


def test_an_error_in_a_call_is_not_swallowed():
    def broken() -> None:
        raise RuntimeError("no such device")

    with pytest.raises(RuntimeError, match="no such device"):
        measure_latency({"broken": broken}, warmup=1, window=1, windows_max=3, stability=1.0)
