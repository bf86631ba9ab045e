"""Record runs while they happen, and hand them to MLflow."""

import contextlib
import importlib
import json
import logging
import os
import subprocess
import time
from collections.abc import Generator, Mapping
from typing import Any

from leanface import paths
from leanface.errors import ArtifactError
from leanface.tracking import outbox
from leanface.tracking.group import join_pipeline
from leanface.tracking.names import EXPERIMENT_TAG, PARENT_RUN, PARENT_TAG, PIPELINE_TAG
from leanface.tracking.outbox import Delivery, first_line
from leanface.tracking.place import tracking_uri
from leanface.tracking.record import Record
from leanface.tracking.store import Store

logger = logging.getLogger(__name__)

LIVE_AFTER_SECONDS = 20.0
FLUSH_SECONDS = 1.0

STAGE_PATIENCE_SECONDS = 10.0
"""How long a stage waits for another process that delivers; what waits then is delivered later."""


@contextlib.contextmanager
def stage_run(
    name: str,
    params: Mapping[str, Any],
    tags: Mapping[str, str],
    live_after_s: float = LIVE_AFTER_SECONDS,
    *,
    in_pipeline: bool = False,
) -> Generator["Run"]:
    """Record what the body logs as one run.

    Args:
        name: the run's name.
        params: nested; recorded under dotted names.
        tags: in addition to those that say where the run comes from.
        live_after_s: MLflow shows nothing of a run that is younger.
        in_pipeline: MLflow shows it below the pipeline's summary run, once there is one.
    """
    tags = {**origin(), **tags}
    if in_pipeline and PARENT_TAG not in tags:
        tags[PIPELINE_TAG] = join_pipeline().id
    run = Run(Record(name, flatten(params), tags, now()), live_after_s)
    try:
        yield run
    except BaseException as error:
        run.finish("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
        raise
    else:
        run.finish("FINISHED")


def record_part(stage: str, name: str, params: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
    """Record a run of its own for something that a stage tried."""
    with stage_run(name, params, {"stage": stage}, in_pipeline=True) as run:
        run.log(metrics, 0)


def begin_run(
    name: str, params: Mapping[str, Any], tags: Mapping[str, str], parent: str | None = None, run_id: str | None = None
) -> "Run":
    """Begin a run that its caller ends by `Run.finish`: of a sweep, or of a trial.

    Args:
        parent: id of the run that it is shown under.
        run_id: of the run to go on with, if there is one.
    """
    tags = {**origin(), **tags, **({PARENT_TAG: parent} if parent else {})}
    run = Run(Record(name, flatten(params), tags, now(), run_id=run_id))
    run.open()
    run.resume()
    return run


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
        self._monitor: Any = None

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Log metrics that can wait until the run has ended."""
        self.record.metrics += [(name, float(value), now(), step) for name, value in metrics.items()]

    def log_live(self, metrics: Mapping[str, float], step: int) -> None:
        """Log metrics that MLflow shows within about a second, once the run is old enough."""
        self.log(metrics, step)
        if time.monotonic() - self.begun >= self.live_after_s:
            self.open()
        if time.monotonic() - self.flushed >= FLUSH_SECONDS:
            self.send()
            self._watch_machine()
            self.flushed = time.monotonic()

    def finish(self, status: str, note: str | None = None) -> None:
        """End the run as FINISHED, FAILED or KILLED, and deliver it, and the outbox, if MLflow is open."""
        self.record.status, self.record.note = status, note or self.record.note
        self.record.ended = max(self.record.started, now())  # the clock may have been set back
        if self._monitor is not None:
            with self.tolerant():
                self._monitor.finish()
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

    def _watch_machine(self) -> None:
        """Let MLflow note what the machine's processor, memory, disk and GPUs do, every ten seconds while it runs."""
        if self._monitor is None and self.store is not None and not self.failed and self.record.run_id is not None:
            with self.tolerant():
                module = importlib.import_module("mlflow.system_metrics.system_metrics_monitor")
                self._monitor = module.SystemMetricsMonitor(self.record.run_id, tracking_uri=tracking_uri())
                self._monitor.start()

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


def origin() -> dict[str, str]:
    """Return where a run comes from: git commit, DVC experiment, machine."""
    tags = {"git_commit": _commit(), EXPERIMENT_TAG: os.environ.get("DVC_EXP_NAME", "")}
    tags[PARENT_TAG] = os.environ.get(PARENT_RUN, "")
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # stages that need it say so
        device = json.loads(paths.DEVICE.read_text())
        tags["device"] = ", ".join(gpu["name"] for gpu in device["gpus"]) or device["cpu"]
    return {name: value for name, value in tags.items() if value}


def _commit() -> str:
    try:
        git = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    except FileNotFoundError:  # no git on this machine
        return ""
    return git.stdout.strip()


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return a nested mapping's values under dotted names."""
    flat: dict[str, str] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")  # pyright: ignore[reportUnknownArgumentType]
        else:
            flat[f"{prefix}{key}"] = str(value)
    return flat


def now() -> int:
    return time.time_ns() // 1_000_000
