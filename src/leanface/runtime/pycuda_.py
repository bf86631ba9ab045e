"""What `leanface.runtime.cuda.Cuda` does, by pycuda: for machines that have it in place of cuda-python."""

# pyright: reportMissingImports=false

from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from typing import Any, ClassVar

import numpy as np

from leanface.errors import BackendError
from leanface.runtime.cuda import Buffer


class PyCuda:
    """One stream on the first GPU with its buffers; `close` gives all of it back.

    It works in the device's primary context, which TensorRT and PyTorch use too, and makes it the calling thread's
    current one during each call.

    Raises:
        BackendError: pycuda is not installed, or there is no driver or no GPU.
    """

    captures: ClassVar[bool] = False
    """pycuda has no CUDA graphs."""

    has_graph: ClassVar[bool] = False

    def __init__(self) -> None:
        try:
            import pycuda.driver as driver
        except ImportError as error:
            raise BackendError(f"pycuda is not installed here ({error}).") from None
        self._driver: Any = driver
        try:
            self._driver.init()
            device = self._driver.Device(0)
        except self._driver.Error as error:
            raise BackendError(f"an engine runs on an NVIDIA GPU; here is none, or no driver for it: {error}") from None
        self._capability: tuple[int, int] = device.compute_capability()
        self._context = device.retain_primary_context()
        self._resources = ExitStack()
        with self._current():
            self._stream = self._driver.Stream()

    @contextmanager
    def _current(self) -> Generator[None]:
        self._context.push()
        try:
            yield
        finally:
            self._context.pop()

    @property
    def stream(self) -> int:
        """The stream's handle, for other libraries."""
        return int(self._stream.handle)

    @property
    def compute_capability(self) -> str:
        """The GPU's, as TensorRT writes it: SM90."""
        return f"SM{self._capability[0]}{self._capability[1]}"

    def allocate(self, count: int) -> Buffer:
        """Allocate `count` float32 values in page-locked host memory and on the device."""
        with self._current():
            host, device = self._driver.pagelocked_empty(count, np.float32), self._driver.mem_alloc(4 * count)
        self._resources.callback(lambda: (host, device))  # alive until close
        return Buffer(host, int(device))

    def to_device(self, buffer: Buffer, count: int) -> None:
        """Queue a copy of the first `count` values to the device."""
        with self._current():
            self._driver.memcpy_htod_async(buffer.device, buffer.host[:count], self._stream)

    def to_host(self, buffer: Buffer, count: int) -> None:
        """Queue a copy of the first `count` values to the host; they are there after `synchronize`."""
        with self._current():
            self._driver.memcpy_dtoh_async(buffer.host[:count], buffer.device, self._stream)

    def synchronize(self) -> None:
        """Wait for all that was queued."""
        with self._current():
            self._stream.synchronize()

    def capture(self, queue: Callable[[], None]) -> None:
        """Raises BackendError: pycuda has no graphs."""
        raise BackendError("pycuda has no CUDA graphs; install cuda-bindings for them.")

    def launch_graph(self) -> None:
        """Raises BackendError: there is no graph."""
        raise BackendError("there is no CUDA graph to launch.")

    def forget_graph(self) -> None:
        """Do nothing: there is no graph."""

    def close(self) -> None:
        """Free the stream and every buffer."""
        with self._current():
            self._resources.close()
            del self._stream
