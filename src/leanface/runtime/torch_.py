"""PyTorch from a bundle: the reference that everything else is compared to, on the CPU and on a CUDA GPU.

On a GPU also as fast as PyTorch makes it: in FP16, the batch norms folded, with fused kernels as a CUDA graph.
"""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from leanface.bundle import Spec, load_bundle, load_network
from leanface.errors import BackendError
from leanface.networks.inference import HalfPrecision
from leanface.networks.resnet import FaceReconstructionNet
from leanface.runtime.base import Coefficients, Images, InputSpec, Pixels, Runtime, threads_per_stream
from leanface.runtime.cuda_graph import GraphLane, take_stream


def _tensor_of(images: Images) -> Tensor:
    """Return a tensor of the images; PyTorch takes no memory that it may not write."""
    return torch.from_numpy(np.require(images, requirements="W"))


class TorchRuntime(Runtime):
    """On the CPU. PyTorch's number of threads is global: it is changed while this runtime is open."""

    name = "torch"
    takes_bytes = True
    device: ClassVar[str] = "cpu"

    def _open(self, path: Path, threads: int, streams: int) -> InputSpec:
        # A network per stream: fake-quantizers swap weights while they run.
        loaded = [load_bundle(path) for _ in range(streams)]
        self._networks = [network.to(self.device) for network, _ in loaded]
        self.outputs = loaded[0][1].output_count
        self._threads_before = torch.get_num_threads()
        if share := threads_per_stream(threads, streams):
            torch.set_num_threads(share)
        return _input_spec(loaded[0][1])

    def _infer(self, images: Images, stream: int) -> Coefficients:
        with torch.inference_mode():
            received = planes_on_device(_tensor_of(images).to(self.device))
            return self._networks[stream](received).cpu().numpy()

    def _close(self) -> None:
        torch.set_num_threads(self._threads_before)
        del self._networks


class TorchCudaRuntime(TorchRuntime):
    """On the first GPU, one CUDA stream per stream, in FP32: TF32 is off, in the whole process, while this is open."""

    name = "torch_cuda"
    device = "cuda"

    def _open(self, path: Path, threads: int, streams: int) -> InputSpec:
        require_gpu()
        spec = super()._open(path, threads, streams)
        self._tf32_before = torch.backends.cudnn.allow_tf32
        torch.backends.cudnn.allow_tf32 = False
        self._cuda_streams = [take_stream(self) for _ in range(streams)]
        return spec

    def _infer(self, images: Images, stream: int) -> Coefficients:
        with torch.cuda.stream(self._cuda_streams[stream]):
            return super()._infer(images, stream)

    def _resident(self, images: Images, stream: int) -> Callable[[], None]:
        network, cuda_stream = self._networks[stream], self._cuda_streams[stream]
        on_device = planes_on_device(_tensor_of(images).to(self.device))

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
    takes_bytes = is_asynchronous = True
    PIXELS_AT_ONCE = 128 * 224 * 224
    """In a group."""

    def _open(self, path: Path, threads: int, streams: int) -> InputSpec:
        require_gpu()
        network, spec = load_network(path)
        stem = triton_stem() if isinstance(network, FaceReconstructionNet) else None
        half = HalfPrecision(network, fused=True, stem=stem).to("cuda")
        self.outputs = spec.output_count

        def compute(images: Tensor, coefficients: Tensor) -> None:
            coefficients.copy_(half(images))

        self._lanes = [GraphLane(compute, self.outputs, self.PIXELS_AT_ONCE) for _ in range(streams)]
        return _input_spec(spec)

    def _begin(self, images: Images, stream: int) -> Callable[[], Coefficients]:
        return self._lanes[stream].begin(images)

    def _resident(self, images: Images, stream: int) -> Callable[[], None]:
        return self._lanes[stream].resident(images)

    def _buffer(self, shape: tuple[int, ...], stream: int) -> Pixels:
        return self._lanes[stream].buffer(shape)

    def _close(self) -> None:
        del self._lanes


def _input_spec(spec: Spec) -> InputSpec:
    return InputSpec() if spec.input.any_size else InputSpec.of_shape((None, 3, spec.input.size, spec.input.size))


def triton_stem() -> Callable[[nn.Conv2d], nn.Module] | None:
    """Return the first layers by Triton, where it is installed and the GPU is new enough for it."""
    if torch.cuda.get_device_capability() < (8, 0) or importlib.util.find_spec("triton") is None:
        return None
    from leanface.runtime.int8.half_stem import HalfStem  # it imports Triton

    return HalfStem


def planes_on_device(images: Tensor) -> Float[Tensor, "batch 3 height width"]:
    """float32 in [0,1], of bytes or of what is that already."""
    if images.dtype != torch.uint8:
        return images
    return images.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format) / 255


def require_gpu() -> None:
    """Refuse a machine without a GPU for PyTorch.

    Raises:
        BackendError: there is none, its driver is too old, or PyTorch is built without CUDA.
    """
    if torch.cuda.is_available():
        return
    try:
        torch.cuda.init()
        reason = "none was found"
    except Exception as error:  # what is wrong with the driver or with PyTorch, in PyTorch's words
        reason = str(error).partition("\n")[0].rstrip(".")
    raise BackendError(
        f"PyTorch sees no CUDA GPU here ({reason}); it needs an NVIDIA GPU, its driver and PyTorch's build for it."
    )
