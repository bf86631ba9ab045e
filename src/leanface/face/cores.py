"""Divides work on one picture among all cores, by threads that are kept: new ones would begin with cold memory."""

import functools
import itertools
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from leanface.device import usable_cores

Part = TypeVar("Part")
Result = TypeVar("Result")

BANDS_PER_CORE = 4
"""They take unequal time: what is done with one takes the next."""


def on_all_cores(function: Callable[[Part], Result], parts: Iterable[Part]) -> list[Result]:
    """Call a function that releases the GIL for each part, and return the results in order.

    The function must not call this: it would wait for a thread that waits for it. Any threads may.
    """
    return list(_threads(usable_cores()).map(function, parts))


def bands(size: int) -> list[tuple[int, int]]:
    """Divide `size` rows, triangles or the like: first and end of each part."""
    count = BANDS_PER_CORE * usable_cores()
    return list(itertools.pairwise(size * part // count for part in range(count + 1)))


@functools.cache
def _threads(cores: int) -> ThreadPoolExecutor:
    """Keep threads for each number of cores: they run where whoever first needed them was allowed to."""
    return ThreadPoolExecutor(cores, thread_name_prefix="leanface")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_threads.cache_clear)  # a forked process has none of them
