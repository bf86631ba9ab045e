"""PyTorch from a bundle: the reference that everything else is compared to, on the CPU and on a CUDA GPU."""

from pathlib import Path
from typing import ClassVar

import torch

from leanface.bundle import load_bundle
from leanface.errors import BackendError
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
        if not torch.cuda.is_available():
            raise BackendError("PyTorch sees no CUDA GPU here; it needs an NVIDIA GPU and PyTorch's build for it.")
        spec = super()._open(path, threads, streams)
        self._tf32_before = torch.backends.cudnn.allow_tf32
        torch.backends.cudnn.allow_tf32 = False
        self._cuda_streams = [torch.cuda.Stream() for _ in range(streams)]
        return spec

    def _infer(self, images: Images, stream: int) -> Coefficients:
        with torch.cuda.stream(self._cuda_streams[stream]):
            return super()._infer(images, stream)

    def _close(self) -> None:
        super()._close()
        torch.backends.cudnn.allow_tf32 = self._tf32_before
        del self._cuda_streams
