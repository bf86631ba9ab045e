"""Of the TensorRT runtime: without a GPU that the names it calls exist; with one also its memory."""

import ast
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from leanface.errors import BackendError
from leanface.runtime import cuda, engine, tensorrt_
from leanface.runtime.cuda import Cuda
from leanface.runtime.engine import BUILDERS, LIBRARIES, load_tensorrt, runners_of
from leanface.runtime.tensorrt_ import require_target

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
    "settings": "IRuntimeConfig",
    "layer": "ILayer",
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


def installed(library: str) -> Any:
    try:
        return load_tensorrt([library])[1]
    except BackendError as error:
        pytest.skip(str(error))


@pytest.fixture(params=LIBRARIES)
def trt(request: pytest.FixtureRequest) -> Any:
    return installed(request.param)


@pytest.mark.parametrize(
    ("module", "library"),
    [(engine, library) for library in BUILDERS] + [(tensorrt_, library) for library in LIBRARIES],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_every_name_it_uses_exists_in_the_bindings(module: Any, library: str) -> None:
    trt, names = installed(library), used_names(module)
    missing = {
        f"{variable}.{attribute}"
        for variable, attribute in names
        if not hasattr(trt if variable == "trt" else getattr(trt, CLASSES[variable]), attribute)
    }
    assert len(names) > 5
    of_rtx = {"trt.CudaGraphStrategy", "settings.cuda_graph_strategy"}
    assert missing <= (set() if library == "tensorrt_rtx" else of_rtx)


def test_the_calls_of_inference_are_those_of_the_present_api(trt: Any) -> None:
    called = {attribute for variable, attribute in used_names(tensorrt_) if variable == "context"}
    assert called == {
        "set_optimization_profile_async",
        "set_tensor_address",
        "set_input_shape",
        "execute_async_v3",
    }


@pytest.mark.parametrize(
    ("owner", "call", "parameters"),
    [
        ("IExecutionContext", "set_optimization_profile_async", ["profile_index", "stream_handle"]),
        ("IExecutionContext", "set_input_shape", ["name", "shape"]),
        ("IExecutionContext", "set_tensor_address", ["name", "memory"]),
        ("IExecutionContext", "execute_async_v3", ["stream_handle"]),
        ("ICudaEngine", "create_execution_context", ["runtime_config"]),
        ("ICudaEngine", "get_tensor_profile_shape", ["name", "profile_index"]),
        ("Runtime", "deserialize_cuda_engine", ["serialized_engine"]),
        ("IBuilderConfig", "set_timing_cache", ["cache", "ignore_mismatch"]),
        ("IBuilderConfig", "create_timing_cache", ["serialized_timing_cache"]),
    ],
)
def test_the_calls_take_what_they_are_given(trt: Any, owner: str, call: str, parameters: list[str]) -> None:
    if not hasattr(trt, owner):
        pytest.skip("the lean runtime builds no engines")
    if call == "create_execution_context" and not hasattr(trt, "CudaGraphStrategy"):
        pytest.skip("full TensorRT leaves CUDA graphs to its caller")
    signatures = re.findall(rf"{call}\(self: [\w.]+((?:, \w+: [^,)]+)*)\)", getattr(getattr(trt, owner), call).__doc__)
    assert parameters in [re.findall(r", (\w+):", signature) for signature in signatures]


def test_cuda_graphs_are_left_to_tensorrt_rtx_by_a_name_that_it_has(trt: Any) -> None:
    if not hasattr(trt, "CudaGraphStrategy"):
        pytest.skip("full TensorRT leaves CUDA graphs to its caller")
    assert "WHOLE_GRAPH_CAPTURE" in trt.CudaGraphStrategy.__members__


def test_every_cuda_function_it_calls_exists_with_as_many_arguments() -> None:
    api = pytest.importorskip("cuda.bindings.runtime", reason="cuda-bindings is not installed")
    calls = {
        (node.args[0].value, len(node.args) - 1)
        for node in ast.walk(ast.parse(Path(cuda.__file__).read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "_call"
        if isinstance(node.args[0], ast.Constant)
    }
    assert len(calls) > 10
    for name, count in calls:
        parameters = re.match(rf"{name}\((.*)\)", getattr(api, name).__doc__)
        assert parameters is not None
        assert len([text for text in parameters[1].split(",") if text]) == count, name


def test_the_lean_runtime_runs_version_compatible_engines_alone() -> None:
    assert runners_of("tensorrt", version_compatible=True) == ("tensorrt", "tensorrt_lean")
    assert runners_of("tensorrt", version_compatible=False) == ("tensorrt",)
    assert runners_of("tensorrt_rtx", version_compatible=True) == ("tensorrt_rtx",)


def test_an_engine_for_other_gpus_is_refused_and_says_for_which() -> None:
    plan = Path("network.plan")
    with pytest.raises(BackendError, match=r"network\.plan was built for .* SM80, SM89; this one is SM90"):
        require_target(plan, ["SM80", "SM89"], "SM90")
    for fitting in (["SM80", "SM90"], ["current"], []):
        require_target(plan, fitting, "SM90")


def test_a_graph_replays_what_was_captured(request: pytest.FixtureRequest) -> None:
    try:
        device = Cuda()
    except BackendError as error:
        pytest.skip(f"no CUDA here: {error}")
    request.addfinalizer(device.close)
    buffer = device.allocate(8)
    sent, back = buffer.host.copy(), device.allocate(8)
    sent[:] = np.arange(8)
    back.device = buffer.device

    def queue() -> None:
        device.to_device(buffer, 8)
        device.to_host(back, 8)

    back.host[:] = -1
    buffer.host[:] = sent
    device.capture(queue)
    device.synchronize()
    assert (back.host == -1).all()
    for factor in (1, 2):
        buffer.host[:] = factor * sent
        device.launch_graph()
        device.synchronize()
        assert np.array_equal(back.host, factor * sent)
    device.forget_graph()
    assert not device.has_graph


def test_device_memory_holds_what_was_sent(request: pytest.FixtureRequest) -> None:
    try:
        device = Cuda()
    except BackendError as error:
        pytest.skip(f"no CUDA here: {error}")
    request.addfinalizer(device.close)
    sent, received = device.allocate(1000), device.allocate(1000)
    sent.host[:] = np.arange(1000)
    received.host[:] = -1
    device.to_device(sent, 1000)
    received.device = sent.device
    device.to_host(received, 600)
    device.synchronize()
    assert np.array_equal(received.host[:600], np.arange(600, dtype=np.float32))
    assert (received.host[600:] == -1).all()
