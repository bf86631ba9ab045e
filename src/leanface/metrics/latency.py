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
        runs: of the last three, which all numbers are of.
        spread: the largest of these medians over the smallest, less 1.
        calls_per_second: of all clients together; the median of these windows.
        reason: what to change if it is unstable.
    """

    status: Literal["stable", "unstable"]
    windows: int
    runs: int
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
    runs_min: int | None = None,
    on_window: Callable[[Key], object] = lambda key: None,
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
        runs_min: runs after which a window or warm-up that lasts beyond `until` ends early; by default it never does.
        on_window: called with a call's key before each of its windows.
    """
    least = math.inf if runs_min is None else runs_min
    windows: dict[Key, list[Window]] = {key: [] for key in calls}
    timings: dict[Key, Timing] = {}
    while pending := [key for key in calls if key not in timings]:
        for key in pending:
            call, measured = calls[key], windows[key]
            on_window(key)
            _times_ms(call, SETTLE_RUNS if measured else warmup, least, until)
            measured.append(_window(call, window, (clients or {}).get(key, 1), least, until))
            last = measured[-AGREEING_WINDOWS:]
            medians = [float(np.median(window.times_ms)) for window in last]
            spread = max(medians) / min(medians) - 1
            stable = len(measured) >= AGREEING_WINDOWS and spread <= stability
            if stable or len(measured) >= windows_max or time.monotonic() > until:
                timings[key] = _timing(last, len(measured), spread, stable, stability)
    return {key: timings[key] for key in calls}


def _window(call: Callable[[], object], runs: int, clients: int, least: float, until: float) -> Window:
    start_ns = time.perf_counter_ns()
    if clients == 1:
        times_ms = _times_ms(call, runs, least, until)
    else:
        with ThreadPoolExecutor(clients) as threads:
            pending = [threads.submit(_times_ms, call, runs, least, until) for _ in range(clients)]
        times_ms = np.concatenate([future.result() for future in pending])
    return Window(times_ms, 1e9 * len(times_ms) / (time.perf_counter_ns() - start_ns))


def _times_ms(call: Callable[[], object], runs: int, least: float, until: float) -> Float[np.ndarray, " runs"]:
    """Of so many runs, or of at least `least` if they last beyond `until`."""
    times_ns: list[int] = []
    while len(times_ns) < runs and (len(times_ns) < least or time.monotonic() < until):
        start_ns = time.perf_counter_ns()
        call()
        times_ns.append(time.perf_counter_ns() - start_ns)
    return np.array(times_ns, dtype=np.int64) / 1e6


def _timing(last: list[Window], count: int, spread: float, stable: bool, stability: float) -> Timing:
    times_ms = np.concatenate([window.times_ms for window in last])
    p50, p90, p95, p99 = (float(value) for value in np.percentile(times_ms, (50, 90, 95, 99)))
    rate = float(np.median([window.calls_per_second for window in last]))
    reason = None
    if not stable:
        found = f"the time was up after {count} of at least {AGREEING_WINDOWS} windows"
        if count >= AGREEING_WINDOWS:
            found = (
                f"after {count} windows the medians of the last {len(last)} still differ by {spread:.1%} "
                f"({stability:.1%} is allowed)"
            )
        reason = (
            f"{found}: leave the machine idle, or measure for longer (in the pipeline benchmark.window, "
            "benchmark.windows_max or benchmark.stability)"
        )
    status = "stable" if stable else "unstable"
    return Timing(status, count, len(times_ms), spread, p50, p90, p95, p99, rate, reason)
