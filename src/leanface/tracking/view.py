"""Say what MLflow's pages show of the experiment when they are first opened."""

import json
from typing import TYPE_CHECKING, Any

from leanface.catalog import DEPLOYED, FACE, MEASURES, Subject
from leanface.tracking.names import CHAMPION, MODEL, STAGE_TAG, SUMMARY_TAG

if TYPE_CHECKING:
    from mlflow import MlflowClient

VIEW, BEST = "leanface", "leanface-best"
"""Ids of the saved views: of what ran last, where trials are folded into their sweep, and of networks by their error.

MLflow's charts leave out what is folded, a saved view cannot unfold it, and only a list by time is folded.
"""

VIEW_TAG, BEST_TAG = (f"mlflow.sharedViewState.{view}" for view in (VIEW, BEST))

PRIMARY_TAG = "mlflow.experiment.primaryMetric"

SPEED = "speedup"

DESCRIPTION = f"""\
Each run named **pipeline** sums up one `dvc repro`: its headline, gates, report and pictures, and as *child runs* its
stages with their curves. A **sweep** unfolds into its trials. Tab **Models** ranks the networks of all runs; the
registered model **{MODEL}** (of another task than the face **{MODEL}-TASK**) has the alias *{CHAMPION}* for the one to
deploy.

Columns: error of the deployed network (`{DEPLOYED}`) to ground truth and to the original, similarity, speed-up, and
size. They are those of the task that was reported last. The button with the curve beside the search shows as charts
what is unfolded. Without the filter `tags.{STAGE_TAG} IS NULL`, pipelines unfold into their stages. The view
**Networks, best first** lists all pipelines and trials by their error, and its charts show the best hundred.
"""


def describe_experiment(client: "MlflowClient", experiment_id: str, subject: Subject | None = None) -> None:
    """Add what an experiment lacks: a description, its kind, and views with columns and charts worth seeing.

    Args:
        subject: whose measures the views show; None: the face's, unless there is a view already.
    """
    present = client.get_experiment(experiment_id).tags
    for name, value in _tags(subject or FACE).items():
        follows = subject is not None and name.startswith((VIEW_TAG, BEST_TAG, PRIMARY_TAG))
        if name not in present or (follows and _state(present[name]) != _state(value)):
            client.set_experiment_tag(experiment_id, name, value)


def view_addresses(server: str, experiment_id: str) -> tuple[str, str]:
    """Return where a server shows what ran last, and where the charts of the best networks."""
    page = f"{server.rstrip('/')}/#/experiments/{experiment_id}/runs?workflowType=machine_learning&viewStateShareKey="
    return f"{page}{VIEW}", f"{page}{BEST}&compareRunsMode=CHART"


def _tags(subject: Subject) -> dict[str, str]:
    columns = [f"tags.`{SUMMARY_TAG}`"]
    columns += [
        f"metrics.`{name}`" for name in (subject.error, subject.teacher_error, subject.likeness, SPEED, "size_ratio")
    ]
    columns += [f"params.`{name}`" for name in ("scale", "prune.ratio", "distill.optimizer.steps")]
    columns.append("attributes.`Models`")  # as MLflow's pages name them
    state = {
        "orderByKey": "attributes.start_time",
        "orderByAsc": False,
        "searchFilter": f"tags.{STAGE_TAG} IS NULL",
        "selectedColumns": columns,
        "columnOrder": columns,
        "compareRunSections": _sections(),
        "compareRunCharts": _charts(subject),
        "runsHiddenMode": "FIRST_20_RUNS",
    }
    higher = MEASURES[subject.error].better == "higher"
    best = {
        "orderByKey": f"metrics.`{subject.error}`",
        "orderByAsc": not higher,
        "searchFilter": f"tags.{STAGE_TAG} IS NULL AND metrics.`{subject.error}` >= 0",
        "runsHiddenMode": "SHOW_ALL",
    }
    return {
        "mlflow.experimentKind": "custom_model_development",
        f"{PRIMARY_TAG}.name": subject.error,
        f"{PRIMARY_TAG}.greaterIsBetter": str(higher),
        "mlflow.note.content": DESCRIPTION,
        VIEW_TAG: _view("Pipelines and trials", state),
        BEST_TAG: _view("Networks, best first", state | best),
    }


def _view(name: str, state: dict[str, Any]) -> str:
    return json.dumps({"name": name, "createdAt": 0, "state": json.dumps(state)})


def _state(tag: str) -> Any:
    """Return what a saved view shows; of another tag its value."""
    try:
        return json.loads(json.loads(tag)["state"])
    except (ValueError, KeyError, TypeError):
        return tag


def _sections() -> list[dict[str, Any]]:
    names = {"results": "Accuracy and speed of the deployed network", "training": "Training"}
    return [
        {"uuid": key, "name": name, "display": True, "isReordered": True, "deleted": False, "isGenerated": False}
        for key, name in names.items()
    ]


def _charts(subject: Subject) -> list[dict[str, Any]]:
    error, name = subject.error, MEASURES[subject.error].axis

    def chart(key: str, kind: str, section: str, title: str, **settings: Any) -> dict[str, Any]:
        return {"uuid": key, "type": kind, "metricSectionId": section, "displayName": title, "deleted": False,
                "isGenerated": False, "runsCountToCompare": 20, **settings}  # fmt: skip

    def axis(metric: str) -> dict[str, Any]:
        return {"key": metric, "type": "METRIC"}

    def curves(unit: str, columns: tuple[tuple[str, str], ...]) -> dict[str, Any]:
        metrics = [metric for metric, _ in columns]
        title = f"{', '.join(label for _, label in columns)} ({unit})"
        return chart(metrics[0], "LINE", "training", title, metricKey=metrics[0], selectedMetricKeys=metrics,
                     xAxisKey="step", scaleType="linear", xAxisScaleType="linear", lineSmoothness=0,
                     selectedXAxisMetricKey="", useGlobalXaxisKey=True, useGlobalLineSmoothing=True,
                     ignoreOutliers=False)  # fmt: skip

    return [
        chart("tradeoff", "SCATTER", "results", f"{name} against speed-up", xaxis=axis(SPEED), yaxis=axis(error)),
        chart("error", "BAR", "results", name, metricKey=error),
        chart("speed", "BAR", "results", "Times as fast as the original", metricKey=SPEED),
        chart("parameters", "PARALLEL", "results", "What the error depends on",
              selectedParams=["prune.ratio", "distill.optimizer.steps"], selectedMetrics=[SPEED, error]),
        *(curves(unit, columns) for unit, columns in subject.curves.items()),
    ]  # fmt: skip
