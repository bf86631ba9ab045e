"""PyTorch on streams, device buffers and pinned memory of someone else's: cuda-python's, and pycuda's.

This is all that TensorRT's runtime does but its own call: see docs/decisions/0006-cuda-python.md.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from leanface.bundle import load_bundle
from leanface.errors import BackendError
from leanface.face.coefficients import COUNT
from leanface.runtime import Runtime, pipelined
from leanface.runtime.base import Coefficients, Images, InputSpec
from leanface.runtime.cuda import Cuda
from leanface.runtime.pycuda_ import PyCuda

STREAMS, ROUNDS = 4, 6
MOST = 4 * 3 * 64 * 64


class OnDevice:
    """Float32 at an address of the GPU, as PyTorch takes it."""

    def __init__(self, address: int, shape: tuple[int, ...]) -> None:
        self.__cuda_array_interface__ = {"data": (address, False), "shape": shape, "typestr": "<f4", "version": 2}


def tensor_at(address: int, shape: tuple[int, ...]) -> Tensor:
    return torch.as_tensor(OnDevice(address, shape), device="cuda")


def user_streams(cuda: Callable[[], Cuda | PyCuda]) -> type[Runtime]:
    """A runtime whose every stream is a `cuda`, on which PyTorch computes."""

    class UserStreams(Runtime):
        name = "user_streams"
        outputs = COUNT

        def _open(self, path: Path, threads: int, streams: int) -> InputSpec:
            self._network = load_bundle(path)[0].cuda()
            self._cudas = [cuda() for _ in range(streams)]
            self._buffers = [(one.allocate(MOST), one.allocate(4 * COUNT)) for one in self._cudas]
            torch.cuda.synchronize()
            return InputSpec(batch=(1, 4), side=(64, 64))

        def _infer(self, images: Images, stream: int) -> Coefficients:
            one, (received, returned) = self._cudas[stream], self._buffers[stream]
            received.host[: images.size] = images.ravel()
            one.to_device(received, images.size)
            with torch.inference_mode(), torch.cuda.stream(torch.cuda.ExternalStream(one.stream)):
                found = self._network(tensor_at(received.device, images.shape))
                tensor_at(returned.device, (len(images), COUNT)).copy_(found)
            one.to_host(returned, len(images) * COUNT)
            one.synchronize()
            return returned.host[: len(images) * COUNT].reshape(len(images), COUNT).copy()

        def _close(self) -> None:
            for one in self._cudas:
                one.close()

    return UserStreams


@pytest.mark.parametrize("cuda", [Cuda, PyCuda])
def test_networks_on_user_streams_compute_side_by_side(
    cuda: type[Cuda | PyCuda], exported, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    try:
        capability = (one := cuda()).compute_capability
    except BackendError as error:
        pytest.skip(str(error))
    one.close()
    assert capability == "SM{}{}".format(*torch.cuda.get_device_capability())
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    network, _ = load_bundle(exported.float_bundle)
    batches = [images[start : start + 1 + start % 3].numpy() for start in range(4)] * ROUNDS
    with torch.inference_mode():
        expected = [network(torch.from_numpy(batch)).numpy() for batch in batches[:4]] * ROUNDS
    with user_streams(cuda)(exported.float_bundle, streams=STREAMS) as runtime:
        for got, right in zip(pipelined(runtime, batches), expected, strict=True):
            assert np.linalg.norm(got - right) < 1e-4 * np.linalg.norm(right)
