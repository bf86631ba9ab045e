"""What MLflow gets late is what was made then, and a champion never goes back."""

import json
import logging
import time
from collections.abc import Callable
from pathlib import Path

import mlflow
import onnx
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from leanface import tracking
from leanface.tracking import outbox

Runs = Callable[[], dict[str, Run]]
Finish = Callable[..., None]
Away = Callable[[bool], None]


def client() -> MlflowClient:
    return MlflowClient(tracking.tracking_uri())


def champion() -> tuple[str, str, str]:
    """The champion's network, the run that it says it comes from, and that run's report."""
    mlflow.set_tracking_uri(tracking.tracking_uri())
    version = client().get_model_version_by_alias(tracking.MODEL, tracking.CHAMPION)
    model = Path(mlflow.artifacts.download_artifacts(f"models:/{tracking.MODEL}@{tracking.CHAMPION}"))
    (network,) = model.rglob("*.onnx")
    report = Path(mlflow.artifacts.download_artifacts(f"runs:/{version.run_id}/report.md"))
    run = client().get_run(version.run_id).data.params["run"]
    return onnx.load(network).graph.name, run, report.read_text()


def versions() -> int:
    return len(client().search_model_versions(f"name = '{tracking.MODEL}'"))


def test_a_late_champion_has_its_own_network_run_and_report(runs: Runs, finish: Finish, away: Away) -> None:
    away(True)
    finish("A", "a")
    away(False)
    finish("B", "b", passed=False)
    assert champion() == ("a", "A", "report of A")
    assert versions() == 1


def test_an_older_run_that_arrives_late_does_not_take_the_alias(
    runs: Runs, finish: Finish, away: Away, project: Path
) -> None:
    away(True)
    finish("A", "a")
    (project / ".cache/mlflow-outbox").rename(project / "held")
    away(False)
    finish("C", "c")
    (project / "held").rename(project / ".cache/mlflow-outbox")
    assert tracking.deliver() == 1
    assert champion() == ("c", "C", "report of C")
    models = client().search_logged_models([client().get_experiment_by_name(tracking.EXPERIMENT).experiment_id])
    assert len(models) == 2, "the older one's network is recorded all the same"


def test_a_newer_run_is_the_champion_though_the_clock_was_set_back(
    runs: Runs, finish: Finish, away: Away, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish("A", "a")
    an_hour_ago = time.time_ns() - 3600 * 10**9
    monkeypatch.setattr(time, "time_ns", lambda: an_hour_ago)
    finish("B", "b")
    assert champion() == ("b", "B", "report of B")
    away(True)
    finish("C", "c")
    finish("D", "d")
    away(False)
    tracking.deliver()
    assert champion()[0] in ("b", "d"), "never C, which is older than D"


def test_the_same_network_is_one_version_and_a_network_that_comes_back_is_another(runs: Runs, finish: Finish) -> None:
    finish("A", "a")
    finish("again", "a")
    assert versions() == 1
    assert champion() == ("a", "A", "report of A")
    finish("B", "b")
    finish("back", "a")
    assert versions() == 3
    assert champion() == ("a", "back", "report of back")


def test_a_network_that_was_chosen_again_is_newer_than_what_waited_since(
    runs: Runs, finish: Finish, away: Away, project: Path
) -> None:
    finish("A", "a")
    away(True)
    finish("B", "b")
    (project / ".cache/mlflow-outbox").rename(project / "held")
    away(False)
    finish("again", "a")
    (project / "held").rename(project / ".cache/mlflow-outbox")
    tracking.deliver()
    assert champion() == ("a", "A", "report of A")


@pytest.mark.parametrize(("experiment", "passed", "champions"), [("", True, 1), ("", False, 0), ("trial-1", True, 0)])
def test_only_a_model_that_passes_its_gates_and_is_no_experiment_s_is_the_champion(
    runs: Runs, finish: Finish, monkeypatch: pytest.MonkeyPatch, experiment: str, passed: bool, champions: int
) -> None:
    monkeypatch.setenv("DVC_EXP_NAME", experiment)
    finish("A", "a", passed=passed)
    recorded = runs()[experiment or "pipeline"]
    assert recorded.info.status == "FINISHED"
    (model,) = client().search_logged_models([recorded.info.experiment_id])
    assert model.name == "quantized_int8"
    assert len(client().search_registered_models()) == champions
    if champions:
        version = client().get_model_version_by_alias(tracking.MODEL, tracking.CHAMPION)
        assert version.run_id == recorded.info.run_id


def test_a_record_that_calls_itself_a_champion_must_have_passed(runs: Runs, finish: Finish, away: Away) -> None:
    away(True)
    finish("A", "a", passed=False)
    away(False)
    (path,) = outbox.waiting()
    path.write_text(json.dumps(json.loads(path.read_text()) | {"champion": True}))
    assert tracking.deliver() == 1
    assert client().search_registered_models() == []


def test_a_champion_whose_model_was_deleted_is_registered_again(runs: Runs, finish: Finish) -> None:
    finish("A", "a")
    version = client().get_model_version_by_alias(tracking.MODEL, tracking.CHAMPION)
    client().delete_logged_model(version.tags["model_id"])
    finish("again", "a")
    assert champion() == ("a", "again", "report of again")


def test_a_network_that_is_gone_is_said_and_is_no_champion(
    runs: Runs, finish: Finish, away: Away, project: Path, caplog: pytest.LogCaptureFixture
) -> None:
    away(True)
    finish("A", "a")
    away(False)
    for path in (project / ".cache/mlflow-files").iterdir():
        path.unlink()
    (project / "models/onnx/quantized_int8.onnx").write_bytes(b"another network")
    with caplog.at_level(logging.WARNING):
        assert tracking.deliver() == 1
    assert runs()["pipeline"].data.tags["missing"] == "quantized_int8.onnx"
    assert "without quantized_int8.onnx" in caplog.text
    assert client().search_registered_models() == []


def test_after_its_experiment_was_deleted_a_new_one_takes_the_name(runs: Runs) -> None:
    with tracking.stage_run("one", {}, {}):
        pass
    tracking.deliver()
    old = runs()["one"].info
    client().delete_experiment(old.experiment_id)
    with tracking.stage_run("two", {}, {}):
        pass
    assert tracking.deliver() == 1
    assert set(runs()) == {"two"}
    assert client().get_experiment(old.experiment_id).lifecycle_stage == "deleted"
    assert client().get_run(old.run_id).info.lifecycle_stage == "deleted"


def test_a_run_that_was_deleted_stays_so_and_the_rest_becomes_another(
    runs: Runs, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        caplog.at_level(logging.WARNING),
        tracking.stage_run("distill", {"a": 1}, {}, live_after_s=0) as run,
    ):
        run.log_live({"loss": 1.0}, 0)
        deleted = runs()["distill"].info.run_id
        client().delete_run(deleted)
        run.log({"loss": 0.5}, 1)
    assert client().get_run(deleted).info.lifecycle_stage == "deleted"
    recorded = runs()["distill"]
    assert recorded.data.metrics == {"loss": 0.5}
    assert recorded.data.params == {"a": "1"}
    assert recorded.info.status == "FINISHED"
    assert "was deleted in MLflow" in caplog.text


def test_an_experiment_that_is_deleted_while_a_run_lasts_loses_nothing(runs: Runs) -> None:
    with tracking.stage_run("distill", {}, {}, live_after_s=0) as run:
        run.log_live({"loss": 1.0}, 0)
        client().delete_experiment(runs()["distill"].info.experiment_id)
        run.log({"loss": 0.5}, 1)
    assert runs()["distill"].data.metrics == {"loss": 0.5}


def test_a_trial_whose_run_was_deleted_gets_another(runs: Runs) -> None:
    first = tracking.begin_run("trial", {}, {})
    client().delete_run(first.record.run_id)
    again = tracking.begin_run("trial", {}, {}, run_id=first.record.run_id)
    assert again.record.run_id != first.record.run_id
    again.finish("FINISHED", "well done")
    assert runs()["trial"].data.tags["mlflow.note.content"] == "well done"


def test_what_was_half_sent_is_sent_once(runs: Runs, project: Path, finish: Finish, away: Away) -> None:
    """A process that was killed after its run had arrived, before it could say so."""
    away(True)
    finish("A", "a")
    with tracking.stage_run("prune", {"ratio": 0.5}, {}) as run:
        run.log({"macs": 1.0}, 0)
    away(False)
    saved = [(path, path.read_bytes()) for path in outbox.waiting()]
    copies = [(path, path.read_bytes()) for path in (project / ".cache/mlflow-files").iterdir()]
    assert tracking.deliver() == 2
    (project / ".cache/mlflow-files").mkdir()
    for path, content in copies:
        path.write_bytes(content)
    for path, content in saved:
        path.with_suffix(".sending").write_bytes(content)
    assert tracking.deliver() == 2
    found = client().search_runs([runs()["prune"].info.experiment_id])
    assert sorted(run.info.run_name for run in found) == ["pipeline", "prune"]
    assert versions() == 1
    assert len(client().search_logged_models([found[0].info.experiment_id])) == 1
    (history,) = client().get_metric_history(runs()["prune"].info.run_id, "macs")
    assert history.value == 1.0
    assert len(runs()["pipeline"].outputs.model_outputs) == 1


def test_a_record_that_mlflow_refuses_holds_up_no_other(runs: Runs, project: Path) -> None:
    with tracking.stage_run("bad", {"what is this?!": 1}, {}):
        pass
    with tracking.stage_run("good", {}, {}):
        pass
    assert tracking.deliver() == 1
    assert runs()["good"].info.status == "FINISHED"
    assert runs()["bad"].info.status == "FAILED"
    assert "Incomplete" in runs()["bad"].data.tags["mlflow.note.content"]
    assert len(list((project / ".cache/mlflow-set-aside").iterdir())) == 1
