"""Send runs to MLflow."""

import contextlib
import logging
import os
import tempfile
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from leanface.errors import TrackingError
from leanface.tracking import outbox
from leanface.tracking.champion import register_champion
from leanface.tracking.locks import locked
from leanface.tracking.models import log_datasets, log_photos_model, log_variants
from leanface.tracking.names import (
    EXPERIMENT,
    NOTE_TAG,
    PARENT_TAG,
    PIPELINE_TAG,
    RECORD_TAG,
    SUMMARY_TAG,
    registered_name,
    registered_photos_name,
)
from leanface.tracking.outbox import RefusedError, fetch, first_line
from leanface.tracking.packages import MORPHABLE_MODEL, NETWORK
from leanface.tracking.place import cache, database, store_root, tracking_uri
from leanface.tracking.record import File, Record
from leanface.tracking.view import describe_experiment

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment

logger = logging.getLogger(__name__)

METRICS_PER_REQUEST = 1000
PARAMS_PER_REQUEST = 100
PATIENCE_SECONDS = 120.0
"""How long to wait for another process that delivers."""

OPENING_SECONDS = 60.0
"""How long to wait for another process that creates the database or brings it up to date."""

ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    # MLflow's own defaults let a stage wait a quarter of an hour for a server that does not answer.
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
}

REFUSALS = (
    "BAD_REQUEST",
    "INVALID_PARAMETER_VALUE",
    "INVALID_STATE",
    "RESOURCE_ALREADY_EXISTS",
    "RESOURCE_DOES_NOT_EXIST",
)
"""What MLflow answers if a request is at fault, and not MLflow."""


class Store:
    """An open MLflow store, and this project's experiment in it.

    Raises:
        TrackingError: MLflow is out of reach.
    """

    def __init__(self) -> None:
        """Import MLflow and open the store; this takes seconds."""
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        import mlflow

        for name in ("mlflow", "mlflow.system_metrics", "alembic"):  # they report on every table that they create
            logging.getLogger(name).setLevel(logging.WARNING)
        try:
            with _alone():
                mlflow.set_tracking_uri(tracking_uri())  # registering a model knows no client
                self.client: MlflowClient = mlflow.MlflowClient()
                self.experiment_id = self._experiment_id()
                describe_experiment(self.client, self.experiment_id)
        except Exception as error:
            raise TrackingError(_unreachable(error)) from error

    def reachable(self) -> bool:
        """Ask MLflow for something small."""
        try:
            self.client.get_experiment(self.experiment_id)
        except Exception:
            return False
        return True

    def send(self, record: Record) -> None:
        """Deliver what is new in a record."""
        from mlflow.entities import Metric

        if record.run_id is None:
            tags = {**self._parent_of(record), **record.tags, RECORD_TAG: record.id}
            run = self.client.create_run(self.experiment_id, record.started, tags, record.name)
            record.run_id = str(run.info.run_id)
            self._log_params(record.run_id, record.params)
        while record.metrics:
            batch = record.metrics[:METRICS_PER_REQUEST]
            self.client.log_batch(record.run_id, metrics=[Metric(*metric) for metric in batch])
            del record.metrics[: len(batch)]
        if record.ended is not None:
            self._complete(record, record.run_id, record.ended)

    def _complete(self, record: Record, run_id: str, ended: int) -> None:
        """Deliver what a run has once it has ended."""
        missing = [*record.missing, *self._send_files(run_id, record.files), *self._send_variants(record)]
        if missing:
            self.client.set_tag(run_id, "missing", ", ".join(missing))
            logger.warning(
                "run %r is in MLflow without %s: changed or removed since it was recorded, and no copy was kept",
                record.name, ", ".join(missing),
            )  # fmt: skip
        if SUMMARY_TAG in record.tags:
            self._show_stages_below(record, run_id)
        if record.note is not None:
            self.client.set_tag(run_id, NOTE_TAG, record.note.replace("{run_id}", run_id))
        self.client.set_terminated(run_id, record.status, ended)

    def send_waiting(self, record: Record) -> None:
        """Deliver a record from the outbox, of which a part may have arrived before.

        Raises:
            RefusedError: MLflow will never take it.
        """
        from mlflow.exceptions import MlflowException

        try:
            self._go_on(record)
        except MlflowException as error:
            if error.error_code not in REFUSALS:
                raise
            before, self.experiment_id = self.experiment_id, self._experiment_id()
            if self.experiment_id == before:
                self._say_incomplete(record, error)
                raise RefusedError(str(error)) from error
            self._go_on(record)  # the experiment was deleted since it was opened

    def _go_on(self, record: Record) -> None:
        self.find_run(record)
        self.send(record)

    def find_run(self, record: Record) -> None:
        """Go on with the run of a record; one that was deleted stays so, and what is left becomes a new one."""
        found = self.client.search_runs([self.experiment_id], f"tags.{RECORD_TAG} = '{record.id}'", max_results=1)
        if found:
            record.run_id = str(found[0].info.run_id)
            self._log_params(record.run_id, {k: v for k, v in record.params.items() if k not in found[0].data.params})
        elif record.run_id is not None and not self._is_active(record.run_id):
            logger.warning(
                "run %r was deleted in MLflow, or belongs to another store: what was not delivered becomes a new run",
                record.name,
            )
            record.run_id = None

    def _is_active(self, run_id: str) -> bool:
        from mlflow.exceptions import MlflowException

        try:
            info = self.client.get_run(run_id).info
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return False
        return info.lifecycle_stage == "active" and info.experiment_id == self.experiment_id

    def _log_params(self, run_id: str, values: Mapping[str, str]) -> None:
        from mlflow.entities import Param

        params = [Param(key, value) for key, value in values.items()]
        for start in range(0, len(params), PARAMS_PER_REQUEST):
            self.client.log_batch(run_id, params=params[start : start + PARAMS_PER_REQUEST])

    def _say_incomplete(self, record: Record, reason: Exception) -> None:
        """Mark the run of a record of which MLflow does not take the rest, so that nobody waits for it."""
        if record.run_id is None:
            return
        with contextlib.suppress(Exception):  # the record tells it too
            self.client.set_tag(record.run_id, NOTE_TAG, f"Incomplete: MLflow refused the rest ({first_line(reason)})")
            self.client.set_terminated(record.run_id, "FAILED", record.ended)

    def _send_files(self, run_id: str, files: Sequence[File]) -> list[str]:
        """Attach the files, each as it was when the run was recorded; return the names of those that are gone."""
        if not files:
            return []
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            missing = [file.name for file in files if not fetch(file, folder / file.name)]
            self.client.log_artifacts(run_id, name)
        return missing

    def _send_variants(self, record: Record) -> list[str]:
        """Log the networks as models, and choose the champion; return the names of the files that are gone."""
        log_datasets(self.client, record)
        with tempfile.TemporaryDirectory() as name:
            parts = {} if record.model is None else {NETWORK: record.model, **record.beside}
            files = {part: Path(name) / part / file.name for part, file in parts.items()}
            missing = [file.name for part, file in parts.items() if not fetch(file, files[part])]
            models = log_variants(self.client, self.experiment_id, record, {} if missing else files)
            if record.champion and record.model is not None and not missing:
                chosen = {registered_name(record.task): models[Path(record.model.name).stem]}
                if MORPHABLE_MODEL in files:
                    photos = log_photos_model(self.client, self.experiment_id, record, files)
                    chosen[registered_photos_name(record.task)] = photos
                register_champion(self.client, record, record.model, chosen)
        return missing

    def _parent_of(self, record: Record) -> dict[str, str]:
        """Return the tag that shows a stage below its pipeline, if that has ended already."""
        pipeline = record.tags.get(PIPELINE_TAG)
        if pipeline is None or SUMMARY_TAG in record.tags:
            return {}
        query = f"tags.{PIPELINE_TAG} = '{pipeline}' AND tags.{SUMMARY_TAG} LIKE '%'"
        found = self.client.search_runs([self.experiment_id], query, max_results=1)
        return {PARENT_TAG: found[0].info.run_id} if found else {}

    def _show_stages_below(self, record: Record, run_id: str) -> None:
        """Make the stages of a pipeline, which ended before it did, its children."""
        if (pipeline := record.tags.get(PIPELINE_TAG)) is None:
            return
        for run in self.client.search_runs([self.experiment_id], f"tags.{PIPELINE_TAG} = '{pipeline}'"):
            if run.info.run_id != run_id and PARENT_TAG not in run.data.tags:
                self.client.set_tag(run.info.run_id, PARENT_TAG, run_id)

    def _experiment_id(self) -> str:
        """Return the id of the project's experiment, a new one if it was deleted or there is none."""
        from mlflow.exceptions import MlflowException

        folder = None if "MLFLOW_TRACKING_URI" in os.environ else (store_root() / "mlruns").as_uri()
        experiment = self.client.get_experiment_by_name(EXPERIMENT)
        if experiment is not None and experiment.lifecycle_stage == "deleted":
            self._free_name(experiment)
            experiment = None
        if experiment is None:
            with contextlib.suppress(MlflowException):  # another process was faster
                return str(self.client.create_experiment(EXPERIMENT, folder))
            experiment = self.client.get_experiment_by_name(EXPERIMENT)
        assert experiment is not None
        return str(experiment.experiment_id)

    def _free_name(self, deleted: "Experiment") -> None:
        """Rename a deleted experiment: MLflow keeps its name until `mlflow gc`, and only renames active ones."""
        number = str(deleted.experiment_id)
        self.client.restore_experiment(number)
        self.client.rename_experiment(number, f"{EXPERIMENT} (deleted, {number})")
        self.client.delete_experiment(number)
        logger.warning("MLflow's experiment %r was deleted; a new one takes its name", EXPERIMENT)


@contextlib.contextmanager
def _alone() -> Generator[None]:
    """Open a database while no other process does: the first ones would create its tables at the same time."""
    file = database()
    if file is None:
        yield
        return
    own = file.parent == store_root()
    with locked(cache() / "mlflow-database.lock" if own else file.with_name(f".{file.name}.lock"), OPENING_SECONDS):
        yield


def _unreachable(error: Exception) -> str:
    """Say what to do about it."""
    what = f"MLflow at {tracking_uri()} is out of reach ({first_line(error)})."
    if (file := database()) is None:
        return f"{what} Start its server, or set MLFLOW_TRACKING_URI to another one."
    if isinstance(error, TimeoutError):
        return f"{what} Another process has been opening it for {OPENING_SECONDS:.0f} s: end that one."
    if "locked" in str(error):
        return f"{what} Another process writes to {file}: wait for it, or end it."
    return (
        f"{what} If {file} is damaged, move it away, and a new one is created; if it is of an older MLflow: "
        f"mlflow db upgrade {tracking_uri()}"
    )


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
