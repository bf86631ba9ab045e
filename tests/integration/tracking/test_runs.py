"""What was measured reaches MLflow, sooner or later, and never stops a stage."""

import logging
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from leanface import tracking
from leanface.errors import TrackingError

Runs = Callable[[], dict[str, Run]]

SUMMARY = {
    "device": {"cpu": "some"},
    "variants": {"quantized_int8": {"mse": 0.001, "runtime": "openvino", "energy_ratio": None}},
    "gates": {"mse": {"limit": 0.005, "value": 0.001, "passed": True}},
}


def waiting(project: Path) -> int:
    return len(list((project / ".cache/mlflow-outbox").glob("*")))


def test_live_metrics_arrive_while_the_stage_runs(runs: Runs) -> None:
    params = {"distill": {"alpha": 0.3}}
    with tracking.stage_run("distill", params, {"stage": "distill"}, live_after_s=0) as run:
        run.log_live({"loss": 2.0}, 0)
        assert runs()["distill"].info.status == "RUNNING"
        assert runs()["distill"].data.metrics == {"loss": 2.0}
        run.log_live({"loss": 1.0}, 1)
    recorded = runs()["distill"]
    assert recorded.info.status == "FINISHED"
    assert recorded.data.metrics == {"loss": 1.0}
    assert recorded.data.params == {"distill.alpha": "0.3"}
    assert recorded.data.tags["stage"] == "distill"
    client = MlflowClient(tracking.tracking_uri())
    history = client.get_metric_history(recorded.info.run_id, "loss")
    assert [(point.step, point.value) for point in history] == [(0, 2.0), (1, 1.0)]


def test_a_short_stage_does_not_open_mlflow(project: Path, runs: Runs) -> None:
    with tracking.stage_run("distill", {}, {}, live_after_s=3600) as run:
        run.log_live({"loss": 2.0}, 0)
        assert run.store is None
    assert waiting(project) == 1
    assert runs() == {}


def test_other_records_wait_and_are_delivered_with_their_own_times(project: Path, runs: Runs) -> None:
    with tracking.stage_run("prune", {}, {}) as run:
        run.log({"macs": 1e9}, 0)
    started = run.record.started
    assert waiting(project) == 1
    assert runs() == {}
    tracking.log_summary(SUMMARY, {"prune": {"ratio": 0.5}}, [], {})
    assert waiting(project) == 0
    recorded = runs()
    assert set(recorded) == {"prune", "pipeline"}
    assert recorded["prune"].info.start_time == started
    assert recorded["prune"].data.metrics == {"macs": 1e9}


def test_the_summary_has_numbers_parameters_gates_and_files(
    project: Path, runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_EXP_NAME", "trial-1")
    page, folder = project / "report.md", project / "figures"
    page.write_text("proof")
    folder.mkdir()
    (folder / "picture.txt").write_text("faces")
    tracking.log_summary(SUMMARY, {"prune": {"ratio": 0.5}}, [page, folder, project / "absent"], {})
    recorded = runs()["trial-1"]
    assert recorded.data.metrics == {"quantized_int8/mse": 0.001, "mse": 0.001}
    assert recorded.data.params == {"prune.ratio": "0.5"}
    assert recorded.data.tags["gates"] == "passed"
    files = Path(recorded.info.artifact_uri.removeprefix("file://"))
    assert (files / "report.md").read_text() == "proof"
    assert (files / "figures/picture.txt").read_text() == "faces"
    assert project in files.parents, "artifacts lie in the project, wherever the process runs"
    assert recorded.data.tags["missing"] == "absent"


def test_the_metric_that_pages_plot_first_tells_runs_apart(project: Path, runs: Runs) -> None:
    variants = {
        "teacher_fp32": {"ssim": 1.0, "truth_vertex_mm": 1.4},
        "quantized_int8": {"ssim": 0.98, "speedup": 12.0, "truth_vertex_mm": 1.9},
    }
    tracking.log_summary(SUMMARY | {"variants": variants}, {}, [], {})
    names = list(runs()["pipeline"].data.metrics)
    assert names[:2] == ["quantized_int8/truth_vertex_mm", "quantized_int8/speedup"]
    assert names.index("quantized_int8/ssim") < names.index("teacher_fp32/ssim")


def test_a_locked_store_stops_nothing_and_loses_nothing(
    project: Path, runs: Runs, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{project}/mlflow.db?timeout=0.1")  # seconds; 5 otherwise
    other = sqlite3.connect(project / "mlflow.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with (
        caplog.at_level(logging.WARNING, "leanface"),
        tracking.stage_run("distill", {}, {}, live_after_s=0) as run,
    ):
        run.log_live({"loss": 1.0}, 0)
    (message,) = [record.getMessage() for record in caplog.records if record.name.startswith(tracking.__name__)]
    assert "locked" in message
    assert "leanface track" in message
    assert waiting(project) == 1
    with pytest.raises(TrackingError, match=r"(?s)locked.*Another process.*The runs still wait.*leanface track"):
        tracking.deliver()
    other.execute("ROLLBACK")
    other.close()
    assert tracking.deliver() == 1
    assert runs()["distill"].data.metrics == {"loss": 1.0}


def test_what_waits_can_be_delivered_later(project: Path, runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    with tracking.stage_run("prune", {}, {}):
        pass
    healthy = (project / "mlflow.db").read_bytes()
    (project / "mlflow.db").write_bytes(b"this is no database")
    with pytest.raises(TrackingError, match="leanface track"):
        tracking.deliver()
    assert waiting(project) == 1
    (project / "mlflow.db").write_bytes(healthy)
    assert tracking.deliver() == 1
    assert waiting(project) == 0
    assert set(runs()) == {"prune"}
    assert tracking.deliver() == 0


@pytest.mark.parametrize(("error", "status"), [(ZeroDivisionError, "FAILED"), (KeyboardInterrupt, "KILLED")])
def test_how_a_stage_ended_is_recorded_and_it_still_ends_so(
    runs: Runs, error: type[BaseException], status: str
) -> None:
    def stage() -> None:
        with tracking.stage_run("distill", {}, {}, live_after_s=0) as run:
            run.log_live({"loss": 1.0}, 0)
            raise error

    with pytest.raises(error):
        stage()
    assert runs()["distill"].info.status == status


def test_an_unreachable_store_stops_nothing_and_loses_nothing(
    project: Path, runs: Runs, caplog: pytest.LogCaptureFixture
) -> None:
    store = project / "mlflow.db"
    healthy = store.read_bytes()
    store.write_bytes(b"this is no database")
    with (
        caplog.at_level(logging.WARNING, "leanface"),
        tracking.stage_run("distill", {}, {}, live_after_s=0) as run,
    ):
        for step in range(3):
            run.log_live({"loss": float(step)}, step)
    assert len([record for record in caplog.records if record.name.startswith(tracking.__name__)]) == 1
    assert waiting(project) == 1
    store.write_bytes(healthy)
    tracking.log_summary(SUMMARY, {}, [], {})
    assert waiting(project) == 0
    assert runs()["distill"].data.metrics == {"loss": 2.0}


def test_a_temporary_checkout_uses_the_project_s_store(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert tracking.store_root() == project
    checkout = project / ".dvc/tmp/exps/standalone/tmp123"
    checkout.mkdir(parents=True)
    monkeypatch.chdir(checkout)
    assert tracking.store_root() == project
    assert tracking.tracking_uri() == f"sqlite:///{project}/mlflow.db"


def test_the_environment_chooses_another_store(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://localhost:1")
    assert tracking.tracking_uri() == "http://localhost:1"


def test_a_run_that_is_shown_live_says_what_the_machine_did(
    project: Path, runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.1")
    with tracking.stage_run("distill", {}, {}, live_after_s=0) as run:
        run.log_live({"loss": 1.0}, 0)
        deadline = time.monotonic() + 30
        while "system/cpu_utilization_percentage" not in runs()["distill"].data.metrics and time.monotonic() < deadline:
            time.sleep(0.1)
    metrics = runs()["distill"].data.metrics
    assert 0 <= metrics["system/cpu_utilization_percentage"] <= 100
    assert metrics["system/system_memory_usage_megabytes"] > 0
    assert metrics["loss"] == 1.0
