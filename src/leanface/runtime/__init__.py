"""Everything that runs an exported network, behind one contract: `open_runtime(name, path, threads)`."""

from pathlib import Path

from leanface.errors import BackendError
from leanface.runtime.base import Coefficients, Images, InputSpec, Runtime
from leanface.runtime.onnxruntime_ import OnnxRuntime
from leanface.runtime.openvino_ import OpenVinoRuntime
from leanface.runtime.tensorrt_ import TensorRtRuntime
from leanface.runtime.torch_ import TorchRuntime

RUNTIMES: dict[str, type[Runtime]] = {
    runtime.name: runtime for runtime in (TorchRuntime, OnnxRuntime, OpenVinoRuntime, TensorRtRuntime)
}
"""By name. torch reads a bundle, onnxruntime and openvino an ONNX file, tensorrt an engine."""

__all__ = ["RUNTIMES", "Coefficients", "Images", "InputSpec", "Runtime", "open_runtime"]


def open_runtime(name: str, path: Path, threads: int = 0) -> Runtime:
    """Load what lies at `path`; use the result in a `with` statement, or `close` it.

    Raises:
        ArtifactError: the file is missing, damaged, or not what this runtime reads.
        BackendError: there is no such runtime, or it cannot run here.
    """
    if name not in RUNTIMES:
        raise BackendError(f"unknown runtime {name!r}; expected one of {', '.join(RUNTIMES)}")
    return RUNTIMES[name](path, threads)
