"""Crops in, coefficients out: the network as a model that MLflow loads and serves, where LeanFace is not installed.

MLflow keeps this file with the model and runs it there, so it imports nothing but NumPy, MLflow and one runtime.
"""

import importlib
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from mlflow.pyfunc.model import PythonModel, PythonModelContext

Run = Callable[[np.ndarray], np.ndarray]

IMAGES, COEFFICIENTS = "images", "coefficients"


class CropsModel(PythonModel):
    """Reads the coefficients of faces in the runtime that the model's configuration names."""

    # MLflow would warn that it cannot infer a schema from type hints; the model has a signature.
    _skip_type_hint_validation = True

    def load_context(self, context: PythonModelContext) -> None:
        """Open the network."""
        settings: Any = context.model_config
        artifacts: Any = context.artifacts
        self._run = RUNTIMES[settings["runtime"]](str(artifacts["network"]))
        self._turn = threading.Lock()  # a server answers several requests at once

    def predict(self, context: PythonModelContext, model_input, params=None) -> np.ndarray:  # pyright: ignore
        """Return the coefficients (N,257), float32, of aligned uint8 RGB crops (N,size,size,3).

        Raises:
            ValueError: these are not such crops.
        """
        crops: np.ndarray = np.asarray(model_input)  # pyright: ignore[reportUnknownArgumentType]
        if crops.dtype != np.uint8 or crops.ndim != 4 or crops.shape[3] != 3:
            raise ValueError(f"expected uint8 crops of shape (N, size, size, 3), got {crops.dtype} {crops.shape}.")
        images = np.ascontiguousarray(crops.transpose(0, 3, 1, 2), np.float32) / np.float32(255)
        with self._turn:
            return self._run(images)


def _openvino(path: str) -> Run:
    import openvino

    # Otherwise bfloat16 is chosen unasked where the processor has it. Q/DQ layers still run in INT8.
    properties: Any = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    request = openvino.Core().compile_model(path, "CPU", properties).create_infer_request()
    return lambda images: np.array(request.infer({IMAGES: images})[COEFFICIENTS])


def _onnxruntime(path: str) -> Run:
    import onnxruntime

    ort: Any = onnxruntime  # it has no types
    # With this optimization ONNX Runtime 1.31 computes wrong values where Q/DQ meets float16.
    session = ort.InferenceSession(
        path, providers=["CPUExecutionProvider"], disabled_optimizers=["WeightBiasQuantization"]
    )
    return lambda images: session.run([COEFFICIENTS], {IMAGES: images})[0]


RUNTIMES: dict[str, Callable[[str], Run]] = {"openvino": _openvino, "onnxruntime": _onnxruntime}

mlflow_models: Any = importlib.import_module("mlflow.models")  # its own types leave this open
mlflow_models.set_model(CropsModel())
