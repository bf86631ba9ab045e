"""MLflow, as a sink: what ran, with which parameters, and what it measured.

The store is mlflow.db in the project's root folder; `MLFLOW_TRACKING_URI` replaces it. Importing and opening MLflow takes
seconds, so only a stage that reports live curves pays for it: the others leave their record in the outbox, and the next
process that opens MLflow (at the latest stage `report`) delivers it. Nor does a missing or locked store stop a stage:
its record stays in the outbox.
"""

import contextlib
import json
import logging
import os
import subprocess
import time
import uuid
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from leanface import paths

logger = logging.getLogger(__name__)

EXPERIMENT = "leanface"
FLUSH_SECONDS = 1.0
METRICS_PER_REQUEST = 1000
PARAMS_PER_REQUEST = 100

Log = Callable[[Mapping[str, float], int], None]
"""Takes metrics and their step."""


@dataclass
class Record:
    """One run, as it lies in the outbox. Times are Unix milliseconds.

    Attributes:
        metrics: (name, value, time, step), those that were not delivered yet.
        artifacts: files and folders to attach, by absolute path.
        run_id: MLflow's, once it knows of the run.
    """

    name: str
    params: dict[str, str]
    tags: dict[str, str]
    started: int
    ended: int | None = None
    status: str = "RUNNING"
    metrics: list[tuple[str, float, int, int]] = field(default_factory=list[tuple[str, float, int, int]])
    artifacts: list[str] = field(default_factory=list[str])
    run_id: str | None = None


@contextlib.contextmanager
def stage_run(name: str, params: Mapping[str, Any], tags: Mapping[str, str]) -> Generator[tuple[Log, Log]]:
    """Record one run.

    Args:
        name: the run's name.
        params: nested; recorded under dotted names.
        tags: in addition to those that say where the run comes from.

    Yields:
        Two functions: the first one makes its metrics visible in MLflow within about a second, the second one when the
        run has ended.
    """
    record = Record(name, _flat(params), {**_origin(), **tags}, _now())
    sink = _Sink(record)
    try:
        yield sink.log_live, sink.log
    except BaseException:
        record.status = "FAILED"
        raise
    else:
        record.status = "FINISHED"
    finally:
        record.ended = _now()
        sink.close()


def log_summary(
    metrics: Mapping[str, float], params: Mapping[str, Any], artifacts: Sequence[Path], tags: Mapping[str, str]
) -> None:
    """Record a finished pipeline as a run of its own, and deliver what waits in the outbox."""
    record = Record("pipeline", _flat(params), {**_origin(), **tags}, _now(), _now(), "FINISHED")
    record.artifacts = [str(path.resolve()) for path in artifacts]
    sink = _Sink(record)
    sink.log(metrics, 0)
    sink.open()
    sink.close()


class _Sink:
    """Delivers one record, live once it was opened; what it cannot deliver goes to the outbox."""

    def __init__(self, record: Record) -> None:
        self.record = record
        self.store: _Store | None = None
        self.failed = False
        self.flushed = 0.0

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        self.record.metrics += [(name, float(value), _now(), step) for name, value in metrics.items()]

    def log_live(self, metrics: Mapping[str, float], step: int) -> None:
        self.log(metrics, step)
        self.open()
        if self.store is not None and time.monotonic() - self.flushed > FLUSH_SECONDS:
            with self._tolerant():
                self.store.send(self.record)
            self.flushed = time.monotonic()

    def open(self) -> None:
        if self.store is None and not self.failed:
            with self._tolerant():
                self.store = _Store()

    def close(self) -> None:
        if self.store is not None and not self.failed:
            with self._tolerant():
                self.store.send(self.record)
                _deliver_outbox(self.store)
                return
        if self.record.ended is not None:
            _post(self.record)

    @contextlib.contextmanager
    def _tolerant(self) -> Generator[None]:
        """A run's result must not depend on its bookkeeping: whatever fails here is said once and kept for later."""
        try:
            yield
        except Exception as error:
            self.failed = True
            reason = str(error).strip().splitlines()[:1] or [type(error).__name__]
            logger.warning("MLflow is out of reach (%s); run %r waits in %s", reason[0], self.record.name, _outbox())


class _Store:
    """An open MLflow store, and this project's experiment in it."""

    def __init__(self) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        import mlflow
        from mlflow.exceptions import MlflowException

        logging.getLogger("mlflow").setLevel(logging.WARNING)  # else it reports on every table that it creates
        logging.getLogger("alembic").setLevel(logging.WARNING)
        self.client = mlflow.MlflowClient(tracking_uri())
        folder = None if "MLFLOW_TRACKING_URI" in os.environ else (store_root() / "mlruns").as_uri()
        experiment = self.client.get_experiment_by_name(EXPERIMENT)
        if experiment is None:
            with contextlib.suppress(MlflowException):  # another process was faster
                self.client.create_experiment(EXPERIMENT, folder)
            experiment = self.client.get_experiment_by_name(EXPERIMENT)
        assert experiment is not None
        self.experiment_id = str(experiment.experiment_id)

    def send(self, record: Record) -> None:
        """Deliver what is new in a record."""
        from mlflow.entities import Metric, Param

        if record.run_id is None:
            run = self.client.create_run(self.experiment_id, record.started, record.tags, record.name)
            record.run_id = str(run.info.run_id)
            params = [Param(key, value) for key, value in record.params.items()]
            for start in range(0, len(params), PARAMS_PER_REQUEST):
                self.client.log_batch(record.run_id, params=params[start : start + PARAMS_PER_REQUEST])
        while record.metrics:
            batch = record.metrics[:METRICS_PER_REQUEST]
            self.client.log_batch(record.run_id, metrics=[Metric(*metric) for metric in batch])
            del record.metrics[: len(batch)]
        while record.artifacts:
            path = Path(record.artifacts[0])
            if path.is_dir():
                self.client.log_artifacts(record.run_id, str(path), path.name)
            elif path.exists():
                self.client.log_artifact(record.run_id, str(path))
            del record.artifacts[0]
        if record.ended is not None:
            self.client.set_terminated(record.run_id, record.status, record.ended)


def tracking_uri() -> str:
    """`MLFLOW_TRACKING_URI`, or the project's sqlite store by absolute path (MLflow's default moves with the cwd)."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{store_root() / 'mlflow.db'}"


def store_root() -> Path:
    """The project's folder, also from within the temporary checkouts that DVC runs experiments in."""
    here = Path.cwd()
    checkouts = [parent for parent in here.parents if parent.name == ".dvc"]  # PROJECT/.dvc/tmp/exps/...
    return checkouts[-1].parent if checkouts else here


def _outbox() -> Path:
    return store_root() / ".cache" / "mlflow-outbox"


def _post(record: Record) -> None:
    folder = _outbox()
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{record.started}-{uuid.uuid4().hex}"
    staging = folder / f".{name}"
    staging.write_text(json.dumps(asdict(record)))
    staging.rename(folder / f"{name}.json")


def _deliver_outbox(store: _Store) -> None:
    for path in sorted(_outbox().glob("*.json")):
        claimed = path.with_suffix(".sending")
        try:
            path.rename(claimed)  # so that of several processes one delivers it
        except FileNotFoundError:
            continue
        record = Record(**json.loads(claimed.read_text()))
        try:
            store.send(record)
        except BaseException:
            _post(record)  # with what was delivered taken out
            raise
        finally:
            claimed.unlink()


def _origin() -> dict[str, str]:
    """Where a run comes from: git commit, DVC experiment, machine."""
    git = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    tags = {"git_commit": git.stdout.strip(), "dvc_experiment": os.environ.get("DVC_EXP_NAME", "")}
    if paths.DEVICE.is_file():
        device = json.loads(paths.DEVICE.read_text())
        tags["device"] = ", ".join(gpu["name"] for gpu in device["gpus"]) or device["cpu"]
    return {name: value for name, value in tags.items() if value}


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
