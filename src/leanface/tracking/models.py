"""Log networks as models of MLflow, and what they were trained and tested on as its datasets."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leanface.catalog import MEASURES
from leanface.config import FACE
from leanface.tracking.names import NETWORK_TAG, PARENT_MODEL_TAG, RECORD_TAG
from leanface.tracking.packages import upload_crops_model, upload_photos_model
from leanface.tracking.record import Dataset, Record, Variant

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel

EXTERNAL_TAG = "mlflow.model.isExternal"
"""MLflow's, of a model whose files it does not have."""

MODEL_TYPES = {FACE: "3D face reconstruction"}
"""Of other tasks it is the task's name."""

PHOTOS = "photos"
"""Name of the model of the deployed network that takes photos."""


def log_datasets(client: "MlflowClient", record: Record) -> None:
    """List the datasets among the run's inputs."""
    from mlflow.entities import Dataset as Entity
    from mlflow.entities import DatasetInput, InputTag

    assert record.run_id is not None
    inputs = [
        DatasetInput(
            Entity(dataset.name, dataset.digest, "local", json.dumps({"uri": dataset.source}),
                   profile=json.dumps(dataset.profile)),
            [InputTag("mlflow.data.context", dataset.context)],
        )
        for dataset in record.datasets
    ]  # fmt: skip
    if inputs:
        client.log_inputs(record.run_id, inputs)


def log_variants(
    client: "MlflowClient", experiment_id: str, record: Record, files: Mapping[str, Path]
) -> dict[str, str]:
    """Log the record's variants as models with their metrics; return the models' ids by name.

    The same network is the same model, whichever run measures it. A metric's step is the variant's place from the
    original to the smallest, so that the run itself shows the last one's.

    Args:
        files: of the network that the record is about, by the names of `leanface.tracking.packages`; without them its
            model is one without files.
    """
    assert record.run_id is not None
    variants = list(record.variants)
    deployed = None if record.model is None or not files else Path(record.model.name).stem
    if deployed is not None and deployed not in {variant.name for variant in variants}:
        variants.append(Variant(deployed, {}, {}, record.model))
    models: dict[str, str] = {}
    for step, variant in enumerate(variants):
        if variant.name == deployed:
            variant.network = record.model
        parent = {PARENT_MODEL_TAG: list(models.values())[-1]} if models else {}
        model = _find(client, experiment_id, record, variant)
        if model is None:
            tags = {RECORD_TAG: record.id, **parent}
            tags |= {NETWORK_TAG: variant.network.sha256} if variant.network else {}
            tags |= {} if variant.name == deployed else {EXTERNAL_TAG: "true"}
            params = {**record.params, **variant.params}
            kind = MODEL_TYPES.get(record.task, record.task)
            model = client.create_logged_model(experiment_id, variant.name, record.run_id, tags, params, kind)
        models[variant.name] = model_id = str(model.model_id)
        if model.status != "READY":
            if variant.name == deployed:
                upload_crops_model(client, model, files)
            client.finalize_logged_model(model_id, "READY")
        _log_metrics(client, record, variant, model_id, step)
    _show_among_results(client, record.run_id, list(models.values()))
    return models


def log_photos_model(client: "MlflowClient", experiment_id: str, record: Record, files: Mapping[str, Path]) -> str:
    """Log the deployed network as a model that takes photos, once for the same network; return the model's id."""
    assert record.run_id is not None
    variant = Variant(PHOTOS, {}, {}, record.model)
    model = _find(client, experiment_id, record, variant)
    if model is None:
        tags = {RECORD_TAG: record.id} | ({NETWORK_TAG: record.model.sha256} if record.model else {})
        kind = "photos in, faces out"
        model = client.create_logged_model(experiment_id, PHOTOS, record.run_id, tags, record.params, kind)
    if model.status != "READY":
        upload_photos_model(client, model, files)
        client.finalize_logged_model(str(model.model_id), "READY")
    _show_among_results(client, record.run_id, [str(model.model_id)])
    return str(model.model_id)


def _find(client: "MlflowClient", experiment_id: str, record: Record, variant: Variant) -> "LoggedModel | None":
    """Return the model of the same network, or the one that a delivery which was cut off had begun."""
    name = f"name = '{variant.name}'"
    begun = client.search_logged_models([experiment_id], f"{name} AND tags.{RECORD_TAG} = '{record.id}'")
    same = list["LoggedModel"]()
    if variant.network is not None:
        query = f"{name} AND tags.{NETWORK_TAG} = '{variant.network.sha256}'"
        same = [model for model in client.search_logged_models([experiment_id], query) if model.status == "READY"]
    return next(iter([*begun, *same]), None)


def _log_metrics(client: "MlflowClient", record: Record, variant: Variant, model_id: str, step: int) -> None:
    from mlflow.entities import Metric

    assert record.run_id is not None
    tested = next((dataset for dataset in record.datasets if dataset.context == "evaluation"), None)

    metrics = [
        Metric(name, value, record.made_at, step, model_id, *_names(tested if _is_of_samples(name) else None),
               record.run_id)
        for name, value in variant.metrics.items()
    ]  # fmt: skip
    if metrics:
        client.log_batch(record.run_id, metrics=metrics)


def _is_of_samples(measure: str) -> bool:
    """Tell whether a measure depends on the test samples; others are of a network's size and speed."""
    return measure in MEASURES and MEASURES[measure].against is not None


def _names(dataset: Dataset | None) -> tuple[str, str] | tuple[None, None]:
    return (None, None) if dataset is None else (dataset.name, dataset.digest)


def _show_among_results(client: "MlflowClient", run_id: str, models: list[str]) -> None:
    """List the models among what the run made, each once."""
    from mlflow.entities import LoggedModelOutput

    outputs: Any = client.get_run(run_id).outputs
    listed = [] if outputs is None else [output.model_id for output in outputs.model_outputs]
    if new := [LoggedModelOutput(model, step) for step, model in enumerate(models) if model not in listed]:
        client.log_outputs(run_id, new)
