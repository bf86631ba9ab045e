"""A pipeline is one run with its stages below it, and its networks are models that can be ranked."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from leanface import paths, tracking
from leanface.catalog import TIMES
from leanface.errors import TrackingError
from leanface.tracking.pages import open_pages
from leanface.tracking.pipeline import headline
from leanface.tracking.view import BEST_TAG, VIEW_TAG, view_addresses

Runs = Callable[[], dict[str, Run]]

SUMMARY: dict[str, Any] = {
    "device": {"cpu": "some"},
    "variants": {
        "teacher_fp32": {"truth_vertex_mm": 1.42, "size_mb": 96.0, "speedup": 2.0, "runtime": "openvino"},
        "distilled_fp32": {"truth_vertex_mm": 1.9, "size_mb": 24.0, "speedup": 7.0, "energy_ratio": None},
        "quantized_int8": {"truth_vertex_mm": 1.96, "size_ratio": 16.0, "speedup": 20.0, "runtime": "openvino"},
    },
    "gates": {
        "speedup": {"limit": 10.0, "value": 20.0, "passed": True, "bound": "min"},
        "mse": {"limit": 0.005, "value": 0.006, "passed": False, "bound": "max"},
    },
}


def client() -> MlflowClient:
    return MlflowClient(tracking.tracking_uri())


def stage(name: str) -> None:
    with tracking.stage_run(name, {}, {"stage": name}, in_pipeline=True):
        pass


def summarize(*artifacts: Path) -> None:
    tracking.log_summary(SUMMARY, {"prune": {"ratio": 0.5}}, artifacts, {})


def parent(run: Run) -> str | None:
    return run.data.tags.get(tracking.PARENT_TAG)


def test_the_stages_since_the_last_report_are_below_their_pipeline(runs: Runs) -> None:
    stage("prune")
    stage("report")
    summarize()
    first = runs()
    assert parent(first["prune"]) == parent(first["report"]) == first["pipeline"].info.run_id
    assert parent(first["pipeline"]) is None
    assert first["pipeline"].info.start_time <= first["prune"].info.start_time
    stage("distill")
    summarize()
    second = runs()["pipeline"].info.run_id
    assert second != first["pipeline"].info.run_id
    assert parent(runs()["distill"]) == second
    assert parent(runs()["prune"]) == first["pipeline"].info.run_id


def test_a_stage_that_arrives_after_its_pipeline_is_below_it_too(runs: Runs, project: Path) -> None:
    stage("prune")
    (project / ".cache/mlflow-outbox").rename(project / "held")
    summarize()
    (project / "held").rename(project / ".cache/mlflow-outbox")
    tracking.deliver()
    assert parent(runs()["prune"]) == runs()["pipeline"].info.run_id


def test_pipelines_of_experiments_that_run_at_once_are_told_apart(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one", "two"):
        monkeypatch.setenv("DVC_EXP_NAME", name)
        stage(f"prune {name}")
    for name in ("two", "one"):
        monkeypatch.setenv("DVC_EXP_NAME", name)
        summarize()
    recorded = runs()
    for name in ("one", "two"):
        assert parent(recorded[f"prune {name}"]) == recorded[name].info.run_id


def test_a_trial_s_stages_stay_below_the_trial(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    trial = tracking.begin_run("trial", {}, {})
    monkeypatch.setenv(tracking.PARENT_RUN, trial.record.run_id or "")
    stage("prune")
    monkeypatch.delenv(tracking.PARENT_RUN)
    tracking.log_headline(trial, SUMMARY)
    trial.finish("FINISHED")
    recorded = runs()
    assert parent(recorded["prune"]) == recorded["trial"].info.run_id
    assert recorded["trial"].data.metrics["truth_vertex_mm"] == 1.96
    assert "gates failed: mse" in recorded["trial"].data.tags["mlflow.note.content"]


def test_a_damaged_note_of_the_pipeline_begins_another_one(runs: Runs, project: Path) -> None:
    stage("prune")
    (note,) = (project / ".cache/mlflow-pipeline").iterdir()
    note.write_text("{")
    stage("distill")
    summarize()
    recorded = runs()
    assert parent(recorded["prune"]) is None
    assert parent(recorded["distill"]) == recorded["pipeline"].info.run_id


def test_the_description_has_the_headline_the_picture_and_the_gates(runs: Runs, project: Path) -> None:
    (project / "faces.png").write_bytes(b"a picture")
    summarize(project / "faces.png")
    run = runs()["pipeline"]
    note = run.data.tags["mlflow.note.content"]
    expected = f"Light INT8: error 1.96 mm (original 1.42), 20.0{TIMES} faster, 16.0{TIMES} smaller, gates failed: mse."
    assert headline(SUMMARY) == expected
    assert f"**{expected}**" in note
    assert f"(get-artifact?path=faces.png&run_uuid={run.info.run_id})" in note
    assert "| mse | failed: 0.006 (at most 0.005) |" in note
    assert run.data.tags["gate.speedup"] == "passed: 20 (at least 10)"
    assert run.data.tags["gates"] == "failed"


def test_each_variant_is_a_model_with_its_metrics_and_where_it_comes_from(runs: Runs, project: Path) -> None:
    network = project / paths.onnx_path("teacher_fp32")
    network.parent.mkdir(parents=True)
    network.write_bytes(b"the original")
    manifest = {"seed": 3, "image_size": 112,
                "splits": {name: {"count": 7, "sha256": {"images.npy": "0123456789abcdef" * 4}}
                           for name in paths.SPLITS}}  # fmt: skip
    (project / paths.FACES).mkdir(parents=True)
    (project / paths.FACES / "manifest.json").write_text(json.dumps(manifest))
    summarize()
    run = runs()["pipeline"]
    models = {model.name: model for model in client().search_logged_models([run.info.experiment_id])}
    assert set(models) == set(SUMMARY["variants"])
    assert models["quantized_int8"].tags["made_from"] == models["distilled_fp32"].model_id
    assert models["distilled_fp32"].tags["made_from"] == models["teacher_fp32"].model_id
    assert models["distilled_fp32"].params["prune.ratio"] == "0.5"
    assert models["distilled_fp32"].params["exported_from"] == "models/distilled"
    assert {model.status for model in models.values()} == {"READY"}
    scores = {metric.key: metric for metric in models["quantized_int8"].metrics or []}
    assert {name: metric.value for name, metric in scores.items()} == {
        "truth_vertex_mm": 1.96,
        "size_ratio": 16.0,
        "speedup": 20.0,
    }
    assert scores["truth_vertex_mm"].dataset_name == "faces/test"
    assert scores["truth_vertex_mm"].dataset_digest == "0123456789abcdef"
    assert scores["speedup"].dataset_name is None
    assert run.data.metrics["truth_vertex_mm"] == 1.96, "the deployed network's"
    used = {entry.dataset.name: {tag.key: tag.value for tag in entry.tags} for entry in run.inputs.dataset_inputs}
    assert used == {
        "faces/train": {"mlflow.data.context": "training"},
        "faces/val": {"mlflow.data.context": "validation"},
        "faces/test": {"mlflow.data.context": "evaluation"},
    }
    summarize()
    again = client().search_logged_models([run.info.experiment_id], "name = 'teacher_fp32'")
    assert len(again) == 1, "the same network, measured twice"


@pytest.mark.parametrize("manifest", ["", "{", "{}", '{"splits": []}', '{"splits": {"train": {}}}'])
def test_without_a_manifest_there_are_no_datasets(runs: Runs, project: Path, manifest: str) -> None:
    (project / paths.FACES).mkdir(parents=True)
    (project / paths.FACES / "manifest.json").write_text(manifest)
    summarize()
    assert runs()["pipeline"].inputs.dataset_inputs == []


def test_the_pages_open_on_a_view_that_comes_with_the_experiment(
    runs: Runs,
) -> None:
    summarize()
    number = runs()["pipeline"].info.experiment_id
    tags = client().get_experiment(number).tags
    view = json.loads(tags[VIEW_TAG])
    state = json.loads(view["state"])
    shown = [name.partition("`")[2].rstrip("`") for name in state["selectedColumns"] if name.startswith("metrics.")]
    assert set(shown) >= {"truth_vertex_mm", "speedup"}
    assert len(client().search_runs([number], state["searchFilter"])) == 1
    page = f"http://here:1/#/experiments/{number}/runs?workflowType=machine_learning&viewStateShareKey=leanface"
    assert view_addresses("http://here:1/", number) == (page, f"{page}-best&compareRunsMode=CHART")
    client().set_experiment_tag(number, "mlflow.note.content", "the user's own words")
    client().set_experiment_tag(number, VIEW_TAG, "an older view")
    summarize()
    again = client().get_experiment(number).tags
    assert again["mlflow.note.content"] == "the user's own words"
    assert again[VIEW_TAG] == tags[VIEW_TAG]


def test_networks_are_charted_without_the_sweep_that_folds_them(runs: Runs) -> None:
    """MLflow folds runs only where the last are first, and charts none that is folded."""
    summarize()
    tracking.begin_run("sweep", {}, {tracking.SWEEP_TAG: "sweep"}).finish("FINISHED")
    number = runs()["pipeline"].info.experiment_id
    state = json.loads(json.loads(client().get_experiment(number).tags[BEST_TAG])["state"])
    assert state["orderByKey"] == "metrics.`truth_vertex_mm`"
    assert state["orderByAsc"]
    found = client().search_runs([number], state["searchFilter"], order_by=[f"{state['orderByKey']} ASC"])
    assert [run.info.run_name for run in found] == ["pipeline"]


def test_another_task_has_columns_and_a_champion_of_its_own(runs: Runs, finish: Callable[..., None]) -> None:
    finish("A", "a")
    finish("B", "b", task="digits")
    champions = [
        client().get_model_version_by_alias(name, tracking.CHAMPION) for name in ("leanface", "leanface-digits")
    ]
    assert len({version.tags["sha256"] for version in champions}) == 2
    tags = client().get_experiment(runs()["pipeline"].info.experiment_id).tags
    shown = json.loads(json.loads(tags[VIEW_TAG])["state"])["selectedColumns"]
    assert shown[1:4] == ["metrics.`truth_error`", "metrics.`teacher_kl`", "metrics.`teacher_agreement`"]
    assert "vertex" not in tags[VIEW_TAG]
    assert tags["mlflow.experiment.primaryMetric.name"] == "truth_error"


def test_of_a_server_that_is_away_no_page_is_promised(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(TrackingError, match=r"http://127\.0\.0\.1:9 is out of reach"):
        open_pages()


def test_outside_of_a_project_the_store_is_where_one_is_and_inside_in_its_root(
    project: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "docs/deep").mkdir(parents=True)
    monkeypatch.chdir(project / "docs/deep")
    assert tracking.store_root() == project
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    monkeypatch.chdir(elsewhere)
    assert tracking.store_root() == elsewhere
