"""Say what MLflow's pages show of the experiment when they are first opened."""

import json
from typing import TYPE_CHECKING, Any

from leanface.catalog import DEPLOYED
from leanface.tracking.names import CHAMPION, MODEL, STAGE_TAG, SUMMARY_TAG

if TYPE_CHECKING:
    from mlflow import MlflowClient

VIEW = "leanface"
"""Id of the saved view."""

VIEW_TAG = f"mlflow.sharedViewState.{VIEW}"

ERROR, SPEED = "truth_vertex_mm", "speedup"

METRICS = (ERROR, "teacher_vertex_mm", "ssim", SPEED, "size_ratio")

COLUMNS = (
    f"tags.`{SUMMARY_TAG}`",
    *(f"metrics.`{name}`" for name in METRICS),
    "params.`scale`",
    "params.`prune.ratio`",
    "params.`distill.optimizer.steps`",
    "attributes.`Models`",
)
"""As MLflow's pages name them."""

DESCRIPTION = f"""\
Each run named **pipeline** sums up one `dvc repro`: its headline, gates, report and pictures, and as *child runs* its
stages with their curves. A **sweep** unfolds into its trials. Tab **Models** ranks the networks of all runs; the
registered model **{MODEL}** has the alias *{CHAMPION}* for the one to deploy.

Columns: error of the deployed network (`{DEPLOYED}`) to ground truth and to the original in millimeters,
similarity, speed-up, and size. The button with the curve beside the search shows them as charts. Without the filter
`tags.{STAGE_TAG} IS NULL`, pipelines unfold into their stages.
"""


def describe_experiment(client: "MlflowClient", experiment_id: str) -> None:
    """Add what a new experiment lacks: a description, its kind, and a view with columns and charts worth seeing."""
    present = client.get_experiment(experiment_id).tags
    for name, value in _tags().items():
        if name not in present or (name == VIEW_TAG and _state(present[name]) != _state(value)):
            client.set_experiment_tag(experiment_id, name, value)


def view_address(server: str, experiment_id: str) -> str:
    """Return where a server shows the experiment in the view that comes with it."""
    page = f"{server.rstrip('/')}/#/experiments/{experiment_id}/runs"
    return f"{page}?viewStateShareKey={VIEW}&workflowType=machine_learning"


def _tags() -> dict[str, str]:
    state = {
        "orderByKey": "attributes.start_time",
        "orderByAsc": False,
        "searchFilter": f"tags.{STAGE_TAG} IS NULL",
        "selectedColumns": list(COLUMNS),
        "columnOrder": list(COLUMNS),
        "compareRunSections": _sections(),
        "compareRunCharts": _charts(),
        "runsHiddenMode": "FIRST_20_RUNS",
    }
    view = {"name": "Pipelines and trials", "createdAt": 0, "state": json.dumps(state)}
    return {
        "mlflow.experimentKind": "custom_model_development",
        "mlflow.experiment.primaryMetric.name": ERROR,
        "mlflow.experiment.primaryMetric.greaterIsBetter": "False",
        "mlflow.note.content": DESCRIPTION,
        VIEW_TAG: json.dumps(view),
    }


def _state(view: str) -> Any:
    """Return what a saved view shows; None for what is none."""
    try:
        return json.loads(json.loads(view)["state"])
    except (ValueError, KeyError, TypeError):
        return None


def _sections() -> list[dict[str, Any]]:
    names = {"results": "Accuracy and speed of the deployed network", "training": "Training"}
    return [
        {"uuid": key, "name": name, "display": True, "isReordered": True, "deleted": False, "isGenerated": False}
        for key, name in names.items()
    ]


def _charts() -> list[dict[str, Any]]:
    def chart(key: str, kind: str, section: str, title: str, **settings: Any) -> dict[str, Any]:
        return {"uuid": key, "type": kind, "metricSectionId": section, "displayName": title, "deleted": False,
                "isGenerated": False, "runsCountToCompare": 20, **settings}  # fmt: skip

    def axis(metric: str) -> dict[str, Any]:
        return {"key": metric, "type": "METRIC"}

    def curve(metric: str, title: str) -> dict[str, Any]:
        return chart(metric, "LINE", "training", title, metricKey=metric, selectedMetricKeys=[metric], xAxisKey="step",
                     scaleType="linear", xAxisScaleType="linear", lineSmoothness=0, selectedXAxisMetricKey="",
                     useGlobalXaxisKey=True, useGlobalLineSmoothing=True, ignoreOutliers=False)  # fmt: skip

    return [
        chart("tradeoff", "SCATTER", "results", "Error (mm) against speed-up", xaxis=axis(SPEED), yaxis=axis(ERROR)),
        chart("error", "BAR", "results", "Error to ground truth (mm)", metricKey=ERROR),
        chart("speed", "BAR", "results", "Times as fast as the original", metricKey=SPEED),
        chart("parameters", "PARALLEL", "results", "What the error depends on",
              selectedParams=["prune.ratio", "distill.optimizer.steps"], selectedMetrics=[SPEED, ERROR]),
        curve("train/loss", "Training loss"),
        curve("val/vertex_mm", "Validation: vertices (mm)"),
        curve("val/rotation_deg", "Validation: rotation (degrees)"),
    ]  # fmt: skip
