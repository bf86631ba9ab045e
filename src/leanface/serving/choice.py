"""Choose which of two networks reads the next photos: the better one while there is time for it, else the faster."""

import time
from collections import deque
from collections.abc import Callable

SECONDS = 60.0
"""Of batches that tell how long the next one takes."""

ANSWERS = 200
LATE_MAX = 2
"""Of so many answers: one in a hundred, as the 99th percentile says."""


class Choice:
    """Keeps the 99th percentile of latency within a budget, as long as the faster network alone would.

    The better network reads a photo that is alone, behind which nobody waits, if whoever comes just after it would
    still be answered in time: by the faster network, once this one is done. It stops as soon as `LATE_MAX` of the last
    `ANSWERS` were late, until none of them was.

    Use it from one thread at a time.
    """

    def __init__(self, budget_ms: float, now: Callable[[], float] = time.monotonic) -> None:
        """Keep to a budget (ms); `now` tells the time in seconds."""
        self._budget_ms, self._now = budget_ms, now
        self._batches: dict[bool, deque[tuple[float, float]]] = {True: deque(), False: deque()}
        self._late: deque[bool] = deque(maxlen=ANSWERS)
        self._stopped = False

    def better(self, waited_ms: float, photos: int, waiting: int) -> bool:
        """Tell whether the better network is to read a batch.

        Args:
            waited_ms: by its oldest photo.
            photos: in the batch.
            waiting: photos that are left in the queue.
        """
        late = sum(self._late)
        self._stopped = late >= LATE_MAX or (self._stopped and late > 0)
        if self._stopped or photos > 1 or waiting:
            return False
        return waited_ms + self._expected_ms(True) + self._expected_ms(False) <= self._budget_ms

    def took(self, better: bool, batch_ms: float) -> None:
        """Learn how long a network took for a batch, photos decoded and answers written."""
        self._batches[better].append((self._now(), batch_ms))

    def answered(self, latency_ms: float) -> None:
        """Learn how long a photo took from its arrival to its answer."""
        self._late.append(latency_ms > self._budget_ms)

    def _expected_ms(self, better: bool) -> float:
        """Return the 95th percentile of the last batches; 0 if there were none, since trying tells."""
        batches = self._batches[better]
        while batches and batches[0][0] < self._now() - SECONDS:
            batches.popleft()
        durations = sorted(duration for _, duration in batches)
        return durations[int(0.95 * len(durations))] if durations else 0.0
