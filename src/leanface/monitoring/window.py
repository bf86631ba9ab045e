"""Summarize the last requests."""

from collections import deque
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Snapshot:
    """Summary of the requests of the last `seconds`; quantiles and rates of no request are None.

    Attributes:
        error_rate: share of requests that the service failed to answer; a refused photo is an answer.
    """

    seconds: float
    requests: int
    per_second: float
    p50_ms: float | None
    p95_ms: float | None
    error_rate: float | None


class Window:
    """Keeps the requests that ended within the last `seconds`, at most the latest `count`."""

    def __init__(self, seconds: float, count: int = 10_000) -> None:
        self.seconds = seconds
        self._ended: deque[tuple[float, float, bool]] = deque(maxlen=count)

    def record(self, now: float, latency_ms: float, failed: bool = False) -> None:
        """Record a request that ended at `now` (seconds of any clock that never runs backwards)."""
        self._ended.append((now, latency_ms, failed))

    def snapshot(self, now: float) -> Snapshot:
        """Summarize what the window holds at `now`."""
        while self._ended and self._ended[0][0] <= now - self.seconds:
            self._ended.popleft()
        count = len(self._ended)
        if not count:
            return Snapshot(self.seconds, 0, 0.0, None, None, None)
        # A full deque spans less time than the window.
        span = now - self._ended[0][0] if count == self._ended.maxlen else self.seconds
        p50, p95 = np.percentile([latency for _, latency, _ in self._ended], (50, 95))
        failed = sum(failed for _, _, failed in self._ended)
        return Snapshot(self.seconds, count, count / max(span, 1e-9), float(p50), float(p95), failed / count)
