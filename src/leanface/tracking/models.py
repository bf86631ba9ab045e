"""Log networks as models of MLflow."""

import importlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leanface.networks.interface import INPUT_NAME, OUTPUT_NAME
from leanface.tracking.names import NETWORK_TAG, RECORD_TAG
from leanface.tracking.record import File, Record

if TYPE_CHECKING:
    from mlflow import MlflowClient


def log_network(client: "MlflowClient", experiment_id: str, record: Record, network: File, file: Path) -> str:
    """Log the network in `file` as a model of the record's run, unless it is one; return the model's id."""
    assert record.run_id is not None
    name, tags = Path(network.name).stem, {NETWORK_TAG: network.sha256, RECORD_TAG: record.id}
    same = [model for model in client.search_logged_models([experiment_id], f"tags.{NETWORK_TAG} = '{network.sha256}'")
            if model.name == name]  # fmt: skip
    model = next((model for model in same if model.status == "READY"), None)
    if model is not None:
        _show_under(client, record.run_id, str(model.model_id))
        return str(model.model_id)
    # A delivery that was cut off may have begun it.
    model = next((model for model in same if model.tags.get(RECORD_TAG) == record.id), None)
    if model is None:
        model = client.create_logged_model(experiment_id, name, record.run_id, tags)
    _show_under(client, record.run_id, str(model.model_id))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "model"
        _save(file, folder, str(model.model_id), record.run_id, model.artifact_location)
        client.log_model_artifacts(model.model_id, str(folder))
    client.finalize_logged_model(model.model_id, "READY")
    return str(model.model_id)


def _show_under(client: "MlflowClient", run_id: str, model_id: str) -> None:
    """List the model among what the run made, once."""
    from mlflow.entities import LoggedModelOutput

    listed = client.get_run(run_id).outputs
    if listed is None or model_id not in {model.model_id for model in listed.model_outputs}:
        client.log_outputs(run_id, [LoggedModelOutput(model_id, 0)])


def _save(file: Path, folder: Path, model_id: str, run_id: str, location: str) -> None:
    import numpy as np
    import onnx
    from mlflow.models import Model, ModelSignature
    from mlflow.types import Schema, TensorSpec

    from leanface.face.coefficients import COUNT  # with PyTorch, which nothing else here needs

    tensors = {INPUT_NAME: (-1, 3, -1, -1), OUTPUT_NAME: (-1, COUNT)}
    inputs, outputs = (Schema([TensorSpec(np.dtype("float32"), shape, name)]) for name, shape in tensors.items())
    save_model: Any = importlib.import_module("mlflow.onnx").save_model  # its own types leave everything open
    save_model(
        onnx.load(file),
        str(folder),
        mlflow_model=Model(artifact_path=location, run_id=run_id, model_uuid=model_id, model_id=model_id),
        signature=ModelSignature(inputs, outputs),
        pip_requirements=["onnxruntime"],  # MLflow would find out by importing in another process
    )
