"""ONNX Runtime on streams, device buffers and pinned memory of someone else's: cuda-python's, and pycuda's.

This is all that TensorRT's runtime does but its own call: see docs/decisions/0006-cuda-python.md.
"""

from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor

from leanface.bundle import load_bundle
from leanface.face.coefficients import COUNT
from leanface.networks.interface import INPUT_NAME, OUTPUT_NAME
from leanface.runtime import Runtime, pipelined
from leanface.runtime.base import Coefficients, Images, InputSpec
from leanface.runtime.cuda import Buffer, Cuda
from leanface.runtime.onnxruntime_ import CUDA_PROVIDER

ORT: Any = onnxruntime
STREAMS, ROUNDS = 4, 6
MOST = 4 * 3 * 64 * 64


class PyCuda:
    """`leanface.runtime.cuda.Cuda` by pycuda: every thread pushes the device's primary context before it works."""

    def __init__(self) -> None:
        self._driver: Any = pytest.importorskip("pycuda.driver", reason="pycuda is not installed: it has no wheels")
        self._driver.init()
        self._context = self._driver.Device(0).retain_primary_context()
        self._resources = ExitStack()
        with self._current():
            self._stream = self._driver.Stream()

    @contextmanager
    def _current(self):
        self._context.push()
        try:
            yield
        finally:
            self._context.pop()

    @property
    def stream(self) -> int:
        return int(self._stream.handle)

    def allocate(self, count: int) -> Buffer:
        with self._current():
            host, device = self._driver.pagelocked_empty(count, np.float32), self._driver.mem_alloc(4 * count)
        self._resources.callback(lambda: (host, device))  # alive until close
        return Buffer(host, int(device))

    def to_device(self, buffer: Buffer, count: int) -> None:
        with self._current():
            self._driver.memcpy_htod_async(buffer.device, buffer.host[:count], self._stream)

    def to_host(self, buffer: Buffer, count: int) -> None:
        with self._current():
            self._driver.memcpy_dtoh_async(buffer.host[:count], buffer.device, self._stream)

    def synchronize(self) -> None:
        with self._current():
            self._stream.synchronize()

    def close(self) -> None:
        with self._current():
            self._resources.close()


def user_streams(cuda: Callable[[], Any]) -> type[Runtime]:
    """A runtime whose every stream is a `cuda`, on which a session of its own computes."""

    class UserStreams(Runtime):
        name = "user_streams"
        outputs = COUNT

        def _open(self, path: Path, threads: int, streams: int) -> InputSpec:
            if CUDA_PROVIDER not in ORT.get_available_providers():
                pytest.skip(f"onnxruntime has no {CUDA_PROVIDER}: onnxruntime-gpu is not installed")
            ORT.preload_dlls()
            self._cudas = [cuda() for _ in range(streams)]
            self._buffers = [(one.allocate(MOST), one.allocate(4 * COUNT)) for one in self._cudas]
            self._sessions = [
                ORT.InferenceSession(
                    str(path),
                    providers=[(CUDA_PROVIDER, {"user_compute_stream": str(one.stream), "use_tf32": "0"})],
                )
                for one in self._cudas
            ]
            return InputSpec(batch=(1, 4), side=(64, 64))

        def _infer(self, images: Images, stream: int) -> Coefficients:
            one, (received, returned) = self._cudas[stream], self._buffers[stream]
            session = self._sessions[stream]
            binding = session.io_binding()
            binding.bind_input(INPUT_NAME, "cuda", 0, np.float32, images.shape, received.device)
            binding.bind_output(OUTPUT_NAME, "cuda", 0, np.float32, (len(images), COUNT), returned.device)
            options = ORT.RunOptions()
            options.add_run_config_entry("disable_synchronize_execution_providers", "1")  # the stream's order suffices
            received.host[: images.size] = images.ravel()
            one.to_device(received, images.size)
            session.run_with_iobinding(binding, options)
            one.to_host(returned, len(images) * COUNT)
            one.synchronize()
            return returned.host[: len(images) * COUNT].reshape(len(images), COUNT).copy()

        def _close(self) -> None:
            del self._sessions
            for one in self._cudas:
                one.close()

    return UserStreams


@pytest.mark.parametrize("cuda", [Cuda, PyCuda])
def test_sessions_on_user_streams_compute_side_by_side(cuda: Callable[[], Any], exported, images: Tensor) -> None:
    network, _ = load_bundle(exported.float_bundle)
    batches = [images[start : start + 1 + start % 3].numpy() for start in range(4)] * ROUNDS
    with torch.inference_mode():
        expected = [network(torch.from_numpy(batch)).numpy() for batch in batches[:4]] * ROUNDS
    runtime = user_streams(cuda)(exported.fp32, streams=STREAMS)
    with runtime:
        for got, right in zip(pipelined(runtime, batches), expected, strict=True):
            assert np.linalg.norm(got - right) < 1e-4 * np.linalg.norm(right)
