"""Show how far a sweep is: one live table in a terminal, elsewhere a line for each trial that ends."""

import contextlib
import logging
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from leanface.files import read_json
from leanface.sweep.trials import RESULT, Trial, typical_seconds

STYLES = {"running": "bold", "finished": "green", "failed": "red", "interrupted": "yellow", "waits": "dim"}

ROWS_AROUND = 6
"""Lines of a terminal that the rows leave to the heading, and to what is printed above."""


@contextlib.contextmanager
def shown(folder: Path, jobs: Mapping[str, Mapping[str, Any]], count: int, console: Console) -> Generator[None]:
    """Keep a table of the sweep's trials up to date in a terminal, wherever they run; do nothing elsewhere.

    Args:
        jobs: what is varied in each trial of a grid, by its name; none of a search.
        count: how many trials there will be.
    """
    if not console.is_terminal:
        yield
        return
    quiet = [logging.getLogger(name) for name in ("hydra", "leanface.sweep")]  # the table says it
    before = [each.level for each in quiet]
    for each in quiet:
        each.setLevel(logging.CRITICAL)
    try:
        live = Live(console=console, get_renderable=lambda: table_of(folder, jobs, count, console.height))
        live.auto_refresh, live.refresh_per_second = True, 2
        with live:
            yield
            live.refresh()
    finally:
        for each, level in zip(quiet, before, strict=True):
            each.setLevel(level)


def table_of(folder: Path, jobs: Mapping[str, Mapping[str, Any]], count: int, height: int) -> Table:
    """Draw the trials: those that run, then the newest others, then those that wait, as many as there is room for."""
    trials = _trials(folder, jobs)
    keys = list(dict.fromkeys(key for varied in [*jobs.values(), *(t.varied for t in trials)] for key in varied))
    table = Table(title=f"{folder.name}: {progress(folder, jobs, count)}", title_justify="left", box=None,
                  header_style="dim", pad_edge=False)  # fmt: skip
    for heading in ("Trial", *keys, "Stage"):
        table.add_column(heading)
    table.add_column("Time", justify="right")
    rows = sorted(trials, key=lambda trial: (trial.status == "running", trial.ended or 0.0), reverse=True)
    known = {trial.name for trial in trials}
    waiting = [(name, varied) for name, varied in jobs.items() if name not in known]
    room = max(3, height - ROWS_AROUND)
    for trial in rows[:room]:
        stage = (trial.stage or "starts") if trial.status == "running" else trial.reason or trial.status
        cells = [str(trial.varied.get(key, "")) for key in keys]
        line = stage.splitlines()[0]
        table.add_row(trial.name, *cells, line, duration(trial.seconds), style=STYLES[trial.status])
    for name, varied in waiting[: max(0, room - len(rows))]:
        table.add_row(name, *(str(varied.get(key, "")) for key in keys), "waits", "", style=STYLES["waits"])
    if hidden := len(rows) + len(waiting) - room:
        table.caption = f"and {hidden} more" if hidden > 0 else None
    return table


def progress(folder: Path, jobs: Mapping[str, Mapping[str, Any]], count: int) -> str:
    """Say how many trials have ended, and how long the others will take: "2 of 4, 6 min left"."""
    trials = _trials(folder, jobs)
    failed = sum(trial.status == "failed" for trial in trials)
    parts = [f"{len(_ended(trials))} of {count}", *([f"{failed} failed"] if failed else [])]
    left = seconds_left(trials, count)
    return ", ".join(parts if left is None else [*parts, f"{duration(left)} left"])


def seconds_left(trials: Sequence[Trial], count: int) -> float | None:
    """Estimate how long a sweep goes on, by its trials so far or by earlier ones; None: unknown, or it is over."""
    running = [trial for trial in trials if trial.status == "running"]
    waiting = max(0, count - len(running) - len(_ended(trials)))
    if not running and not waiting:
        return None
    took = [trial.seconds for trial in trials if trial.status == "finished" and trial.stages]
    scale = next((trial.scale for trial in trials if trial.scale is not None), None)
    each = median(took) if took else sum(typical_seconds(scale).values()) if scale is not None else 0.0
    if each == 0.0:
        return None
    left = sum(max(0.0, each - trial.seconds) for trial in running) + each * waiting
    return left / max(1, len(running))


def duration(seconds: float) -> str:
    """Round a time for a reader."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _trials(folder: Path, jobs: Mapping[str, object]) -> list[Trial]:
    found = [Trial(**read_json(path)) for path in folder.glob(f"*/{RESULT}")]
    return [trial for trial in found if not jobs or trial.name in jobs]


def _ended(trials: Sequence[Trial]) -> list[Trial]:
    """Leave out those that run, and those that were interrupted, which will run again."""
    return [trial for trial in trials if trial.status in ("finished", "failed")]
