"""Everything that runs an exported network, behind one contract: opened by name, or the best that can run."""

import contextlib
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import NamedTuple

from leanface import paths
from leanface.errors import ArtifactError, BackendError
from leanface.runtime.base import Coefficients, Images, InputSpec, Runtime
from leanface.runtime.onnxruntime_ import OnnxRuntime, OnnxRuntimeCuda
from leanface.runtime.openvino_ import OpenVinoRuntime
from leanface.runtime.pool import Pool
from leanface.runtime.tensorrt_ import TensorRtRuntime
from leanface.runtime.torch_ import TorchCompiledRuntime, TorchCudaRuntime, TorchGraphRuntime, TorchRuntime
from leanface.runtime.triton_ import TritonInt8Runtime

RUNTIMES: dict[str, type[Runtime]] = {
    runtime.name: runtime
    for runtime in (
        TorchRuntime,
        TorchCudaRuntime,
        TorchGraphRuntime,
        OnnxRuntime,
        OnnxRuntimeCuda,
        OpenVinoRuntime,
        TensorRtRuntime,
        TritonInt8Runtime,
        TorchCompiledRuntime,
    )
}
"""By name. Those of PyTorch read a bundle, those of `ONNX_READERS` an ONNX file, tensorrt an engine."""

BEST_FIRST = (
    "triton_int8",
    "torch_cuda_graph",
    "onnxruntime_cuda",
    "tensorrt",
    "openvino",
    "onnxruntime",
    "torch_cuda",
    "torch",
    "torch_compiled",
)
"""A GPU before the CPU, what was measured to be faster first (docs/results/h100); TensorRT was never measured. On the
CPU OpenVINO first, which alone computes the INT8 file in INT8. Compiling takes long."""

ONNX_READERS = ("onnxruntime", "onnxruntime_cuda", "openvino", "triton_int8")

FLOAT_BUNDLES = ("original_fp32", "distilled_fp32")
HALF_BUNDLES = ("original_fp16", "distilled_fp16")
"""Variants that PyTorch computes in, in FP16 on a GPU only; INT8 it would only simulate."""

__all__ = [
    "BEST_FIRST",
    "FLOAT_BUNDLES",
    "HALF_BUNDLES",
    "ONNX_READERS",
    "RUNTIMES",
    "Choice",
    "Coefficients",
    "Images",
    "InputSpec",
    "Pool",
    "Runtime",
    "exported_files_of",
    "files_of",
    "open_all",
    "open_best",
    "open_runtime",
]


class Choice(NamedTuple):
    """The runtime that `auto` chose, and why each better one was not."""

    runtime: Runtime
    skipped: dict[str, str]


def open_runtime(name: str, path: Path, threads: int = 0, streams: int = 1) -> Runtime:
    """Load what lies at `path`; use the result in a `with` statement, or `close` it.

    Args:
        threads: on the CPU, divided among the streams; 0 leaves the choice to the runtime.
        streams: how many batches can run at the same time, see `Pool`.

    Raises:
        ArtifactError: the file is missing, damaged, or not what this runtime reads.
        BackendError: there is no such runtime, or it cannot run here.
    """
    if name not in RUNTIMES:
        raise BackendError(f"unknown runtime {name!r}; expected one of {', '.join(RUNTIMES)}")
    return RUNTIMES[name](path, threads, streams)


def open_best(files: Mapping[str, Path], threads: int = 0, streams: int = 1) -> Choice:
    """Open the first runtime of `BEST_FIRST` that can run one of these files here.

    Args:
        files: what each runtime would read, by its name, as `files_of` returns it.

    Raises:
        BackendError: none can; the message has the reason of each.
    """
    skipped: dict[str, str] = {}
    for name in (name for name in BEST_FIRST if name in files):
        try:
            return Choice(open_runtime(name, files[name], threads, streams), skipped)
        except (ArtifactError, BackendError) as error:
            skipped[name] = str(error)
    reasons = "".join(f"\n  {name}: {reason}" for name, reason in skipped.items())
    named = ", ".join(dict.fromkeys(map(str, files.values()))) or "no files"  # most runtimes read the same one
    raise BackendError(f"no runtime can run any of {named}:{reasons}")


@contextlib.contextmanager
def open_all(files: Mapping[str, Path]) -> Generator[tuple[list[Runtime], dict[str, str]]]:
    """Every runtime that can run its file here, and of each other one the reason why it cannot.

    Raises:
        ArtifactError: a file is missing, damaged, or not what its runtime reads.
    """
    opened: list[Runtime] = []
    skipped: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        for name, path in files.items():
            try:
                opened.append(stack.enter_context(open_runtime(name, path)))
            except BackendError as error:
                skipped[name] = str(error)
        yield opened, skipped


def exported_files_of(variant: str) -> dict[str, Path]:
    """What each runtime reads of a variant as it is deployed: its ONNX file, or its engine."""
    readers = [name for name in ONNX_READERS if name != "triton_int8" or variant == paths.DEPLOYED]
    return dict.fromkeys(readers, paths.onnx_path(variant)) | {"tensorrt": paths.engine_path(variant)}


def files_of(variant: str) -> dict[str, Path]:
    """What each runtime reads of a variant (`leanface.paths.EXPORTED`), by the runtime's name."""
    bundle = paths.BUNDLES[variant]
    files: dict[str, Path] = {}
    if variant in FLOAT_BUNDLES:
        files = {"torch": bundle, "torch_cuda": bundle}
    if variant in HALF_BUNDLES:
        files = {"torch_cuda_graph": bundle, "torch_compiled": bundle}
    return files | exported_files_of(variant)
