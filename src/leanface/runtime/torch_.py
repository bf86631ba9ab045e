"""PyTorch on the CPU, from a bundle: the reference that everything else is compared to."""

from pathlib import Path

import torch

from leanface.bundle import load_bundle
from leanface.runtime.base import Coefficients, Images, InputSpec, Runtime


class TorchRuntime(Runtime):
    """PyTorch's number of threads is global: it is changed while this runtime is open."""

    name = "torch"

    def _open(self, path: Path, threads: int) -> InputSpec:
        self._network, _ = load_bundle(path)
        self._threads_before = torch.get_num_threads()
        if threads:
            torch.set_num_threads(threads)
        return InputSpec()

    def _infer(self, images: Images) -> Coefficients:
        with torch.inference_mode():
            return self._network(torch.from_numpy(images)).numpy()

    def _close(self) -> None:
        torch.set_num_threads(self._threads_before)
        del self._network
