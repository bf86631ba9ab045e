"""A network of PyTorch tensors as CUDA graphs: one for each input shape, with the copies from and to host memory in it.

A graph reads and writes the buffers that it was captured with. A large batch is computed in groups, each a graph of
its own, and the next group is copied, to page-locked memory and to the GPU, while one is computed.
"""

import threading
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from leanface.errors import BackendError
from leanface.runtime.base import Coefficients, Images, Pixels
from leanface.runtime.cuda import cudart

Network = Callable[[Tensor, Tensor], object]
"""Queues a group on the current stream: images on the device, and the coefficients (float32) to write. Returns what has
to live as long as a graph of it: the memory that it uses."""

CAPTURING = threading.Lock()
"""One capture at a time; other streams go on meanwhile."""

_IDLE_STREAMS: list[torch.cuda.Stream] = []
"""What `take_stream` gives out again."""

LARGE_BYTES = 1 << 20

WARMUP = 3
"""Runs before a capture, in which libraries choose and allocate."""


def take_stream(owner: object) -> torch.cuda.Stream:
    """Return a CUDA stream that is `owner`'s as long as it lives.

    `torch.cuda.Stream()` makes a pool of streams, which takes 71 MB of an H200's memory.

    Raises:
        BackendError: CUDA makes none.
    """
    if _IDLE_STREAMS:
        stream = _IDLE_STREAMS.pop()
    else:
        api = cudart()
        error, handle = api.cudaStreamCreateWithFlags(api.cudaStreamNonBlocking)
        if error != api.cudaError_t.cudaSuccess:
            raise BackendError(f"CUDA cannot make a stream: {error.name}")
        stream = cast(torch.cuda.Stream, torch.cuda.ExternalStream(int(handle)))
    weakref.finalize(owner, _IDLE_STREAMS.append, stream)
    return stream


class GraphLane:
    """A CUDA stream and its graphs, of which one runs at a time: all share the memory of what lies between layers."""

    def __init__(self, network: Network, outputs: int, pixels_at_once: int) -> None:
        """See `Network`; a group has so many pixels at most, or one image."""
        self.outputs = outputs
        self._network, self._pixels_at_once = network, pixels_at_once
        self._stream, self._copier = take_stream(self), take_stream(self)
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

    def capture(self, queue: Callable[[], None]) -> "Captured":
        """Capture what `queue` puts into the stream, as a graph."""
        graph = torch.cuda.CUDAGraph()
        with CAPTURING, torch.inference_mode():
            torch.cuda.empty_cache()  # a graph has memory of its own and leaves what the first runs needed
            with torch.cuda.graph(graph, self._pool, self._stream, "thread_local"):
                queue()
        return Captured(graph, self._stream)

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


class Captured:
    """A graph that is launched by CUDA itself: PyTorch's `replay` takes three times as long, which one image feels."""

    def __init__(self, graph: torch.cuda.CUDAGraph, stream: torch.cuda.Stream) -> None:
        api = cudart()
        self._launch, self._success = api.cudaGraphLaunch, api.cudaError_t.cudaSuccess
        self._graph = graph  # owns what is launched
        self._executable: int = cast(Any, graph).raw_cuda_graph_exec()
        self._stream: int = stream.cuda_stream

    def launch(self) -> None:
        """Queue the graph on the stream that it was captured on."""
        (error,) = self._launch(self._executable, self._stream)
        if error != self._success:
            raise BackendError(f"CUDA cannot launch a graph: {error.name}")


class _Graph:
    """The network captured for one shape, with the copies and, once asked for, without."""

    def __init__(self, lane: GraphLane, dtype: "np.dtype[Any]", shape: tuple[int, ...]) -> None:
        self._lane, self._groups = lane, list(lane.groups(shape))
        self._pinned = torch.empty(shape, dtype=getattr(torch, dtype.name), pin_memory=True)
        self._returned = torch.empty((shape[0], lane.outputs), pin_memory=True)
        self._images = torch.zeros(shape, dtype=self._pinned.dtype, device="cuda")
        self._coefficients = torch.empty((shape[0], lane.outputs), device="cuda")
        self._done = torch.cuda.Event()
        lane.warm_up(self._compute)
        if len(self._groups) == 1:
            self._whole, self._parts = lane.capture(self._copy_and_compute), []
        else:
            self._whole, self._parts = None, [lane.capture(partial(self._compute_group, own)) for own in self._groups]
        self._alone: Captured | None = None
        self.received: Images = self._pinned.numpy()
        self._answers: Coefficients = self._returned.numpy()

    def begin(self, images: Images) -> Callable[[], Coefficients]:
        stream, copier = self._lane.stream, self._lane.copier
        if self._whole is not None:
            self._receive(images, self._groups[0])
            self._whole.launch()
        else:
            copier.wait_stream(stream)
            for group, graph in zip(self._groups, self._parts, strict=True):
                self._receive(images, group)
                with torch.cuda.stream(copier):
                    self._images[group].copy_(self._pinned[group], non_blocking=True)
                stream.wait_stream(copier)
                graph.launch()
            with torch.cuda.stream(stream):
                self._returned.copy_(self._coefficients, non_blocking=True)
        self._done.record(stream)
        return self._result

    def _receive(self, images: Images, group: slice) -> None:
        """Copy a group to where the GPU reads it, unless the batch lies there."""
        if images is self.received:
            return
        given = images[group]
        if given.nbytes >= LARGE_BYTES and images.flags.writeable:  # PyTorch has several threads copy
            self._pinned[group].copy_(torch.from_numpy(given))
        else:
            np.copyto(self.received[group], given)

    def resident(self, images: Images) -> Callable[[], None]:
        """Compute again and again what has been copied now."""
        if self._alone is None:
            self._alone = self._lane.capture(self._compute)
        self.begin(images)()
        return self._replay_alone

    def _result(self) -> Coefficients:
        self._done.synchronize()
        return self._answers.copy()

    def _replay_alone(self) -> None:
        assert self._alone is not None
        self._alone.launch()
        self._lane.stream.synchronize()

    def _compute(self) -> None:
        for group in self._groups:
            self._compute_group(group)

    def _compute_group(self, group: slice) -> None:
        self._kept = self._lane.network(self._images[group], self._coefficients[group])

    def _copy_and_compute(self) -> None:
        self._images.copy_(self._pinned, non_blocking=True)
        self._compute()
        self._returned.copy_(self._coefficients, non_blocking=True)
