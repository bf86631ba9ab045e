"""Names that runs, tags and models have in MLflow."""

from leanface.config import FACE

EXPERIMENT = "leanface"

MODEL = "leanface"
"""Name in MLflow's model registry of the face's networks; see `registered_name`."""

CHAMPION = "champion"
"""Alias of the registered version that passed its gates last."""

EXPERIMENT_TAG = "dvc_experiment"
STAGE_TAG = "stage"
SWEEP_TAG = "sweep"
PROMOTED_TAG = "promoted_from"

SUMMARY_TAG = "gates"
"""Only summary runs have it: whether the gates passed."""

GATE_TAG = "gate."
"""What the tags of single gates begin with."""

PIPELINE_TAG = "pipeline"
"""Of the runs of one pipeline, stages and summary: its id, see `leanface.tracking.group`."""

PARENT_MODEL_TAG = "made_from"
"""Of a model: the one that it was compressed from."""

RECORD_TAG = "leanface_record"
"""The record that a run, a model or a version comes from, by its id."""

NETWORK_TAG = "sha256"
"""The ONNX file of a model or a version."""

MODEL_TAG = "model_id"
"""Of a version: the logged model that it is."""

MADE_TAG = "made_at"
"""Of a version: when the last run was recorded that chose it, see `Record.made_at`."""

NOTE_TAG = "mlflow.note.content"
PARENT_TAG = "mlflow.parentRunId"

PARENT_RUN = "LEANFACE_PARENT_RUN"
"""Environment variable with the id of the run that a stage's runs are children of: that of the trial."""


def registered_name(task: str) -> str:
    """Return the name in MLflow's model registry of a task's networks, so that each task has a champion of its own."""
    return MODEL if task == FACE else f"{MODEL}-{task.rpartition(':')[2]}"


def registered_photos_name(task: str) -> str:
    """Return the name of the registered models that take photos instead of crops."""
    return f"{registered_name(task)}-photos"
