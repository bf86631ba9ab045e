"""Carry records for MLflow from a machine that has none to one that does."""

import shutil
from collections.abc import Mapping
from pathlib import Path

from leanface.tracking import outbox
from leanface.tracking.record import Record, read_record


def take_outbox(folder: Path, since: float) -> None:
    """Move what has waited in the outbox since that Unix time to `folder`, for `adopt` on a machine that has MLflow."""
    for path in outbox.waiting():
        if int(path.name.partition("-")[0]) < 1e9 * since:
            continue  # of something else
        folder.mkdir(parents=True, exist_ok=True)
        shutil.move(path, folder / path.name)


def adopt(folder: Path, tags: Mapping[str, str]) -> list[str]:
    """Put runs that `take_outbox` moved on another machine into the outbox here; return their names.

    The pieces of a stage that was run in several become one run: the last one's end, the curves joined.

    Args:
        tags: added to each run's own, which they replace.
    """
    runs: dict[str, Record] = {}
    for record in map(read_record, sorted(folder.glob("*.json"))):
        before = runs.get(record.name)
        if before is not None and before.params == record.params and before.status != "FINISHED":
            record.started = before.started
            record.metrics = [*before.metrics, *record.metrics]
        runs[record.name] = record
    for record in runs.values():
        record.tags |= tags
        record.run_id = None
        outbox.post(record)
    return list(runs)
