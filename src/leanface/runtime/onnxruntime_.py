"""onnxruntime on the CPU, from an ONNX file."""

from pathlib import Path

import onnxruntime

from leanface.errors import ArtifactError
from leanface.networks.interface import INPUT_NAME, OUTPUT_NAME
from leanface.runtime.base import Coefficients, Images, InputSpec, Runtime, check_names

WRONG_OPTIMIZERS = ["WeightBiasQuantization"]
"""onnxruntime 1.31 computes wrong values with it when Q/DQ meets float16 (it quantises biases that are not)."""


class OnnxRuntime(Runtime):
    name = "onnxruntime"

    def _open(self, path: Path, threads: int) -> InputSpec:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # Threads that keep spinning after a run would slow down whatever else runs in turns with this.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"], disabled_optimizers=WRONG_OPTIMIZERS
            )
        except Exception as error:  # its exceptions have no common public base
            raise ArtifactError(f"onnxruntime cannot load {path}: {error}\nExport it again.") from error
        check_names(
            path, [i.name for i in self._session.get_inputs()], [o.name for o in self._session.get_outputs()]
        )
        return InputSpec()

    def _infer(self, images: Images) -> Coefficients:
        return self._session.run([OUTPUT_NAME], {INPUT_NAME: images})[0]

    def _close(self) -> None:
        del self._session
