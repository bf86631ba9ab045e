"""Pack the deployed network for MLflow: its files, LeanFace's own code, and the versions that it was tested with."""

import importlib
import shutil
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leanface import paths

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel
    from mlflow.models import ModelSignature

NETWORK, CPU_NETWORK, MORPHABLE_MODEL = "network", "cpu_network", "morphable_model"
"""The ONNX file of flavor tensorrt, that of flavor cpu if there is one, and what a face's coefficients belong to."""

LEFT_OUT = ("__pycache__", "demo", "site", "cpp", paths.PACKAGED_MORPHABLE_MODEL.name, "teacher*.npz", "leanface_*")
"""Of LeanFace's code and assets: what no model needs. One that reads crops needs no assets at all."""


def upload_crops_model(client: "MlflowClient", model: "LoggedModel", files: Mapping[str, Path]) -> None:
    """Give a logged model what turns crops into coefficients."""
    import numpy as np
    import onnx
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    width: Any = onnx.load(files[NETWORK]).graph.input[0].type.tensor_type.shape.dim[3]
    size = int(width.dim_value) or -1
    crops = TensorSpec(np.dtype("uint8"), (-1, size, size, 3))
    coefficients = TensorSpec(np.dtype("float32"), (-1, -1))
    needed = {part: file for part, file in files.items() if part != MORPHABLE_MODEL}
    signature = ModelSignature(Schema([crops]), Schema([coefficients]))
    _upload(client, model, "crops_model.py", needed, signature, (*LEFT_OUT, paths.ASSETS.name))


def upload_photos_model(client: "MlflowClient", model: "LoggedModel", files: Mapping[str, Path]) -> None:
    """Give a logged model what turns photos into faces."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
    from mlflow.types.schema import Array

    outputs = {
        "photo": DataType.long, "coefficients": Array(DataType.float), "description": DataType.string,
        "glb": DataType.binary,
    }  # fmt: skip
    signature = ModelSignature(
        Schema([ColSpec(DataType.binary, "photo")]),
        Schema([ColSpec(kind, name) for name, kind in outputs.items()]),
        ParamSchema([ParamSpec("texture_size", DataType.long, 1024), ParamSpec("faces", DataType.string, "all")]),
    )
    _upload(client, model, "photos_model.py", files, signature)


def _upload(
    client: "MlflowClient",
    model: "LoggedModel",
    script: str,
    files: Mapping[str, Path],
    signature: "ModelSignature",
    left_out: Sequence[str] = LEFT_OUT,
) -> None:
    from mlflow.models import Model

    description = Model(
        artifact_path=model.artifact_location, run_id=model.source_run_id, model_uuid=model.model_id,
        model_id=model.model_id,
    )  # fmt: skip
    save_model: Any = importlib.import_module("mlflow.pyfunc").save_model  # its own types leave much open
    with tempfile.TemporaryDirectory() as temporary, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # it asks for hints of types that the signature says
        folder, code = Path(temporary) / "model", Path(temporary) / "leanface"
        shutil.copytree(paths.ASSETS.parent, code, ignore=shutil.ignore_patterns(*left_out))
        save_model(
            str(folder),
            python_model=str(Path(__file__).with_name(script)),
            artifacts={part: str(file) for part, file in files.items()},
            code_paths=[str(code)],
            mlflow_model=description,
            signature=signature,
            pip_requirements=requirements(),
        )
        client.log_model_artifacts(model.model_id, str(folder))


def requirements() -> list[str]:
    """Return MLflow and what LeanFace needs without its extras, each in the version that is installed here."""
    from packaging.requirements import Requirement

    needed = [Requirement(line) for line in metadata.requires("leanface") or []]
    names = ["mlflow", *(each.name for each in needed if each.marker is None or each.marker.evaluate({"extra": ""}))]
    return [f"{name}=={metadata.version(name)}" for name in names]
