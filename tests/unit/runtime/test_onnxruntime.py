"""Of ONNX Runtime on CUDA what can be run without a GPU: the same bindings and buffers, on the CPU."""

from typing import Any

import numpy as np
import onnxruntime
import pytest
from torch import Tensor

from leanface.errors import BackendError
from leanface.networks.interface import INPUT_NAME
from leanface.runtime import open_runtime
from leanface.runtime.onnxruntime_ import CUDA_PROVIDER, BoundSession


@pytest.fixture
def session(exported) -> Any:
    return onnxruntime.InferenceSession(exported.fp32, providers=["CPUExecutionProvider"])


def test_each_shape_has_buffers_of_its_own_that_are_used_again(session: Any, images: Tensor) -> None:
    bound = BoundSession(session, "cpu")
    for batch in (images[:1], images[1:], images[2:3], images.flip(0)[1:], images[:1]):
        expected = session.run(None, {INPUT_NAME: batch.numpy()})[0]
        assert np.allclose(bound.run(batch.numpy()), expected, rtol=1e-5, atol=1e-6)


def test_without_its_provider_it_says_what_to_install(exported) -> None:
    if CUDA_PROVIDER in onnxruntime.get_available_providers():
        pytest.skip("onnxruntime-gpu is installed")
    with pytest.raises(BackendError, match="onnxruntime-gpu"):
        open_runtime("onnxruntime_cuda", exported.fp32)
