"""How long a call takes: several calls measured in turns, in windows, until each one's time is stable.

Turns matter: a processor that slows down meanwhile would otherwise flatter whatever was measured first.
"""

import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np

Key = TypeVar("Key", bound=Hashable)

SETTLE_RUNS = 2
"""Uncounted runs at the start of each window: the other calls have emptied the caches since the last one."""

AGREEING_WINDOWS = 3


@dataclass(frozen=True)
class Timing:
    """Latency of one call, over the runs of its last three windows.

    Attributes:
        status: "stable" if these windows' medians agree, else "unstable".
        windows: how many were measured.
        spread: the largest of these medians over the smallest, less 1.
        reason: what to change if it is unstable.
    """

    status: Literal["stable", "unstable"]
    windows: int
    spread: float
    p50_ms: float
    p90_ms: float
    p95_ms: float
    p99_ms: float
    reason: str | None = None


def measure_latency(
    calls: Mapping[Key, Callable[[], object]],
    *,
    warmup: int,
    window: int,
    windows_max: int,
    stability: float,
) -> dict[Key, Timing]:
    """Time every call: rounds of one window each, until a call's last three windows agree.

    Args:
        calls: what to run; only the call itself is timed (time.perf_counter_ns).
        warmup: uncounted runs of each call before its first window.
        window: timed runs per window.
        windows_max: windows after which a call is given up as unstable; its numbers are kept.
        stability: how far the medians of the last three windows may lie apart, relative to the smallest.
    """
    windows: dict[Key, list[np.ndarray]] = {key: [] for key in calls}
    timings: dict[Key, Timing] = {}
    while pending := [key for key in calls if key not in timings]:
        for key in pending:
            call, measured = calls[key], windows[key]
            for _ in range(SETTLE_RUNS if measured else warmup):
                call()
            measured.append(_window(call, window))
            last = measured[-AGREEING_WINDOWS:]
            medians = [float(np.median(runs)) for runs in last]
            spread = max(medians) / min(medians) - 1
            stable = len(measured) >= AGREEING_WINDOWS and spread <= stability
            if stable or len(measured) >= windows_max:
                timings[key] = _timing(last, len(measured), spread, stable, stability)
    return {key: timings[key] for key in calls}


def _window(call: Callable[[], object], runs: int) -> np.ndarray:
    """Latency of each run (ms)."""
    times_ns = np.empty(runs, dtype=np.int64)
    for index in range(runs):
        start_ns = time.perf_counter_ns()
        call()
        times_ns[index] = time.perf_counter_ns() - start_ns
    return times_ns / 1e6


def _timing(last: list[np.ndarray], count: int, spread: float, stable: bool, stability: float) -> Timing:
    p50, p90, p95, p99 = (float(value) for value in np.percentile(np.concatenate(last), (50, 90, 95, 99)))
    reason = None
    if not stable:
        reason = (
            f"after {count} windows the medians of the last {len(last)} still differ by {spread:.1%} "
            f"(benchmark.stability allows {stability:.1%}): leave the machine idle, or raise "
            "benchmark.window, benchmark.windows_max or benchmark.stability"
        )
    return Timing("stable" if stable else "unstable", count, spread, p50, p90, p95, p99, reason)
