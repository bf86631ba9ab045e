"""CUDA memory for the TensorRT runtime, by NVIDIA's cuda-python."""

import ctypes
from contextlib import ExitStack
from typing import Any

import numpy as np
from jaxtyping import Float

from leanface.errors import BackendError


class Cuda:
    """CUDA's runtime API on the first GPU, with one stream; all that it hands out is given back by `close`.

    Raises:
        BackendError: cuda-python is not installed, there is no driver or no GPU, or a call fails.
    """

    def __init__(self) -> None:
        try:
            import cuda.bindings.runtime as api  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise BackendError(
                "a TensorRT engine runs on an NVIDIA GPU, through cuda-python, which is not installed here "
                f"({error}); on a machine with a GPU: `pip install cuda-bindings`."
            ) from None
        self._api: Any = api  # pyright: ignore[reportUnknownMemberType]
        self._resources = ExitStack()
        if self._call("cudaGetDeviceCount") == 0:
            raise BackendError("this machine has no CUDA GPU; a TensorRT engine runs on one.")
        self.stream: Any = self._call("cudaStreamCreate")
        self._resources.callback(self._call, "cudaStreamDestroy", self.stream)

    def allocate(self, count: int) -> "Buffer":
        """Room for `count` float32 values in page-locked host memory and on the device."""
        size_bytes = 4 * count
        address = int(self._call("cudaMallocHost", size_bytes))
        self._resources.callback(self._call, "cudaFreeHost", address)
        device = int(self._call("cudaMalloc", size_bytes))
        self._resources.callback(self._call, "cudaFree", device)
        return Buffer(np.ctypeslib.as_array((ctypes.c_float * count).from_address(address)), device)

    def to_device(self, buffer: "Buffer", count: int) -> None:
        """Queue a copy of the first `count` values to the device."""
        kind = self._api.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call("cudaMemcpyAsync", buffer.device, buffer.host.ctypes.data, 4 * count, kind, self.stream)

    def to_host(self, buffer: "Buffer", count: int) -> None:
        """Queue a copy of the first `count` values to the host; they are there after `synchronize`."""
        kind = self._api.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call("cudaMemcpyAsync", buffer.host.ctypes.data, buffer.device, 4 * count, kind, self.stream)

    def synchronize(self) -> None:
        """Wait for all that was queued."""
        self._call("cudaStreamSynchronize", self.stream)

    def close(self) -> None:
        """Free the stream and every buffer."""
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
