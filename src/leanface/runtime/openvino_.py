"""OpenVINO on the CPU, from an ONNX file: the CPU's runtime for INT8."""

from pathlib import Path
from typing import Any

import numpy as np

from leanface.errors import ArtifactError, BackendError
from leanface.networks.interface import INPUT_NAME, OUTPUT_NAME
from leanface.runtime.base import Coefficients, Images, InputSpec, Runtime, check_names
from leanface.runtime.onnx_file import overflows_here


class OpenVinoRuntime(Runtime):
    """One compiled model, whose weights are shared; each stream has a request, and OpenVINO divides the threads."""

    name = "openvino"

    def _open(self, path: Path, threads: int, streams: int) -> InputSpec:
        model, compiled = compile_network(path, threads, streams)
        self._requests = [compiled.create_infer_request() for _ in range(streams)]
        self.outputs = model.outputs[0].partial_shape[1].get_length()
        shape: Any = model.inputs[0].partial_shape
        return InputSpec.of_shape([None if length.is_dynamic else length.get_length() for length in shape])

    def _infer(self, images: Images, stream: int) -> Coefficients:
        result = self._requests[stream].infer({INPUT_NAME: images}, share_inputs=True, share_outputs=True)
        return np.array(result[OUTPUT_NAME])  # the request's own buffer is overwritten by the next run

    def _close(self) -> None:
        del self._requests


def compile_network(path: Path, threads: int, streams: int, *, counting: bool = False) -> tuple[Any, Any]:
    """Return the model as it was read and as it was compiled; with counters of what each layer takes if `counting`.

    Raises:
        ArtifactError: the file is damaged, or was not exported by LeanFace.
        BackendError: it cannot run here.
    """
    try:
        import openvino  # imported here: a machine for GPU runs may lack it
    except ImportError as error:
        raise BackendError(f"OpenVINO is not installed here ({error}): `pip install openvino`.") from None
    properties: dict[str, str | int | bool] = {
        "PERFORMANCE_HINT": "LATENCY" if streams == 1 else "THROUGHPUT",
        # Otherwise bfloat16 is chosen unasked where the processor has it. Q/DQ layers still run in INT8.
        "INFERENCE_PRECISION_HINT": "f32",
        "NUM_STREAMS": streams,
        "PERF_COUNT": counting,
    }
    if threads:
        properties["INFERENCE_NUM_THREADS"] = threads
    core = openvino.Core()
    try:
        model = core.read_model(path)
        check_names(path, [i.any_name for i in model.inputs], [o.any_name for o in model.outputs])
        if overflows_here(path):
            raise BackendError(
                f"{path} is of flavor cpu, and this processor has no VNNI: OpenVINO's sums of its unsigned bytes "
                "would overflow. Take the file of flavor tensorrt (variant quantized_int8), or runtime "
                "onnxruntime, which computes this one in float32."
            )
        return model, core.compile_model(model, "CPU", properties)
    except RuntimeError as error:
        raise ArtifactError(f"OpenVINO cannot load {path}: {error}\nExport it again.") from error
