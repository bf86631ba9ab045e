import time
from collections.abc import Callable, Iterator

import pytest

from leanface.metrics.latency import SETTLE_RUNS, Timing, measure_latency
from leanface.metrics.ratio import PAIRS_MIN


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
    chosen = {"warmup": 2, "window": 5, "windows_max": 10, "interval": 0.05} | settings
    return measure_latency({"it": call}, **chosen)["it"]


def test_a_steady_call_is_measured_exactly_and_no_longer_than_an_interval_needs(clock):
    timing = measure(clock.lasting(constant(3.0)))
    assert (timing.latency_ms, timing.p90_ms, timing.p95_ms, timing.p99_ms) == (3.0, 3.0, 3.0, 3.0)
    assert (timing.latency.low, timing.latency.high, timing.windows, timing.speedup) == (3.0, 3.0, PAIRS_MIN, None)


def test_slow_runs_show_in_the_high_percentiles_only(clock):
    tenth_is_slow = (10.0 if index % 10 == 9 else 1.0 for index in range(10_000))
    timing = measure(clock.lasting(tenth_is_slow), window=50)
    assert timing.latency_ms == 1.0
    assert timing.latency_ms <= timing.p90_ms <= timing.p95_ms <= timing.p99_ms == 10.0


def test_warm_up_is_not_counted(clock):
    slow_start = (100.0 if index < 7 else 2.0 for index in range(10_000))
    timing = measure(clock.lasting(slow_start), warmup=7)
    assert (timing.latency_ms, timing.p99_ms, timing.windows) == (2.0, 2.0, PAIRS_MIN)


def test_it_goes_on_until_the_interval_is_narrow(clock):
    slow_windows = 2
    settles = (20.0 if index < 2 + slow_windows * (5 + SETTLE_RUNS) else 4.0 for index in range(10_000))
    timing = measure(clock.lasting(settles), windows_max=30)
    # The third-largest of 12 windows is the first that is not slow.
    assert (timing.latency_ms, timing.latency.high, timing.windows) == (4.0, 4.0, 12)


def test_a_call_that_never_settles_keeps_its_numbers_and_says_how_uncertain_they_are(clock):
    timing = measure(clock.lasting(growing()), windows_max=8)
    assert timing.windows == 8
    assert timing.latency_ms > 1.0
    assert timing.latency.too_wide


def test_too_few_windows_give_no_interval(clock):
    timing = measure(clock.lasting(constant(3.0)), windows_max=PAIRS_MIN - 1)
    assert (timing.latency_ms, timing.latency.low, timing.latency.high) == (3.0, None, None)
    assert timing.latency.too_wide


def test_calls_take_turns_window_by_window_in_alternating_directions():
    order: list[str] = []
    warmup, window = 4, 5
    measure_latency(
        {name: lambda name=name: order.append(name) for name in "ab"},
        warmup=warmup,
        window=window,
        windows_max=3,
        interval=1.0,
    )
    first, later = warmup + window, SETTLE_RUNS + window
    expected = "a" * first + "b" * first + "b" * later + "a" * later + "a" * later + "b" * later
    assert "".join(order) == expected


def test_a_slowdown_of_the_machine_hits_all_calls_alike(clock):
    """Both take 1 ms times the machine's slowness, which grows with time: their ratio stays near 1."""

    def call() -> None:
        clock.now_ns += round(1e6 * (1 + clock.now_ns / 1e9))

    timings = measure_latency({"a": call, "b": call}, warmup=1, window=5, windows_max=10, interval=0.05)
    assert timings["b"].latency_ms / timings["a"].latency_ms == pytest.approx(1.0, abs=0.02)


def on_a_shared_machine(clock: Clock, cost_ms: float) -> Callable[[], None]:
    """A call on a machine that others slow down by up to five times, in spells of 90 ms."""

    def call() -> None:
        spell = clock.now_ns // 90_000_000
        clock.now_ns += round(1e6 * cost_ms * (1 + 4 * (spell * 7919 % 101) / 100))

    return call


def test_the_ratio_to_a_baseline_holds_where_the_times_do_not(clock):
    calls = {"slow": on_a_shared_machine(clock, 5.0), "fast": on_a_shared_machine(clock, 1.0)}
    timings = measure_latency(
        calls, baselines={"slow": "slow", "fast": "slow"}, warmup=1, window=5, windows_max=40, interval=0.1
    )
    fast, slow = timings["fast"], timings["slow"]
    assert slow.latency.width > 0.5
    assert fast.speedup is not None
    assert fast.speedup.low < 5.0 < fast.speedup.high or fast.speedup.value == pytest.approx(5.0, rel=0.02)
    assert fast.speedup.width < slow.latency.width / 2
    assert (slow.speedup.value, slow.speedup.width) == (1.0, 0.0)


def test_a_baseline_goes_on_as_long_as_one_that_is_compared_with_it(clock):
    uneven = (8.0 if index % 12 < 6 else 1.0 for index in range(10_000))
    calls = {
        "steady": clock.lasting(constant(1.0)),
        "uneven": clock.lasting(uneven),
        "base": clock.lasting(constant(4.0)),
        "alone": clock.lasting(constant(1.0)),
    }
    timings = measure_latency(
        calls, baselines={"steady": "base", "uneven": "base"}, warmup=0, window=4, windows_max=9, interval=0.05
    )
    windows = {name: timing.windows for name, timing in timings.items()}
    assert windows == {"steady": PAIRS_MIN, "uneven": 9, "base": 9, "alone": PAIRS_MIN}
    assert timings["steady"].speedup.value == 4.0
    assert timings["uneven"].speedup.count == 9


def test_an_error_in_a_call_is_not_swallowed():
    def broken() -> None:
        raise RuntimeError("no such device")

    with pytest.raises(RuntimeError, match="no such device"):
        measure(broken)


def test_the_rate_is_that_of_all_runs_not_of_the_typical_one(clock):
    every_fifth_is_slow = (6.0 if index % 5 == 4 else 1.0 for index in range(10_000))
    timing = measure(clock.lasting(every_fifth_is_slow), window=20)
    assert timing.latency_ms == 1.0
    assert timing.calls_per_second == pytest.approx(500.0)


def test_results_in_flight_are_not_counted_and_take_the_mean(clock):
    in_flight = 3
    pairs = (0.5 if index % 2 else 9.5 for index in range(10_000))  # every second result is there already
    lasting = clock.lasting(pairs)
    calls: list[None] = []

    def call() -> None:
        calls.append(None)
        lasting()

    timing = measure_latency(
        {"it": call}, warmup=1, window=4, windows_max=2, interval=0.5, in_flight={"it": in_flight}
    )["it"]
    assert timing.latency_ms == pytest.approx(5.0)
    assert timing.calls_per_second == pytest.approx(200.0)
    assert len(calls) == (1 + in_flight + 4) + (SETTLE_RUNS + in_flight + 4)
    assert timing.runs == 8


def test_when_the_time_is_up_windows_end_early_only_if_they_may():
    counts: list[int] = []
    for runs_min in (None, 3, 7):
        calls: list[None] = []
        timing = measure_latency(
            {"it": lambda calls=calls: calls.append(None)},
            warmup=4, window=5, windows_max=10, interval=0.05, until=0.0, runs_min=runs_min,
        )["it"]  # fmt: skip
        assert (timing.windows, timing.latency.low) == (1, None)
        counts += [len(calls), timing.runs]
    assert counts == [9, 5, 6, 3, 9, 5]


def test_all_runs_count_and_each_window_is_announced(clock):
    announced: list[str] = []
    timing = measure_latency(
        {"it": clock.lasting(growing())},
        warmup=0, window=5, windows_max=4, interval=0.05, on_window=announced.append,
    )["it"]  # fmt: skip
    assert (timing.windows, timing.runs) == (4, 4 * 5)
    assert announced == ["it"] * 4
