"""Serialize timing stages: they wait until no other stage runs on this machine, and others wait for them.

Trials that run in parallel on one machine set the environment variable `MACHINE_LOCK` to a file there. Every stage then
holds a shared lock on that file; a stage that measures time holds an exclusive one. Stages get their turn in the order
in which they ask.
"""

import contextlib
import fcntl
import os
from collections.abc import Generator
from pathlib import Path

MACHINE_LOCK = "LEANFACE_MACHINE_LOCK"
"""Environment variable with the path of the lock file."""

MEASURING = ("analyze", "search", "benchmark")
"""Stages that measure time, which is meaningless while other work runs."""


@contextlib.contextmanager
def hold_machine(stage: str) -> Generator[None]:
    """Hold the machine for a stage, alone if it measures time; does nothing unless `MACHINE_LOCK` is set."""
    name = os.environ.get(MACHINE_LOCK)
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
