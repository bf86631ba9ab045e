"""Measure how long calls take: in windows, in turns, until each one's interval is narrow enough.

Turns matter twice. A processor that slows down meanwhile would otherwise flatter whatever was measured first. And a
call and its baseline, measured in the same round, make a pair: their ratio holds on a machine whose times do not.
"""

import math
import time
from collections.abc import Callable, Hashable, Mapping
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
        latency: the median over windows of each window's median (ms), or mean; see `measure_latency`.
        p90_ms: percentile over all runs; p95_ms and p99_ms likewise.
        calls_per_second: the median over windows.
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
    """Every run of a call in one window, and what a call took in it."""

    times_ms: Float[np.ndarray, " runs"]
    typical_ms: float


def measure_latency(
    calls: Mapping[Key, Callable[[], object]],
    *,
    warmup: int,
    window: int,
    windows_max: int,
    interval: float,
    baselines: Mapping[Key, Key] | None = None,
    in_flight: Mapping[Key, int] | None = None,
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
        in_flight: of a call that returns one of several results that are computed at the same time, how many there
            are. So many more runs are uncounted, and it takes the mean of a window's runs, some of which need not wait.
        until: no window begins later than this (time.monotonic) except each call's first.
        runs_min: runs after which a window or warm-up that lasts beyond `until` ends early; by default it never does.
        window_seconds: how long a window lasts at least, with more runs where these are short.
        on_window: called with a call's key before each of its windows.
    """
    baselines, in_flight = baselines or {}, in_flight or {}
    least = math.inf if runs_min is None else runs_min
    windows: dict[Key, dict[int, Window]] = {key: {} for key in calls}  # by round

    def timing(key: Key) -> Timing:
        base = baselines.get(key)
        return _timing(windows[key], None if base is None else windows[base])

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
            started = in_flight.get(key, 0)
            _times_ms(calls[key], started + (SETTLE_RUNS if windows[key] else warmup), least, until)
            times_ms = _times_ms(calls[key], window, least, until, window_seconds)
            windows[key][number] = Window(times_ms, float((np.mean if started else np.median)(times_ms)))
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


def _timing(own: Mapping[int, Window], base: Mapping[int, Window] | None) -> Timing:
    times_ms = np.concatenate([window.times_ms for window in own.values()])
    p90, p95, p99 = (float(value) for value in np.percentile(times_ms, (90, 95, 99)))
    speedup = None
    if base is not None:
        both = [number for number in own if number in base]
        speedup = paired_ratio(
            [base[number].typical_ms for number in both], [own[number].typical_ms for number in both]
        )
    return Timing(
        latency=estimate_median([window.typical_ms for window in own.values()]),
        p90_ms=p90,
        p95_ms=p95,
        p99_ms=p99,
        calls_per_second=float(np.median([1e3 / np.mean(window.times_ms) for window in own.values()])),
        speedup=speedup,
        windows=len(own),
        runs=len(times_ms),
    )
