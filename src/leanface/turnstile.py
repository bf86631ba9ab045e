"""Measuring and computing on one machine do not go together: who measures waits until no other stage runs.

Trials that run in parallel on one machine set `TURNSTILE` to a file there. Every stage then holds a shared lock on it,
and a stage that measures time an exclusive one. A stage in waiting keeps those that come after it from overtaking.
"""

import contextlib
import fcntl
import os
from collections.abc import Generator
from pathlib import Path

TURNSTILE = "LEANFACE_TURNSTILE"

MEASURING = ("analyze", "benchmark")
"""Stages whose result is a time, and is worth nothing beside other work."""


@contextlib.contextmanager
def passed(stage: str) -> Generator[None]:
    """Hold the machine as this stage needs it; nothing happens where `TURNSTILE` is not set."""
    name = os.environ.get(TURNSTILE)
    if name is None:
        yield
        return
    path = Path(name)
    with path.open("a") as machine:
        with path.with_suffix(".gate").open("a") as gate:
            # Held while waiting, so that a stream of stages cannot starve a measuring one.
            fcntl.flock(gate, fcntl.LOCK_EX)
            fcntl.flock(machine, fcntl.LOCK_EX if stage in MEASURING else fcntl.LOCK_SH)
        yield
