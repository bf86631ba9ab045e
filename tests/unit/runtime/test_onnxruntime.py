"""Of ONNX Runtime on CUDA what can be run without a GPU: the same bindings and buffers, on the CPU."""

import threading
from typing import Any

import numpy as np
import onnxruntime
import pytest
from torch import Tensor

from leanface.errors import BackendError
from leanface.networks.interface import INPUT_NAME
from leanface.runtime import open_runtime
from leanface.runtime.onnxruntime_ import CUDA_PROVIDER, BoundSession, Turns

WAIT_S = 10.0


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


def test_runs_go_side_by_side_and_a_capture_waits_for_them():
    turns, log = Turns(), []
    inside, leave = threading.Barrier(3), threading.Event()

    def run() -> None:
        with turns.run():
            inside.wait(WAIT_S)  # both are in at the same time, or this breaks
            assert leave.wait(WAIT_S)
            log.append("run")

    def capture() -> None:
        with turns.capture():
            log.append("capture")

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    inside.wait(WAIT_S)
    waiting = threading.Thread(target=capture)
    waiting.start()
    waiting.join(0.05)
    assert log == []
    leave.set()
    for thread in (*threads, waiting):
        thread.join(WAIT_S)
    assert log == ["run", "run", "capture"]


def test_nothing_runs_during_a_capture_and_a_failed_one_lets_the_others_go_on():
    turns, log = Turns(), []

    def run() -> None:
        with turns.run():
            log.append("run")

    thread = threading.Thread(target=run)
    try:
        with turns.capture():
            thread.start()
            thread.join(0.05)
            assert log == []
            raise ValueError("the capture failed")
    except ValueError:
        pass
    thread.join(WAIT_S)
    assert log == ["run"]
