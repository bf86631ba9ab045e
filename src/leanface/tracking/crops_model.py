"""Crops in, coefficients out: the network as a model that MLflow loads and serves.

MLflow keeps this file with the model, beside LeanFace's own code, and runs it where LeanFace is not installed.
"""

import importlib
import threading
from pathlib import Path
from typing import Any

import numpy as np
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from leanface.photos.alignment import to_input
from leanface.runtime import flavored_files, open_best
from leanface.runtime.batches import run_in_batches


class CropsModel(PythonModel):
    """Reads the coefficients of faces, in the flavor and the runtime that are best where it is loaded."""

    # MLflow would warn that it cannot infer a schema from type hints; the model has a signature.
    _skip_type_hint_validation = True

    def load_context(self, context: PythonModelContext) -> None:
        """Open the network."""
        artifacts: Any = context.artifacts
        tensorrt = Path(artifacts["network"])
        cpu = Path(artifacts.get("cpu_network", tensorrt))
        self._runtime = open_best(flavored_files(tensorrt, cpu)).runtime
        self._turn = threading.Lock()  # a server answers several requests at once

    def predict(self, context: PythonModelContext, model_input, params=None) -> np.ndarray:  # pyright: ignore
        """Return the coefficients (N,257), float32, of aligned uint8 RGB crops (N,size,size,3).

        Raises:
            ValueError: these are not such crops.
        """
        crops: np.ndarray = np.asarray(model_input)  # pyright: ignore[reportUnknownArgumentType]
        if crops.dtype != np.uint8 or crops.ndim != 4 or crops.shape[3] != 3:
            raise ValueError(f"expected uint8 crops of shape (N, size, size, 3), got {crops.dtype} {crops.shape}.")
        with self._turn:
            return run_in_batches(self._runtime, to_input(crops))


mlflow_models: Any = importlib.import_module("mlflow.models")  # its own types leave this open
mlflow_models.set_model(CropsModel())
