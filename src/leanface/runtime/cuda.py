"""CUDA memory, streams and graphs for the TensorRT runtime, by NVIDIA's cuda-python."""

import ctypes
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float

from leanface.errors import BackendError


def cudart() -> Any:
    """Return CUDA's runtime API by cuda-python, which PyTorch for CUDA brings.

    Raises:
        BackendError: it is missing.
    """
    try:
        import cuda.bindings.runtime as api  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise BackendError(f"cuda-python is not installed here ({error}): `pip install cuda-bindings`.") from None
    return api  # pyright: ignore[reportUnknownVariableType]


class Cuda:
    """One stream on the first GPU with its buffers and one graph; `close` gives all of it back.

    Several of them run at the same time, each used by one thread at a time.

    Raises:
        BackendError: cuda-python is not installed, there is no driver or no GPU, or a call fails.
    """

    captures: ClassVar[bool] = True
    """Whether it has CUDA graphs."""

    def __init__(self) -> None:
        try:
            self._api: Any = cudart()
        except BackendError as error:
            raise BackendError(f"an engine runs on an NVIDIA GPU, through cuda-python or pycuda: {error}") from None
        self._resources = ExitStack()
        try:
            count = self._call("cudaGetDeviceCount")
        except BackendError as error:
            raise BackendError(f"an engine runs on an NVIDIA GPU; here is none, or no driver for it: {error}") from None
        if count == 0:
            raise BackendError("an engine runs on an NVIDIA GPU; here is none.")
        self._graph: Any = None
        self._stream: Any = self._call("cudaStreamCreate")
        self._resources.callback(self._call, "cudaStreamDestroy", self._stream)

    @property
    def stream(self) -> int:
        """The stream's handle, for other libraries."""
        return int(self._stream)

    @property
    def compute_capability(self) -> str:
        """The GPU's, as TensorRT writes it: SM90."""
        kind = self._api.cudaDeviceAttr
        major = int(self._call("cudaDeviceGetAttribute", kind.cudaDevAttrComputeCapabilityMajor, 0))
        return f"SM{major}{int(self._call('cudaDeviceGetAttribute', kind.cudaDevAttrComputeCapabilityMinor, 0))}"

    def allocate(self, count: int) -> "Buffer":
        """Allocate `count` float32 values in page-locked host memory and on the device."""
        size_bytes = 4 * count
        address = int(self._call("cudaMallocHost", size_bytes))
        self._resources.callback(self._call, "cudaFreeHost", address)
        device = int(self._call("cudaMalloc", size_bytes))
        self._resources.callback(self._call, "cudaFree", device)
        return Buffer(np.ctypeslib.as_array((ctypes.c_float * count).from_address(address)), device)

    def to_device(self, buffer: "Buffer", count: int) -> None:
        """Queue a copy of the first `count` values to the device."""
        kind = self._api.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call("cudaMemcpyAsync", buffer.device, buffer.host.ctypes.data, 4 * count, kind, self._stream)

    def to_host(self, buffer: "Buffer", count: int) -> None:
        """Queue a copy of the first `count` values to the host; they are there after `synchronize`."""
        kind = self._api.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call("cudaMemcpyAsync", buffer.host.ctypes.data, buffer.device, 4 * count, kind, self._stream)

    def synchronize(self) -> None:
        """Wait for all that was queued."""
        self._call("cudaStreamSynchronize", self._stream)

    def capture(self, queue: Callable[[], None]) -> None:
        """Keep what `queue` would put into the stream as this stream's graph, in place of an earlier one.

        It is not executed, and a graph replays it with the very addresses and sizes that it was captured with.
        """
        self.forget_graph()
        self.synchronize()
        mode = self._api.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal  # other threads' streams go on
        self._call("cudaStreamBeginCapture", self._stream, mode)
        try:
            queue()
        finally:
            captured = self._call("cudaStreamEndCapture", self._stream)
        try:
            self._graph = self._call("cudaGraphInstantiate", captured, 0)
        finally:
            self._call("cudaGraphDestroy", captured)

    @property
    def has_graph(self) -> bool:
        return self._graph is not None

    def launch_graph(self) -> None:
        """Queue the captured graph."""
        self._call("cudaGraphLaunch", self._graph, self._stream)

    def forget_graph(self) -> None:
        """Free the graph, if there is one."""
        if self._graph is not None:
            graph, self._graph = self._graph, None
            self._call("cudaGraphExecDestroy", graph)

    def close(self) -> None:
        """Free the graph, the stream and every buffer."""
        self.forget_graph()
        self._resources.close()

    def _call(self, function: str, *arguments: Any) -> Any:
        """A function of the runtime API; each returns its error code first."""
        error, *values = getattr(self._api, function)(*arguments)
        if error != self._api.cudaError_t.cudaSuccess:
            _, text = self._api.cudaGetErrorString(error)
            raise BackendError(f"CUDA: {function} failed: {text.decode()} ({error.name})")
        return values[0] if values else None


class Buffer:
    """The same values on the host (page-locked float32, flat) and, by its address, on the device."""

    def __init__(self, host: Float[np.ndarray, " count"], device: int) -> None:
        self.host = host
        self.device = device
