"""Measure how long calls take: in windows, in turns, until each one's interval is narrow enough.

Turns matter twice. A processor that slows down meanwhile would otherwise flatter whatever was measured first. And a
call and its baseline, measured in the same round, make a pair: their ratio holds on a machine whose times do not.
"""

import math
import threading
import time
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
from jaxtyping import Float

from leanface.metrics.ratio import PAIRS_MIN, MedianEstimate, estimate_median, paired_ratio

Key = TypeVar("Key", bound=Hashable)

SETTLE_RUNS = 2
"""Uncounted runs at the start of each window: the other calls have emptied the caches since the last one."""


@dataclass(frozen=True)
class Timing:
    """Latency of one call.

    Attributes:
        latency: the median over windows of each window's median (ms).
        p90_ms: percentile over all runs; p95_ms and p99_ms likewise.
        calls_per_second: of all clients together; the median over windows.
        speedup: how many times as many calls per second as its baseline; None for a call without one.
        windows: how many were measured.
        runs: how many were timed.
    """

    latency: MedianEstimate
    p90_ms: float
    p95_ms: float
    p99_ms: float
    calls_per_second: float
    speedup: MedianEstimate | None
    windows: int
    runs: int

    @property
    def latency_ms(self) -> float:
        """The median latency."""
        return self.latency.value


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
    interval: float,
    baselines: Mapping[Key, Key] | None = None,
    clients: Mapping[Key, int] | None = None,
    until: float = math.inf,
    runs_min: int | None = None,
    window_seconds: float = 0.0,
    on_window: Callable[[Key], object] = lambda key: None,
) -> dict[Key, Timing]:
    """Time every call, in rounds of one window each.

    A call is done when the 95 % interval of its speed-up, or without a baseline of its latency, is narrow enough. Each
    round goes through the calls in the opposite direction of the one before, so what changes steadily cancels out.

    Args:
        calls: what to run; only the call itself is timed (time.perf_counter_ns).
        warmup: uncounted runs of each call before its first window.
        window: timed runs per window.
        windows_max: windows after which a call is done in any case.
        interval: how much an interval's upper end may exceed its lower one, as a share of that.
        baselines: the call that each one is compared with. A baseline is measured in every round in which one that it
            belongs to is.
        clients: threads that make a call at the same time, each `window` times and without a pause; 1 if not given.
        until: no window begins later than this (time.monotonic) except each call's first.
        runs_min: runs after which a window or warm-up that lasts beyond `until` ends early; by default it never does.
        window_seconds: how long a window lasts at least, with more runs where these are short.
        on_window: called with a call's key before each of its windows.
    """
    baselines, clients = baselines or {}, clients or {}
    least = math.inf if runs_min is None else runs_min
    windows: dict[Key, dict[int, Window]] = {key: {} for key in calls}  # by round

    def timing(key: Key) -> Timing:
        base = baselines.get(key)
        compared = None if base is None else (windows[base], clients.get(base, 1))
        return _timing(windows[key], clients.get(key, 1), compared)

    def done(key: Key) -> bool:
        if len(windows[key]) >= windows_max or key in baselines.values():
            return True  # a baseline goes on for the others' sake alone
        found = timing(key)
        return (found.speedup or found.latency).width <= interval

    turn = _in_groups(calls, baselines)
    pending, number = turn, 0
    while pending:
        for key in pending if number % 2 == 0 else reversed(pending):
            if windows[key] and time.monotonic() > until:
                continue
            on_window(key)
            _times_ms(calls[key], SETTLE_RUNS if windows[key] else warmup, least, until)
            windows[key][number] = _window(calls[key], window, clients.get(key, 1), least, until, window_seconds)
        number += 1
        if time.monotonic() > until:
            break
        needed = {key for key in pending if number < PAIRS_MIN or not done(key)}
        needed |= {baselines[key] for key in needed if key in baselines}
        pending = [key for key in turn if key in needed and len(windows[key]) < windows_max]
    return {key: timing(key) for key in calls}


def _in_groups(calls: Mapping[Key, object], baselines: Mapping[Key, Key]) -> list[Key]:
    """Order each baseline directly before what is compared with it."""
    groups: dict[Key, list[Key]] = {}
    for key in calls:
        group = groups.setdefault(baselines.get(key, key), [])
        if baselines.get(key, key) != key:
            group.append(key)
    return [key for base, group in groups.items() for key in (base, *group)]


def _window(call: Callable[[], object], runs: int, clients: int, least: float, until: float, seconds: float) -> Window:
    if clients == 1:
        start_ns = time.perf_counter_ns()
        times_ms = _times_ms(call, runs, least, until, seconds)
    else:
        ready = threading.Barrier(clients + 1)

        def client() -> Float[np.ndarray, " runs"]:
            ready.wait()
            return _times_ms(call, runs, least, until, seconds)

        with ThreadPoolExecutor(clients) as threads:
            pending = [threads.submit(client) for _ in range(clients)]
            ready.wait()  # starting the threads may take longer than the calls
            start_ns = time.perf_counter_ns()
            times_ms = np.concatenate([future.result() for future in pending])
    return Window(times_ms, 1e9 * len(times_ms) / (time.perf_counter_ns() - start_ns))


def _times_ms(
    call: Callable[[], object], runs: int, least: float, until: float, seconds: float = 0.0
) -> Float[np.ndarray, " runs"]:
    """Make so many runs, and more until `seconds` are over; or at least `least` if they last beyond `until`."""
    times_ns: list[int] = []
    end_ns = time.perf_counter_ns() + 1e9 * seconds
    while (len(times_ns) < runs or time.perf_counter_ns() < end_ns) and (
        len(times_ns) < least or time.monotonic() < until
    ):
        start_ns = time.perf_counter_ns()
        call()
        times_ns.append(time.perf_counter_ns() - start_ns)
    return np.array(times_ns, dtype=np.int64) / 1e6


def _timing(own: Mapping[int, Window], clients: int, compared: tuple[Mapping[int, Window], int] | None) -> Timing:
    times_ms = np.concatenate([window.times_ms for window in own.values()])
    p90, p95, p99 = (float(value) for value in np.percentile(times_ms, (90, 95, 99)))
    speedup = None
    if compared is not None:
        base, base_clients = compared
        both = [number for number in own if number in base]
        speedup = paired_ratio(
            [_median_ms(base[number]) / base_clients for number in both],
            [_median_ms(own[number]) / clients for number in both],
        )
    return Timing(
        latency=estimate_median([_median_ms(window) for window in own.values()]),
        p90_ms=p90,
        p95_ms=p95,
        p99_ms=p99,
        calls_per_second=float(np.median([window.calls_per_second for window in own.values()])),
        speedup=speedup,
        windows=len(own),
        runs=len(times_ms),
    )


def _median_ms(window: Window) -> float:
    return float(np.median(window.times_ms))
