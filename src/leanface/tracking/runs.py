"""Record runs while they happen, and hand them to MLflow."""

import contextlib
import json
import logging
import os
import shutil
import subprocess
import time
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

from leanface import catalog, paths
from leanface.errors import ArtifactError, TrackingError
from leanface.tracking import outbox
from leanface.tracking.champion import newest_made
from leanface.tracking.names import EXPERIMENT_TAG, HEADLINES, PARENT_RUN, PARENT_TAG, SUMMARY_TAG
from leanface.tracking.outbox import Delivery, first_line
from leanface.tracking.place import store_root
from leanface.tracking.record import Record, find_files, read_record
from leanface.tracking.store import Store

logger = logging.getLogger(__name__)

LIVE_AFTER_SECONDS = 20.0
FLUSH_SECONDS = 1.0

STAGE_PATIENCE_SECONDS = 10.0
"""How long a stage waits for another process that delivers; what waits then is delivered later."""

PATIENCE_SECONDS = 120.0


@contextlib.contextmanager
def stage_run(
    name: str, params: Mapping[str, Any], tags: Mapping[str, str], live_after_s: float = LIVE_AFTER_SECONDS
) -> Generator["Run"]:
    """Record what the body logs as one run.

    Args:
        name: the run's name.
        params: nested; recorded under dotted names.
        tags: in addition to those that say where the run comes from.
        live_after_s: MLflow shows nothing of a run that is younger.
    """
    run = Run(Record(name, _flat(params), {**_origin(), **tags}, _now()), live_after_s)
    try:
        yield run
    except BaseException as error:
        run.finish("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
        raise
    else:
        run.finish("FINISHED")


def begin_run(
    name: str, params: Mapping[str, Any], tags: Mapping[str, str], parent: str | None = None, run_id: str | None = None
) -> "Run":
    """Begin a run that its caller ends by `Run.finish`: of a sweep, or of a trial.

    Args:
        parent: id of the run that it is shown under.
        run_id: of the run to go on with, if there is one.
    """
    tags = {**_origin(), **tags, **({PARENT_TAG: parent} if parent else {})}
    run = Run(Record(name, _flat(params), tags, _now(), run_id=run_id))
    run.open()
    run.resume()
    return run


def log_headline(run: "Run", summary: Mapping[str, Any]) -> None:
    """Log the deployed variant's numbers of a summary.json, by the same names as in a pipeline's summary run."""
    row: Mapping[str, Any] = summary["variants"][catalog.DEPLOYED]
    numbers = {name: value for name, value in row.items() if isinstance(value, int | float)}
    run.log({f"{catalog.DEPLOYED}/{name}": value for name, value in numbers.items()}, 0)
    # By a name that comes after the numbers': MLflow's contour plot shows the first one unless asked.
    run.log({f"{catalog.DEPLOYED}/passes_gates": float(_passed(summary))}, 0)


def in_trial() -> bool:
    """Tell whether a sweep runs this stage, and will record the pipeline's summary itself."""
    return PARENT_RUN in os.environ


def log_summary(
    summary: Mapping[str, Any],
    params: Mapping[str, Any],
    artifacts: Sequence[Path],
    tags: Mapping[str, str],
    model: Path | None = None,
) -> None:
    """Record a finished pipeline as a run of its own, and deliver what waits in the outbox.

    If the gates passed, its model becomes the registered `MODEL`'s `CHAMPION`; an experiment's does not, since an
    experiment is applied before it counts.

    Args:
        summary: contents of summary.json; each variant's numbers are recorded as VARIANT/METRIC.
        params: the configuration.
        artifacts: files and folders to attach, as they are now.
        tags: in addition to those that say where the run comes from.
        model: the ONNX file that the summary's gates are about.
    """
    passed = _passed(summary)
    tags = {**_origin(), **tags, SUMMARY_TAG: "passed" if passed else "failed"}
    run = Run(Record(tags.get(EXPERIMENT_TAG, "pipeline"), _flat(params), tags, _now()))
    record = run.record
    record.files, record.missing = find_files(artifacts, store_root())
    networks, missing = find_files([] if model is None else [model], store_root())
    record.model, record.missing = next(iter(networks), None), record.missing + missing
    record.champion = passed and EXPERIMENT_TAG not in tags
    numbers = {
        f"{variant}/{name}": value
        for variant, row in summary["variants"].items()
        for name, value in row.items()
        if isinstance(value, int | float)
    }
    run.log({name: numbers[name] for name in sorted(numbers, key=_rank)}, 0)
    run.open()
    record.made_at = _later_than_others(run)
    run.finish("FINISHED")


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
        if int(path.name.partition("-")[0]) < 1000 * since:
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


class Run:
    """A run in the making; what it cannot deliver to MLflow goes to the outbox."""

    def __init__(self, record: Record, live_after_s: float = 0.0) -> None:
        """Start the clock; MLflow is opened when there is something to show."""
        self.record = record
        self.live_after_s = live_after_s
        self.store: Store | None = None
        self.failed = False
        self.begun = time.monotonic()
        self.flushed = 0.0

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Log metrics that can wait until the run has ended."""
        self.record.metrics += [(name, float(value), _now(), step) for name, value in metrics.items()]

    def log_live(self, metrics: Mapping[str, float], step: int) -> None:
        """Log metrics that MLflow shows within about a second, once the run is old enough."""
        self.log(metrics, step)
        if time.monotonic() - self.begun >= self.live_after_s:
            self.open()
        if time.monotonic() - self.flushed >= FLUSH_SECONDS:
            self.send()
            self.flushed = time.monotonic()

    def finish(self, status: str, note: str | None = None) -> None:
        """End the run as FINISHED, FAILED or KILLED, and deliver it, and the outbox, if MLflow is open."""
        self.record.status, self.record.note = status, note
        self.record.ended = max(self.record.started, _now())  # the clock may have been set back
        try:
            outbox.post(self.record)
        except (ArtifactError, OSError) as error:
            self._finish_without_outbox(error)
            return
        if self.store is not None and not self.failed:
            with self.tolerant(), contextlib.suppress(TimeoutError):  # whoever delivers may take it along
                _warn(outbox.deliver(self.store.send_waiting, self.store.reachable, STAGE_PATIENCE_SECONDS))

    def send(self) -> None:
        """Deliver what there is, if MLflow is open."""
        if self.store is not None and not self.failed:
            with self.tolerant():
                self.store.send(self.record)

    def resume(self) -> None:
        """Show the run, going on with the one that the record names unless that was deleted."""
        if self.store is not None:
            with self.tolerant():
                self.store.find_run(self.record)
                self.store.send(self.record)

    def open(self) -> None:
        """Open MLflow, unless it is open or out of reach."""
        if self.store is None and not self.failed:
            with self.tolerant():
                self.store = Store()

    @contextlib.contextmanager
    def tolerant(self) -> Generator[None]:
        """Say a failure once, and go on: a stage's result must not depend on its bookkeeping."""
        try:
            yield
        except Exception as error:
            self.failed = True
            logger.warning(
                "%s Run %r waits in %s until `leanface track` or a later stage delivers it",
                first_line(error),
                self.record.name,
                outbox.outbox(),
            )

    def _finish_without_outbox(self, reason: Exception) -> None:
        """Deliver the run at once, or say that it is lost."""
        try:
            if self.store is None or self.failed:
                raise reason
            self.store.send(self.record)
        except Exception as error:
            logger.error("run %r is lost to MLflow: it can neither be delivered nor kept (%s)", self.record.name, error)


def _warn(done: Delivery) -> None:
    if done.held:
        logger.warning("%d runs still wait for MLflow; `leanface track` says why", len(done.held))


def _later_than_others(run: Run) -> int:
    """Return the time, or more if the clock was set back since another run that is known here was recorded."""
    known = [_now()]
    with run.tolerant():
        if run.store is not None:
            known.append(newest_made(run.store.client) + 1)
    for path in outbox.waiting():
        with contextlib.suppress(Exception):  # delivery says what is wrong with it
            known.append(read_record(path).made_at + 1)
    return max(known)


def _passed(summary: Mapping[str, Any]) -> bool:
    return all(gate["passed"] for gate in summary["gates"].values())


def _origin() -> dict[str, str]:
    """Return where a run comes from: git commit, DVC experiment, machine."""
    tags = {"git_commit": _commit(), EXPERIMENT_TAG: os.environ.get("DVC_EXP_NAME", "")}
    tags[PARENT_TAG] = os.environ.get(PARENT_RUN, "")
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # stages that need it say so
        device = json.loads(paths.DEVICE.read_text())
        tags["device"] = ", ".join(gpu["name"] for gpu in device["gpus"]) or device["cpu"]
    return {name: value for name, value in tags.items() if value}


def _rank(metric: str) -> int:
    """Put headlines first, then the deployed network's: MLflow's pages plot the first metric unless told otherwise."""
    if metric in HEADLINES:
        return HEADLINES.index(metric)
    return len(HEADLINES) + (not metric.startswith(f"{catalog.DEPLOYED}/"))


def _commit() -> str:
    try:
        git = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    except FileNotFoundError:  # no git on this machine
        return ""
    return git.stdout.strip()


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")  # pyright: ignore[reportUnknownArgumentType]
        else:
            flat[f"{prefix}{key}"] = str(value)
    return flat


def _now() -> int:
    return time.time_ns() // 1_000_000
