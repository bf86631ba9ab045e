"""How long a call takes: several calls measured in turns, in windows, until each one's time is stable.

Turns matter: a processor that slows down meanwhile would otherwise flatter whatever was measured first.
"""

import math
import time
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeVar

import numpy as np
from jaxtyping import Float

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
        calls_per_second: of all clients together; the median of these windows.
        reason: what to change if it is unstable.
    """

    status: Literal["stable", "unstable"]
    windows: int
    spread: float
    p50_ms: float
    p90_ms: float
    p95_ms: float
    p99_ms: float
    calls_per_second: float
    reason: str | None = None


class Window(NamedTuple):
    """Every run of a call in one window, and how many there were per second."""

    times_ms: Float[np.ndarray, " runs"]
    calls_per_second: float


def measure_latency(
    calls: Mapping[Key, Callable[[], object]],
    *,
    warmup: int,
    window: int,
    windows_max: int,
    stability: float,
    clients: Mapping[Key, int] | None = None,
    until: float = math.inf,
) -> dict[Key, Timing]:
    """Time every call: rounds of one window each, until a call's last three windows agree.

    Args:
        calls: what to run; only the call itself is timed (time.perf_counter_ns).
        warmup: uncounted runs of each call before its first window.
        window: timed runs per window.
        windows_max: windows after which a call is given up as unstable; its numbers are kept.
        stability: how far the medians of the last three windows may lie apart, relative to the smallest.
        clients: threads that make a call at the same time, each `window` times and without a pause; 1 if not given.
        until: no round begins later than this (time.monotonic) but the first; what was not stable by then is unstable.
    """
    windows: dict[Key, list[Window]] = {key: [] for key in calls}
    timings: dict[Key, Timing] = {}
    while pending := [key for key in calls if key not in timings]:
        for key in pending:
            call, measured = calls[key], windows[key]
            for _ in range(SETTLE_RUNS if measured else warmup):
                call()
            measured.append(_window(call, window, (clients or {}).get(key, 1)))
            last = measured[-AGREEING_WINDOWS:]
            medians = [float(np.median(window.times_ms)) for window in last]
            spread = max(medians) / min(medians) - 1
            stable = len(measured) >= AGREEING_WINDOWS and spread <= stability
            if stable or len(measured) >= windows_max or time.monotonic() > until:
                timings[key] = _timing(last, len(measured), spread, stable, stability)
    return {key: timings[key] for key in calls}


def _window(call: Callable[[], object], runs: int, clients: int) -> Window:
    start_ns = time.perf_counter_ns()
    if clients == 1:
        times_ms = _times_ms(call, runs)
    else:
        with ThreadPoolExecutor(clients) as threads:
            times_ms = np.concatenate(list(threads.map(_times_ms, [call] * clients, [runs] * clients)))
    return Window(times_ms, 1e9 * len(times_ms) / (time.perf_counter_ns() - start_ns))


def _times_ms(call: Callable[[], object], runs: int) -> Float[np.ndarray, " runs"]:
    times_ns = np.empty(runs, dtype=np.int64)
    for index in range(runs):
        start_ns = time.perf_counter_ns()
        call()
        times_ns[index] = time.perf_counter_ns() - start_ns
    return times_ns / 1e6


def _timing(last: list[Window], count: int, spread: float, stable: bool, stability: float) -> Timing:
    times_ms = np.concatenate([window.times_ms for window in last])
    p50, p90, p95, p99 = (float(value) for value in np.percentile(times_ms, (50, 90, 95, 99)))
    rate = float(np.median([window.calls_per_second for window in last]))
    reason = None
    if not stable:
        reason = (
            f"after {count} windows the medians of the last {len(last)} still differ by {spread:.1%} "
            f"(benchmark.stability allows {stability:.1%}): leave the machine idle, or raise "
            "benchmark.window, benchmark.windows_max or benchmark.stability"
        )
    return Timing("stable" if stable else "unstable", count, spread, p50, p90, p95, p99, rate, reason)
