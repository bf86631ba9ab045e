"""The INT8 network on an NVIDIA GPU by kernels of our own, without TensorRT; see `leanface.runtime.int8`."""

import importlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor

from leanface.device import usable_cores
from leanface.errors import BackendError
from leanface.runtime.base import Coefficients, Images, InputSpec, Pixels, Runtime
from leanface.runtime.cuda_graph import GraphLane
from leanface.runtime.int8.plan import SERVES_INSTEAD, read_plan
from leanface.runtime.int8.tuning import Gpu, Problem, Tile, TileFile, default_tile
from leanface.runtime.onnx_file import read_onnx
from leanface.runtime.onnxruntime_ import OnnxRuntime
from leanface.runtime.torch_ import require_gpu

if TYPE_CHECKING:
    from leanface.runtime.int8.executor import Executor, Weights

FIRST_CAPABILITY = 80
"""Ampere's 8.0: the first that multiplies int8 in the sizes that the kernels use."""


SHARED_PERCENT = 25
"""Of the L1 memory for all kernels of a small batch. With one split, which serves tiles as small as theirs, kernels can
begin while the one before them finishes (docs/decisions/0015-int8-kernels.md)."""

LARGEST_DIFFERENCE = 0.2
"""Relative L2 norm; what rounding ties make of one image stays under it (docs/decisions/0003-uint8-activations.md)."""


class TritonInt8Runtime(Runtime):
    """On the first GPU in INT8, as one CUDA graph per input shape and stream, copies included.

    It reads the INT8 ONNX file itself: its scales, its int8 weights, its biases. A large batch is computed in groups,
    and the next group is copied to the GPU meanwhile. Once opened, it has computed one image as ONNX Runtime does.
    `threads` is not used.
    """

    name = "triton_int8"
    takes_bytes = is_asynchronous = True
    PIXELS_AT_ONCE = 128 * 224 * 224
    """In a group."""

    def _open(self, path: Path, threads: int, streams: int) -> InputSpec:
        gpu, version = first_gpu(), triton_version()  # what is quickly found out comes first
        plan = read_plan(path)
        from leanface.runtime.int8.executor import Weights  # it imports Triton

        self.outputs = plan.outputs
        weights, tiles = Weights(plan, torch.device("cuda", 0)), TileFile.open(gpu, version)
        self._lanes = [_Lane(weights, gpu, tiles, self.PIXELS_AT_ONCE) for _ in range(streams)]
        pixels = checked_image(read_onnx(path).image_size)
        with OnnxRuntime(path) as reference:
            require_agreement(self._lanes[0].begin(pixels)(), reference.run(pixels), gpu.name)
        return InputSpec.of_shape(plan.input_shape)

    def _begin(self, images: Images, stream: int) -> Callable[[], Coefficients]:
        return self._lanes[stream].begin(images)

    def _resident(self, images: Images, stream: int) -> Callable[[], None]:
        return self._lanes[stream].resident(images)

    def _buffer(self, shape: tuple[int, ...], stream: int) -> Pixels:
        return self._lanes[stream].buffer(shape)

    def _close(self) -> None:
        del self._lanes


class _Lane:
    """One stream: a CUDA stream with its graphs, and memory for each size of images, which all batches share."""

    def __init__(self, weights: "Weights", gpu: Gpu, tiles: TileFile, pixels_at_once: int) -> None:
        self._weights, self._gpu, self._tiles = weights, gpu, tiles
        self._graphs = GraphLane(self._queue, weights.plan.outputs, pixels_at_once)
        self._executors: dict[tuple[int, int], Executor] = {}
        self._compiled: set[tuple[torch.dtype, torch.Size]] = set()

    def begin(self, images: Images) -> Callable[[], Coefficients]:
        self._make_room(len(images), _size_px(images))
        return self._graphs.begin(images)

    def resident(self, images: Images) -> Callable[[], None]:
        self._make_room(len(images), _size_px(images))
        return self._graphs.resident(images)

    def buffer(self, shape: tuple[int, ...]) -> Pixels:
        self._make_room(shape[0], (shape[1], shape[2]))
        return self._graphs.buffer(shape)

    def _make_room(self, images: int, size: tuple[int, int]) -> None:
        """Have memory for such images; where it has to grow it moves, and the graphs with it."""
        from leanface.runtime.int8.executor import Executor

        count = min(images, self._graphs.at_once(*size))
        known = self._executors.get(size)
        if known is None or known.images < count:
            if known is not None:
                self._graphs.forget()
                del self._executors[size], known
            self._executors[size] = Executor(self._weights, *size, count, self._tile, chained=self._gpu.chains)

    def _tile(self, problem: Problem) -> Tile:
        return self._tiles.get(problem) or default_tile(problem, self._gpu)

    def _queue(self, images: Tensor, coefficients: Tensor) -> "Executor":
        """Queue a group, as `GraphLane` asks for it; its kernels are compiled at the first time, side by side."""
        from leanface.runtime.int8.call import compile_all, share_l1

        height, width = _size_px(images)
        executor = self._executors[height, width]
        calls = executor.calls(images, coefficients)
        if (images.dtype, images.shape) in self._compiled:
            for call in calls.values():
                call.queue()
            return executor
        with ThreadPoolExecutor(usable_cores()) as workers:
            failed = compile_all(calls.values(), self._gpu.capability, workers)
        if failed:
            raise BackendError(f"Triton cannot compile the kernels for {self._gpu.name}: {failed[0]}")
        for call in calls.values():
            kernel = call.queue()
            if executor.shares_l1(len(images)):
                share_l1(kernel, SHARED_PERCENT)
        self._compiled.add((images.dtype, images.shape))
        return executor


def checked_image(side: int) -> Pixels:
    """Smooth colors with some noise: an image in which no feature map is alike everywhere."""
    y, x = np.mgrid[:side, :side] / side
    smooth = np.stack([x, y, (x + y) / 2], axis=-1)
    noise = np.random.default_rng(0).uniform(-0.1, 0.1, smooth.shape)
    return np.ascontiguousarray((255 * (smooth + noise).clip(0, 1)).astype(np.uint8)[None])


def require_agreement(got: Coefficients, expected: Coefficients, gpu_name: str) -> None:
    """Refuse a GPU or a compiler on which the kernels compute something else than the file says.

    Raises:
        BackendError: they do.
    """
    difference = float(np.linalg.norm(got - expected) / np.linalg.norm(expected))
    if not difference <= LARGEST_DIFFERENCE:
        raise BackendError(
            f"the INT8 kernels do not compute on {gpu_name} what ONNX Runtime computes of the same file: their "
            f"answers differ by {difference:.2g}, allowed {LARGEST_DIFFERENCE}. {SERVES_INSTEAD}"
        )


def _size_px(images: Images | Tensor) -> tuple[int, int]:
    """Return the height and width."""
    height, width = images.shape[1:3] if images.dtype in (np.uint8, torch.uint8) else images.shape[2:]
    return int(height), int(width)


def first_gpu() -> Gpu:
    """Return the first GPU, if the kernels can run on it.

    Raises:
        BackendError: there is none for PyTorch, or it is too old.
    """
    require_gpu()
    properties = cast(Any, torch.cuda.get_device_properties(0))
    capability = 10 * int(properties.major) + int(properties.minor)
    if capability < FIRST_CAPABILITY:
        raise BackendError(
            f"{properties.name} has compute capability {properties.major}.{properties.minor}; the INT8 kernels need "
            f"8.0 (Ampere) or newer. {SERVES_INSTEAD}"
        )
    shared_bytes = int(properties.shared_memory_per_block_optin)
    return Gpu(str(properties.name), capability, int(properties.multi_processor_count), shared_bytes)


def triton_version() -> str:
    """Raises BackendError if it is not installed."""
    try:
        triton: Any = importlib.import_module("triton")
    except ImportError as error:
        raise BackendError(
            f"Triton is not installed here ({error}); it comes with PyTorch for CUDA on Linux. {SERVES_INSTEAD}"
        ) from None
    return str(triton.__version__)
