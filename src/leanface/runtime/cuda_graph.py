"""A network of PyTorch tensors as CUDA graphs: one for each input shape, with the copies from and to host memory in it.

A graph reads and writes the buffers that it was captured with. A large batch is computed in groups, and the next
group is copied to the GPU while one is computed.
"""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from leanface.errors import BackendError
from leanface.runtime.base import Coefficients, Images, Pixels

Network = Callable[[Tensor, Tensor], None]
"""Queues a group on the current stream: images on the device, and the coefficients (float32) to write."""

CAPTURING = threading.Lock()
"""One capture at a time; other streams go on meanwhile."""

LARGE_BYTES = 1 << 20

WARMUP = 3
"""Runs before a capture, in which libraries choose and allocate."""


class GraphLane:
    """A CUDA stream and its graphs, of which one runs at a time: all share the memory of what lies between layers."""

    def __init__(self, network: Network, outputs: int, pixels_at_once: int) -> None:
        """See `Network`; a group has so many pixels at most, or one image."""
        self.outputs = outputs
        self._network, self._pixels_at_once = network, pixels_at_once
        self._stream, self._copier = torch.cuda.Stream(), torch.cuda.Stream()
        self._pool = torch.cuda.graph_pool_handle()
        self._graphs: dict[tuple[np.dtype[Any], tuple[int, ...]], _Graph] = {}

    def graph(self, dtype: "np.dtype[Any]", shape: tuple[int, ...]) -> "_Graph":
        """Return the graph for images of this kind; a new one is captured.

        Raises:
            BackendError: the GPU has too little memory.
        """
        if (dtype, shape) not in self._graphs:
            try:
                self._graphs[dtype, shape] = _Graph(self, dtype, shape)
            except torch.OutOfMemoryError as error:
                free_bytes, _ = torch.cuda.mem_get_info()
                raise BackendError(
                    f"the GPU has too little memory for images of shape {shape}: {free_bytes / 1e6:.0f} MB are free. "
                    "Give smaller batches, open fewer streams, or end what else uses it."
                ) from error
        return self._graphs[dtype, shape]

    def begin(self, images: Images) -> Callable[[], Coefficients]:
        """Queue a batch with its copies; the result waits for the coefficients."""
        return self.graph(images.dtype, images.shape).begin(images)

    def resident(self, images: Images) -> Callable[[], None]:
        """Copy a batch now; each call of the result computes it and waits."""
        return self.graph(images.dtype, images.shape).resident(images)

    def buffer(self, shape: tuple[int, ...]) -> Pixels:
        """Return the page-locked memory that such a batch is copied from, to be filled by the caller."""
        return self.graph(np.dtype(np.uint8), shape).received

    def forget(self) -> None:
        """Drop all graphs: what they read and write has moved."""
        self._graphs.clear()

    def capture(self, queue: Callable[[], None]) -> torch.cuda.CUDAGraph:
        """Capture what `queue` puts into the stream, as a graph."""
        graph = torch.cuda.CUDAGraph()
        with CAPTURING, torch.inference_mode():
            torch.cuda.empty_cache()  # a graph has memory of its own and leaves what the first runs needed
            with torch.cuda.graph(graph, self._pool, self._stream, "thread_local"):
                queue()
        return graph

    def warm_up(self, queue: Callable[[], None]) -> None:
        """Run before a capture."""
        torch.cuda.current_stream().synchronize()
        with CAPTURING, torch.inference_mode(), torch.cuda.stream(self._stream):
            for _ in range(WARMUP):
                queue()
        self._stream.synchronize()

    def at_once(self, height: int, width: int) -> int:
        """Return how many images of a size are computed together."""
        return max(1, self._pixels_at_once // (height * width))

    def groups(self, shape: tuple[int, ...]) -> Iterator[slice]:
        """Return which images of such a batch are computed together."""
        count, step = shape[0], self.at_once(*(shape[1:3] if shape[3] == 3 else shape[2:]))
        return (slice(start, min(start + step, count)) for start in range(0, count, step))

    @property
    def network(self) -> Network:
        return self._network

    @property
    def stream(self) -> torch.cuda.Stream:
        return self._stream

    @property
    def copier(self) -> torch.cuda.Stream:
        """Brings the next group meanwhile."""
        return self._copier


class _Graph:
    """The network captured for one shape, with the copies and, once asked for, without."""

    def __init__(self, lane: GraphLane, dtype: "np.dtype[Any]", shape: tuple[int, ...]) -> None:
        self._lane, self._shape = lane, shape
        self._pinned = torch.empty(shape, dtype=getattr(torch, dtype.name), pin_memory=True)
        self._returned = torch.empty((shape[0], lane.outputs), pin_memory=True)
        self._images = torch.zeros(shape, dtype=self._pinned.dtype, device="cuda")
        self._coefficients = torch.empty((shape[0], lane.outputs), device="cuda")
        self._done = torch.cuda.Event()
        lane.warm_up(self._compute)
        self._whole = lane.capture(self._copy_and_compute)
        self._alone: torch.cuda.CUDAGraph | None = None
        self.received: Images = self._pinned.numpy()

    def begin(self, images: Images) -> Callable[[], Coefficients]:
        self._receive(images)
        with torch.cuda.stream(self._lane.stream):
            self._whole.replay()
            self._done.record(self._lane.stream)
        return self._result

    def _receive(self, images: Images) -> None:
        """Copy a batch to where the GPU reads it, unless it lies there."""
        if images.ctypes.data == self._pinned.data_ptr():
            return
        if images.nbytes >= LARGE_BYTES and images.flags.writeable:  # PyTorch has several threads copy
            self._pinned.copy_(torch.from_numpy(images))
        else:
            np.copyto(self.received, images)

    def resident(self, images: Images) -> Callable[[], None]:
        """Compute again and again what has been copied now."""
        if self._alone is None:
            self._alone = self._lane.capture(self._compute)
        self.begin(images)()
        return self._replay_alone

    def _result(self) -> Coefficients:
        self._done.synchronize()
        return self._returned.numpy().copy()

    def _replay_alone(self) -> None:
        assert self._alone is not None
        with torch.cuda.stream(self._lane.stream):
            self._alone.replay()
        self._lane.stream.synchronize()

    def _compute(self) -> None:
        for group in self._lane.groups(self._shape):
            self._lane.network(self._images[group], self._coefficients[group])

    def _copy_and_compute(self) -> None:
        lane = self._lane
        lane.copier.wait_stream(lane.stream)
        arrivals: list[tuple[slice, torch.cuda.Event]] = []
        with torch.cuda.stream(lane.copier):
            for group in lane.groups(self._shape):
                self._images[group].copy_(self._pinned[group], non_blocking=True)
                arrivals.append((group, torch.cuda.Event()))
                arrivals[-1][1].record(lane.copier)
        for group, arrived in arrivals:
            lane.stream.wait_event(arrived)
            lane.network(self._images[group], self._coefficients[group])
        self._returned.copy_(self._coefficients, non_blocking=True)
