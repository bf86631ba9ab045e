"""onnxruntime on the CPU, from an ONNX file."""

from pathlib import Path
from typing import Any

import onnxruntime

from leanface.errors import ArtifactError, BackendError
from leanface.networks.interface import INPUT_NAME, OUTPUT_NAME
from leanface.runtime.base import Coefficients, Images, InputSpec, Runtime, check_names

WRONG_OPTIMIZERS = ["WeightBiasQuantization"]
"""With it onnxruntime 1.31 computes wrong values where Q/DQ meets float16."""


class OnnxRuntime(Runtime):
    name = "onnxruntime"

    def _open(self, path: Path, threads: int) -> InputSpec:
        options: Any = onnxruntime.SessionOptions()  # pyright: ignore[reportUnknownVariableType]
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # Threads that keep spinning after a run would slow down whatever else runs in turns with this.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        try:
            self._session: Any = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"], disabled_optimizers=WRONG_OPTIMIZERS
            )
        except Exception as error:  # its exceptions have no common public base
            if "float8" in str(error):
                raise BackendError(
                    "onnxruntime 1.31 fails to optimise networks in float8; use openvino, or an engine of TensorRT."
                ) from error
            raise ArtifactError(f"onnxruntime cannot load {path}: {error}\nExport it again.") from error
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        check_names(path, [i.name for i in inputs], [o.name for o in outputs])
        return InputSpec()

    def _infer(self, images: Images) -> Coefficients:
        return self._session.run([OUTPUT_NAME], {INPUT_NAME: images})[0]

    def _close(self) -> None:
        del self._session
