"""Deliver what MLflow could not take earlier, or what another machine recorded."""

import shutil
from collections.abc import Mapping
from pathlib import Path

from leanface.errors import TrackingError
from leanface.tracking import outbox
from leanface.tracking.outbox import first_line
from leanface.tracking.record import Record, read_record
from leanface.tracking.store import Store

PATIENCE_SECONDS = 120.0
"""How long to wait for another process that delivers."""


def deliver() -> int:
    """Send what waits in the outbox to MLflow; return how many runs that were.

    Raises:
        TrackingError: MLflow is out of reach, or does not take some of them; what was not delivered still waits.
    """
    if not outbox.holds_any():
        return 0
    try:
        store = Store()
        done = outbox.deliver(store.send_waiting, store.reachable, PATIENCE_SECONDS)
    except TimeoutError:
        raise TrackingError(
            f"Another process has been delivering for {PATIENCE_SECONDS:.0f} s; the runs still wait in "
            f"{outbox.outbox()}. Run `leanface track` again."
        ) from None
    except Exception as error:
        raise TrackingError(
            f"{first_line(error)} The runs still wait in {outbox.outbox()}; then run `leanface track` again."
        ) from error
    if done.held:
        reasons = "\n  ".join(done.held)
        raise TrackingError(
            f"{done.delivered} runs were delivered, and {len(done.held)} still wait in {outbox.outbox()}:\n  {reasons}"
        )
    return done.delivered


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
