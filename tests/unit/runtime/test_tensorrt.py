"""Of the TensorRT runtime: without a GPU that the names it calls exist; with one also its memory."""

import ast
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from leanface.errors import BackendError
from leanface.runtime import engine, tensorrt_
from leanface.runtime.cuda import Cuda
from leanface.runtime.engine import load_tensorrt

CLASSES = {
    "builder": "Builder",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "error": "ParserError",
    "config": "IBuilderConfig",
    "profile": "IOptimizationProfile",
    "runtime": "Runtime",
    "engine": "ICudaEngine",
    "context": "IExecutionContext",
}
"""What the variables of these names hold, in the functions that take or make `trt`."""


def used_names(module: Any) -> set[tuple[str, str]]:
    """(variable, attribute) of each attribute that the module's code reads from a TensorRT object."""
    tree = ast.parse(Path(module.__file__).read_text())
    return {
        (node.value.id, node.attr)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
        if node.value.id in (*CLASSES, "trt")
    }


@pytest.fixture
def trt() -> Any:
    try:
        return load_tensorrt()[1]
    except BackendError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("module", [engine, tensorrt_], ids=["engine", "tensorrt_"])
def test_every_name_it_uses_exists_in_the_bindings(trt: Any, module: Any) -> None:
    names = used_names(module)
    missing = {
        f"{variable}.{attribute}"
        for variable, attribute in names
        if not hasattr(trt if variable == "trt" else getattr(trt, CLASSES[variable]), attribute)
    }
    assert len(names) > 5
    assert not missing


def test_the_calls_of_inference_are_those_of_the_present_api(trt: Any) -> None:
    called = {attribute for variable, attribute in used_names(tensorrt_) if variable == "context"}
    assert called == {"set_tensor_address", "set_input_shape", "execute_async_v3"}


def test_device_memory_holds_what_was_sent(request: pytest.FixtureRequest) -> None:
    try:
        cuda = Cuda()
    except BackendError as error:
        pytest.skip(f"no CUDA here: {error}")
    request.addfinalizer(cuda.close)
    sent, received = cuda.allocate(1000), cuda.allocate(1000)
    sent.host[:] = np.arange(1000)
    received.host[:] = -1
    cuda.to_device(sent, 1000)
    received.device = sent.device
    cuda.to_host(received, 600)
    cuda.synchronize()
    assert np.array_equal(received.host[:600], np.arange(600, dtype=np.float32))
    assert (received.host[600:] == -1).all()
