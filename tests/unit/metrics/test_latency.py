import threading
import time
from collections.abc import Callable, Iterator

import pytest

from leanface.metrics.latency import AGREEING_WINDOWS, SETTLE_RUNS, Timing, measure_latency


class Clock:
    """Stands for time.perf_counter_ns: time passes only where a call says so."""

    def __init__(self) -> None:
        self.now_ns = 0

    def __call__(self) -> int:
        return self.now_ns

    def lasting(self, durations_ms: Iterator[float]) -> Callable[[], None]:
        """A call that takes each duration in turn."""

        def call() -> None:
            self.now_ns += round(next(durations_ms) * 1e6)

        return call


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "perf_counter_ns", clock)
    return clock


def constant(duration_ms: float) -> Iterator[float]:
    while True:
        yield duration_ms


def growing() -> Iterator[float]:
    duration_ms = 1.0
    while True:
        yield duration_ms
        duration_ms *= 1.1


def measure(call: Callable[[], object], **settings: float) -> Timing:
    chosen = {"warmup": 2, "window": 5, "windows_max": 10, "stability": 0.05} | settings
    return measure_latency({"it": call}, **chosen)["it"]


def test_a_steady_call_is_measured_exactly_and_no_longer_than_needed(clock):
    timing = measure(clock.lasting(constant(3.0)))
    assert (timing.p50_ms, timing.p90_ms, timing.p95_ms, timing.p99_ms) == (3.0, 3.0, 3.0, 3.0)
    assert (timing.status, timing.windows, timing.spread, timing.reason) == (
        "stable",
        AGREEING_WINDOWS,
        0.0,
        None,
    )


def test_slow_runs_show_in_the_high_percentiles_only(clock):
    tenth_is_slow = (10.0 if index % 10 == 9 else 1.0 for index in range(10_000))
    timing = measure(clock.lasting(tenth_is_slow), window=50)
    assert timing.p50_ms == 1.0
    assert timing.p50_ms <= timing.p90_ms <= timing.p95_ms <= timing.p99_ms == 10.0


def test_warm_up_is_not_counted(clock):
    slow_start = (100.0 if index < 7 else 2.0 for index in range(10_000))
    timing = measure(clock.lasting(slow_start), warmup=7)
    assert (timing.p50_ms, timing.p99_ms, timing.windows) == (2.0, 2.0, AGREEING_WINDOWS)


def test_it_goes_on_until_the_last_windows_agree(clock):
    settles = (20.0 if index < 2 + 5 + SETTLE_RUNS + 5 else 4.0 for index in range(10_000))
    timing = measure(clock.lasting(settles))
    assert (timing.status, timing.windows) == ("stable", 2 + AGREEING_WINDOWS)
    assert timing.p99_ms == 4.0


def test_a_call_whose_time_grows_is_unstable_with_its_numbers_and_the_knob(clock):
    timing = measure(clock.lasting(growing()), windows_max=4)
    assert (timing.status, timing.windows) == ("unstable", 4)
    assert timing.p50_ms > 1.0
    assert timing.spread > 0.05
    assert timing.reason is not None
    assert "benchmark.window" in timing.reason


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
    expected = "a" * first + "b" * first + ("a" * later + "b" * later) * (AGREEING_WINDOWS - 1)
    assert "".join(order) == expected


def test_a_slowdown_of_the_machine_hits_all_calls_alike(clock):
    """Both take 1 ms times the machine's slowness, which grows with time: their ratio stays near 1."""

    def call() -> None:
        clock.now_ns += round(1e6 * (1 + clock.now_ns / 1e9))

    timings = measure_latency({"a": call, "b": call}, warmup=1, window=5, windows_max=10, stability=0.05)
    assert timings["b"].p50_ms / timings["a"].p50_ms == pytest.approx(1.0, abs=0.02)


def test_an_error_in_a_call_is_not_swallowed():
    def broken() -> None:
        raise RuntimeError("no such device")

    with pytest.raises(RuntimeError, match="no such device"):
        measure(broken)


def test_the_rate_is_that_of_all_runs_not_of_the_typical_one(clock):
    every_fifth_is_slow = (6.0 if index % 5 == 4 else 1.0 for index in range(10_000))
    timing = measure(clock.lasting(every_fifth_is_slow), window=20)
    assert timing.p50_ms == 1.0
    assert timing.calls_per_second == pytest.approx(500.0)


def test_clients_call_at_the_same_time_and_each_as_often():
    clients, window = 3, 4
    together = threading.Barrier(clients, timeout=60)  # breaks unless all of them are in the call at once
    callers: list[int] = []

    def call() -> None:
        if threading.current_thread() is not threading.main_thread():
            callers.append(threading.get_ident())
            together.wait()

    timing = measure_latency(
        {"it": call}, warmup=1, window=window, windows_max=AGREEING_WINDOWS, stability=1.0, clients={"it": clients}
    )["it"]
    assert len(callers) == clients * window * AGREEING_WINDOWS
    assert timing.calls_per_second > 0


def test_when_the_time_is_up_windows_end_early_only_if_they_may():
    counts: list[int] = []
    for runs_min in (None, 3, 7):
        calls: list[None] = []
        timing = measure_latency(
            {"it": lambda calls=calls: calls.append(None)},
            warmup=4, window=5, windows_max=10, stability=0.05, until=0.0, runs_min=runs_min,
        )["it"]  # fmt: skip
        assert (timing.status, timing.windows) == ("unstable", 1)
        assert timing.reason is not None
        assert "the time was up after 1" in timing.reason
        counts += [len(calls), timing.runs]
    assert counts == [9, 5, 6, 3, 9, 5]


def test_the_runs_are_those_of_the_windows_that_count_and_each_window_is_announced(clock):
    announced: list[str] = []
    timing = measure_latency(
        {"it": clock.lasting(growing())},
        warmup=0, window=5, windows_max=4, stability=0.05, on_window=announced.append,
    )["it"]  # fmt: skip
    assert (timing.windows, timing.runs) == (4, AGREEING_WINDOWS * 5)
    assert announced == ["it"] * 4
