"""MLflow, as a sink: what ran, with which parameters, and what it measured.

The store is mlflow.db in the project's root folder; `MLFLOW_TRACKING_URI` replaces it. Importing and opening
MLflow takes seconds, so only a stage that reports live curves for longer than that pays for it: the others
leave their record in the outbox, and the next process that opens MLflow (at the latest stage `report`)
delivers it. Nor does a missing or locked store stop a stage: its record stays in the outbox.
"""

import contextlib
import importlib
import json
import logging
import os
import shutil
import subprocess
import time
import uuid
from collections.abc import Generator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from leanface import paths
from leanface.errors import TrackingError
from leanface.networks.interface import INPUT_NAME, OUTPUT_NAME

logger = logging.getLogger(__name__)

EXPERIMENT = "leanface"
LIVE_AFTER_SECONDS = 20.0
FLUSH_SECONDS = 1.0
METRICS_PER_REQUEST = 1000
PARAMS_PER_REQUEST = 100

EXPERIMENT_TAG = "dvc_experiment"
MODEL = "leanface"
"""Name in MLflow's model registry."""
CHAMPION = "champion"
"""Alias of the registered version that passed its gates last."""

HEADLINES = tuple(f"{paths.DEPLOYED}/{name}" for name in ("vertex_error_mm", "vertex_to_original_mm", "speedup"))

SWEEP_TAG = "sweep"
PROMOTED_TAG = "promoted_from"
PARENT_TAG = "mlflow.parentRunId"
PARENT_RUN = "LEANFACE_PARENT_RUN"
"""Environment variable with the id of the run that a stage's runs are children of: that of the trial."""

SUMMARY_TAG = "gates"
"""Only summary runs have it: whether the gates passed."""


@dataclass
class Record:
    """One run, as it lies in the outbox. Times are Unix milliseconds.

    Attributes:
        metrics: (name, value, time, step), those that were not delivered yet.
        artifacts: files and folders to attach, by absolute path.
        model: an ONNX file to log as a model, by absolute path.
        champion: whether that model is registered, as the one to deploy.
        run_id: MLflow's, once it knows of the run.
        note: shown as the run's description once it has ended.
    """

    name: str
    params: dict[str, str]
    tags: dict[str, str]
    started: int
    ended: int | None = None
    status: str = "RUNNING"
    metrics: list[tuple[str, float, int, int]] = field(default_factory=list[tuple[str, float, int, int]])
    artifacts: list[str] = field(default_factory=list[str])
    model: str | None = None
    champion: bool = False
    run_id: str | None = None
    note: str | None = None


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
        run.record.status = "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED"
        raise
    else:
        run.record.status = "FINISHED"
    finally:
        run.record.ended = _now()
        run.close()


def begin_run(
    name: str, params: Mapping[str, Any], tags: Mapping[str, str], parent: str | None = None, run_id: str | None = None
) -> "Run":
    """A run that its caller ends by `Run.finish`: of a sweep, or of a trial.

    Args:
        parent: id of the run that it is shown under.
        run_id: of the run to go on with, if there is one.
    """
    tags = {**_origin(), **tags, **({PARENT_TAG: parent} if parent else {})}
    run = Run(Record(name, _flat(params), tags, _now(), run_id=run_id))
    run.open()
    run.send()
    return run


def log_headline(run: "Run", summary: Mapping[str, Any]) -> None:
    """The deployed variant's numbers of a summary.json, by the same names as in a pipeline's summary run."""
    row: Mapping[str, Any] = summary["variants"][paths.DEPLOYED]
    numbers = {name: value for name, value in row.items() if isinstance(value, int | float)}
    run.log({f"{paths.DEPLOYED}/{name}": value for name, value in numbers.items()}, 0)
    passed = all(gate["passed"] for gate in summary["gates"].values())
    # By a name that comes after the numbers': MLflow's contour plot shows the first one unless asked.
    run.log({f"{paths.DEPLOYED}/passes_gates": float(passed)}, 0)


def in_trial() -> bool:
    """Whether a sweep runs this stage, and will record the pipeline's summary itself."""
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
        artifacts: files and folders to attach.
        tags: in addition to those that say where the run comes from.
        model: the ONNX file that the summary's gates are about.
    """
    passed = all(gate["passed"] for gate in summary["gates"].values())
    tags = {**_origin(), **tags, SUMMARY_TAG: "passed" if passed else "failed"}
    record = Record(tags.get(EXPERIMENT_TAG, "pipeline"), _flat(params), tags, _now(), _now(), "FINISHED")
    record.artifacts = [str(path.resolve()) for path in artifacts]
    record.model = str(model.resolve()) if model else None
    record.champion = passed and EXPERIMENT_TAG not in tags
    run = Run(record)
    numbers = {
        f"{variant}/{name}": value
        for variant, row in summary["variants"].items()
        for name, value in row.items()
        if isinstance(value, int | float)
    }
    run.log({name: numbers[name] for name in sorted(numbers, key=_rank)}, 0)
    run.open()
    run.close()


def deliver() -> int:
    """Send what waits in the outbox to MLflow; returns how many runs that were.

    Raises:
        TrackingError: MLflow is out of reach; what was not delivered still waits.
    """
    waiting = len(list(_outbox().glob("*.json")))
    if waiting:
        try:
            _deliver_outbox(_Store())
        except Exception as error:
            raise TrackingError(
                f"MLflow at {tracking_uri()} is out of reach ({_first_line(error)}); the runs still wait in "
                f"{_outbox()}. Start its server, or set MLFLOW_TRACKING_URI, then run `leanface track` again."
            ) from error
    return waiting


def take_outbox(folder: Path, since: float) -> None:
    """Move what has waited in the outbox since that Unix time to `folder`, for `adopt` on a machine that has MLflow."""
    for path in sorted(_outbox().glob("*.json")):
        if int(path.name.partition("-")[0]) < 1000 * since:
            continue  # of something else
        folder.mkdir(parents=True, exist_ok=True)
        shutil.move(path, folder / path.name)


def adopt(folder: Path, tags: Mapping[str, str]) -> list[str]:
    """Put runs that `take_outbox` moved on another machine into the outbox here; returns their names.

    The pieces of a stage that was run in several become one run: the last one's end, the curves joined.

    Args:
        tags: added to each run's own, which they replace.
    """
    runs: dict[str, Record] = {}
    for record in (Record(**json.loads(path.read_text())) for path in sorted(folder.glob("*.json"))):
        before = runs.get(record.name)
        if before is not None and before.params == record.params and before.status != "FINISHED":
            record.started = before.started
            record.metrics = [*before.metrics, *record.metrics]
        runs[record.name] = record
    for record in runs.values():
        record.tags |= tags
        record.run_id = None
        _post(record)
    return list(runs)


def has_summary(experiment: str) -> bool:
    """Whether the pipeline of this DVC experiment was recorded."""
    try:
        return _Store().has_run({EXPERIMENT_TAG: experiment}, SUMMARY_TAG)
    except Exception as error:
        logger.warning("MLflow is out of reach: %s", error)
        return False


class Run:
    """A run in the making; what it cannot deliver to MLflow goes to the outbox."""

    def __init__(self, record: Record, live_after_s: float = 0.0) -> None:
        self.record = record
        self.live_after_s = live_after_s
        self.store: _Store | None = None
        self.failed = False
        self.flushed = 0.0

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Metrics that can wait until the run has ended."""
        self.record.metrics += [(name, float(value), _now(), step) for name, value in metrics.items()]

    def log_live(self, metrics: Mapping[str, float], step: int) -> None:
        """Metrics that MLflow shows within about a second, once the run is old enough."""
        self.log(metrics, step)
        if _now() - self.record.started >= 1000 * self.live_after_s:
            self.open()
        if self.store is None or self.failed or time.monotonic() - self.flushed < FLUSH_SECONDS:
            return
        with self._tolerant():
            self.store.send(self.record)
        self.flushed = time.monotonic()

    def finish(self, status: str, note: str | None = None) -> None:
        """End the run: FINISHED, FAILED or KILLED."""
        self.record.status, self.record.note, self.record.ended = status, note, _now()
        self.close()

    def send(self) -> None:
        """Deliver what there is, if MLflow is open."""
        if self.store is not None and not self.failed:
            with self._tolerant():
                self.store.send(self.record)

    def open(self) -> None:
        """Open MLflow, unless it is open or out of reach."""
        if self.store is None and not self.failed:
            with self._tolerant():
                self.store = _Store()

    def close(self) -> None:
        """Deliver the rest, and the outbox if MLflow is open."""
        if self.store is not None and not self.failed:
            with self._tolerant():
                self.store.send(self.record)
                _deliver_outbox(self.store)
                return
        with self._tolerant():
            _post(self.record)

    @contextlib.contextmanager
    def _tolerant(self) -> Generator[None]:
        """A stage's result must not depend on its bookkeeping: a failure is said once, the record kept."""
        try:
            yield
        except Exception as error:
            self.failed = True
            logger.warning(
                "MLflow is out of reach (%s); run %r waits in %s until `leanface track` or a later stage delivers it",
                _first_line(error),
                self.record.name,
                _outbox(),
            )


class _Store:
    """An open MLflow store, and this project's experiment in it."""

    def __init__(self) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        import mlflow
        from mlflow.exceptions import MlflowException

        for name in ("mlflow", "alembic"):  # they report on every table that they create
            logging.getLogger(name).setLevel(logging.WARNING)
        self.client = mlflow.MlflowClient(tracking_uri())
        folder = None if "MLFLOW_TRACKING_URI" in os.environ else (store_root() / "mlruns").as_uri()
        experiment = self.client.get_experiment_by_name(EXPERIMENT)
        if experiment is None:
            with contextlib.suppress(MlflowException):  # another process was faster
                self.client.create_experiment(EXPERIMENT, folder)
            experiment = self.client.get_experiment_by_name(EXPERIMENT)
        assert experiment is not None
        self.experiment_id = str(experiment.experiment_id)

    def has_run(self, tags: Mapping[str, str], also: str) -> bool:
        """Whether a run has these tags, and the tag `also` with any value."""
        terms = [f"tags.{name} = '{value}'" for name, value in tags.items()] + [f"tags.{also} LIKE '%'"]
        return bool(self.client.search_runs([self.experiment_id], " AND ".join(terms), max_results=1))

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
        if record.model is not None:
            if Path(record.model).exists():
                self._log_model(record.run_id, Path(record.model), record.champion)
            record.model = None
        if record.note is not None:
            self.client.set_tag(record.run_id, "mlflow.note.content", record.note)
            record.note = None
        if record.ended is not None:
            self.client.set_terminated(record.run_id, record.status, record.ended)

    def _log_model(self, run_id: str, file: Path, champion: bool) -> None:
        import mlflow
        import numpy as np
        import onnx
        from mlflow.models import ModelSignature
        from mlflow.types import Schema, TensorSpec

        from leanface.face.coefficients import COUNT  # with PyTorch, which nothing else here needs

        tensors = {INPUT_NAME: (-1, 3, -1, -1), OUTPUT_NAME: (-1, COUNT)}
        log_model: Any = importlib.import_module("mlflow.onnx").log_model  # its own types leave everything open
        inputs, outputs = (Schema([TensorSpec(np.dtype("float32"), shape, name)]) for name, shape in tensors.items())
        mlflow.set_tracking_uri(tracking_uri())  # logging a model knows no client
        with mlflow.start_run(run_id=run_id):
            logged = log_model(
                onnx.load(file),
                name=file.stem,
                signature=ModelSignature(inputs, outputs),
                pip_requirements=["onnxruntime"],  # MLflow would find out by importing in another process
                registered_model_name=MODEL if champion else None,
            )
        if champion:
            self.client.set_registered_model_alias(MODEL, CHAMPION, str(logged.registered_model_version))


def tracking_uri() -> str:
    """`MLFLOW_TRACKING_URI`, or the project's sqlite store (MLflow's own default moves with the cwd)."""
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


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _origin() -> dict[str, str]:
    """Where a run comes from: git commit, DVC experiment, machine."""
    tags = {"git_commit": _commit(), EXPERIMENT_TAG: os.environ.get("DVC_EXP_NAME", "")}
    tags[PARENT_TAG] = os.environ.get(PARENT_RUN, "")
    if paths.DEVICE.is_file():
        device = json.loads(paths.DEVICE.read_text())
        tags["device"] = ", ".join(gpu["name"] for gpu in device["gpus"]) or device["cpu"]
    return {name: value for name, value in tags.items() if value}


def _rank(metric: str) -> int:
    """Headlines first, then the deployed network's: MLflow's pages plot the first metric unless told otherwise."""
    if metric in HEADLINES:
        return HEADLINES.index(metric)
    return len(HEADLINES) + (not metric.startswith(f"{paths.DEPLOYED}/"))


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
