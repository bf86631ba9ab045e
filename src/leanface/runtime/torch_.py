"""PyTorch from a bundle: the reference that everything else is compared to, on the CPU and on a CUDA GPU.

On a GPU also as fast as PyTorch makes it: in FP16, the batch norms folded, with fused kernels as a CUDA graph, or
compiled.
"""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from leanface.bundle import load_bundle, load_network
from leanface.errors import BackendError
from leanface.networks.inference import HalfPrecision
from leanface.runtime.base import Coefficients, Images, InputSpec, Runtime, threads_per_stream


class TorchRuntime(Runtime):
    """On the CPU. PyTorch's number of threads is global: it is changed while this runtime is open."""

    name = "torch"
    device: ClassVar[str] = "cpu"

    def _open(self, path: Path, threads: int, streams: int) -> InputSpec:
        # A network per stream: fake-quantisers swap weights while they run.
        self._networks = [load_bundle(path)[0].to(self.device) for _ in range(streams)]
        self._threads_before = torch.get_num_threads()
        if share := threads_per_stream(threads, streams):
            torch.set_num_threads(share)
        return InputSpec()

    def _infer(self, images: Images, stream: int) -> Coefficients:
        with torch.inference_mode():
            return self._networks[stream](torch.from_numpy(images).to(self.device)).cpu().numpy()

    def _close(self) -> None:
        torch.set_num_threads(self._threads_before)
        del self._networks


class TorchCudaRuntime(TorchRuntime):
    """On the first GPU, one CUDA stream per stream, in FP32: TF32 is off, in the whole process, while this is open."""

    name = "torch_cuda"
    on_gpu = True
    device = "cuda"

    def _open(self, path: Path, threads: int, streams: int) -> InputSpec:
        require_gpu()
        spec = super()._open(path, threads, streams)
        self._tf32_before = torch.backends.cudnn.allow_tf32
        torch.backends.cudnn.allow_tf32 = False
        self._cuda_streams = [torch.cuda.Stream() for _ in range(streams)]
        return spec

    def _infer(self, images: Images, stream: int) -> Coefficients:
        with torch.cuda.stream(self._cuda_streams[stream]):
            return super()._infer(images, stream)

    def _resident(self, images: Images, stream: int) -> Callable[[], None]:
        network, cuda_stream = self._networks[stream], self._cuda_streams[stream]
        on_device = torch.from_numpy(images).to(self.device)

        def call() -> None:
            with torch.inference_mode(), torch.cuda.stream(cuda_stream):
                network(on_device)
            cuda_stream.synchronize()

        return call

    def _close(self) -> None:
        super()._close()
        torch.backends.cudnn.allow_tf32 = self._tf32_before
        del self._cuda_streams


class TorchGraphRuntime(Runtime):
    """On the first GPU in FP16 with fused kernels, as one CUDA graph per input shape and stream.

    Larger batches are computed in groups, which costs a tenth of the time and saves most of the memory. `threads` is
    not used.
    """

    name = "torch_cuda_graph"
    on_gpu = True
    AT_ONCE = 64
    """Images in a group."""

    def _open(self, path: Path, threads: int, streams: int) -> InputSpec:
        require_gpu()
        network = HalfPrecision(load_network(path)[0], fused=True, at_once=self.AT_ONCE).to("cuda")
        self._lanes = [_Lane(network) for _ in range(streams)]
        return InputSpec()

    def _infer(self, images: Images, stream: int) -> Coefficients:
        return self._lanes[stream].run(torch.from_numpy(images))

    def _resident(self, images: Images, stream: int) -> Callable[[], None]:
        return self._lanes[stream].graph(torch.from_numpy(images)).replay

    def _close(self) -> None:
        del self._lanes


class TorchCompiledRuntime(Runtime):
    """On the first GPU in FP16 through torch.compile (mode reduce-overhead), which makes CUDA graphs of its own.

    They belong to the thread that opened it, so it has one stream. A first shape is compiled for itself, a second one
    for any number of images; each takes tens of seconds. `threads` is not used.
    """

    name = "torch_compiled"
    on_gpu = True

    def _open(self, path: Path, threads: int, streams: int) -> InputSpec:
        require_gpu()
        if streams > 1:
            raise BackendError("torch.compile's CUDA graphs belong to one thread: torch_compiled has one stream only.")
        network = HalfPrecision(load_network(path)[0]).to("cuda")
        self._network = cast(nn.Module, torch.compile(network, mode="reduce-overhead"))
        return InputSpec()

    def _infer(self, images: Images, stream: int) -> Coefficients:
        with torch.inference_mode():
            coefficients: Tensor = self._network(torch.from_numpy(images).to("cuda"))
            return coefficients.cpu().numpy()

    def _resident(self, images: Images, stream: int) -> Callable[[], None]:
        on_device = torch.from_numpy(images).to("cuda")

        def call() -> None:
            with torch.inference_mode():
                self._network(on_device)
            torch.cuda.synchronize()

        return call

    def _close(self) -> None:
        del self._network
        torch.compiler.reset()


_CAPTURING = threading.Lock()
"""One capture at a time; other streams go on meanwhile."""


class _Lane:
    """A CUDA stream, and its graph and buffers for each shape; one graph runs at a time, so all share their memory."""

    def __init__(self, network: nn.Module) -> None:
        self._network, self._stream = network, torch.cuda.Stream()
        self._pool = torch.cuda.graph_pool_handle()
        self._graphs: dict[torch.Size, _Graph] = {}

    def run(self, images: Tensor) -> Coefficients:
        return self.graph(images).result()

    def graph(self, images: Tensor) -> "_Graph":
        """The graph of this shape, with these images on their way into it."""
        if images.shape not in self._graphs:
            self._graphs[images.shape] = _Graph(self._network, self._stream, self._pool, images.shape)
        graph = self._graphs[images.shape]
        graph.load(images)
        return graph


class _Graph:
    """The network captured for one shape: it reads and writes the buffers that it was captured with."""

    WARMUP = 3
    """Runs before the capture, in which libraries choose and allocate."""

    def __init__(self, network: nn.Module, stream: torch.cuda.Stream, pool: Any, shape: torch.Size) -> None:
        self._stream = stream
        self._pinned, self._images = torch.empty(shape, pin_memory=True), torch.zeros(shape, device="cuda")
        torch.cuda.current_stream().synchronize()
        self._graph = torch.cuda.CUDAGraph()
        with _CAPTURING, torch.inference_mode():
            with torch.cuda.stream(stream):
                for _ in range(self.WARMUP):
                    network(self._images)
            stream.synchronize()
            torch.cuda.empty_cache()  # a graph has memory of its own and leaves what the first runs needed
            with torch.cuda.graph(self._graph, pool, stream, "thread_local"):
                self._coefficients = network(self._images)

    def load(self, images: Tensor) -> None:
        self._pinned.copy_(images)
        with torch.cuda.stream(self._stream):
            self._images.copy_(self._pinned, non_blocking=True)

    def replay(self) -> None:
        with torch.cuda.stream(self._stream):
            self._graph.replay()
        self._stream.synchronize()

    def result(self) -> Coefficients:
        with torch.cuda.stream(self._stream), torch.inference_mode():
            self._graph.replay()
            return self._coefficients.cpu().numpy()


def require_gpu() -> None:
    """Refuse a machine without a GPU for PyTorch.

    Raises:
        BackendError: there is none, or PyTorch is built without CUDA.
    """
    if not torch.cuda.is_available():
        raise BackendError("PyTorch sees no CUDA GPU here; it needs an NVIDIA GPU and PyTorch's build for it.")
