"""Two flavors of one INT8 network: what each computes, and where it is refused."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor

from leanface import bundle
from leanface.device import has_vnni
from leanface.errors import BackendError
from leanface.export.onnx import describe, export_network, save_model
from leanface.export.parity import as_written
from leanface.networks.quantized import in_flavor
from leanface.runtime import open_runtime
from leanface.runtime.engine import build_engine
from leanface.runtime.int8.plan import read_plan
from leanface.runtime.onnx_file import read_onnx
from tests.integration.runtime.test_engine import BUILD

FLAVORS = ("cpu", "tensorrt")


@pytest.fixture(scope="module")
def files(exported, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("flavors")
    network, spec = bundle.load_bundle(exported.int8_bundle)
    for flavor in FLAVORS:
        model = export_network(network, spec, "int8", 19, flavor=flavor)
        save_model(model, folder / f"{flavor}.onnx", describe(model))
    return {flavor: folder / f"{flavor}.onnx" for flavor in FLAVORS}


def distance(got: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(got - expected) / np.linalg.norm(expected))


@pytest.fixture(scope="module")
def images(smooth_images) -> Tensor:
    return (smooth_images(16, 5) * 255).round() / 255


@pytest.mark.parametrize("flavor", FLAVORS)
def test_a_file_says_its_flavor_and_computes_it(flavor, files, exported, images: Tensor) -> None:
    assert read_onnx(files[flavor]).flavor == flavor
    assert read_onnx(exported.fp32).flavor is None
    network, _ = bundle.load_bundle(exported.int8_bundle)
    with torch.inference_mode():
        expected = in_flavor(network, flavor)(images).numpy()
    got = as_written(onnx.load(files[flavor]))(images.numpy())
    assert distance(got, expected) < 0.05


def test_the_cpu_flavor_is_closer_to_the_network_that_was_quantized(files, exported, images: Tensor) -> None:
    network, _ = bundle.load_bundle(exported.float_bundle)
    with torch.inference_mode():
        expected = network(images).numpy()
    errors = {flavor: distance(as_written(onnx.load(files[flavor]))(images.numpy()), expected) for flavor in FLAVORS}
    assert errors["cpu"] < 0.8 * errors["tensorrt"]


def test_the_weights_of_both_are_the_same_but_for_the_heads(files) -> None:
    weights = [
        {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(files[flavor]).graph.initializer}
        for flavor in FLAVORS
    ]
    cpu, tensorrt = ({name: array for name, array in each.items() if array.dtype == np.int8} for each in weights)
    assert {name for name in tensorrt if name not in cpu} == {f"final_layers.{i}.weight.int8" for i in range(7)}
    assert all(np.array_equal(array, tensorrt[name]) for name, array in cpu.items())


def test_the_heads_of_the_cpu_flavor_are_one_layer_and_its_pool_reads_8_bits(files) -> None:
    graph = onnx.load(files["cpu"]).graph
    assert sum(node.op_type == "Conv" for node in graph.node) == 54
    assert not any(node.op_type == "Concat" for node in graph.node)
    made_by = {name: node.op_type for node in graph.node for name in node.output}
    assert [made_by[node.input[0]] for node in graph.node if node.op_type == "MaxPool"] == ["DequantizeLinear"]


def test_every_scale_is_float32(files) -> None:
    """ONNX Runtime 1.31 computes wrong values where Q/DQ meets float16."""
    for path in files.values():
        graph = onnx.load(path).graph
        kinds = {tensor.name: tensor.data_type for tensor in graph.initializer}
        quantizing = [node for node in graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
        assert {kinds[node.input[1]] for node in quantizing} == {onnx.TensorProto.FLOAT}


def test_onnx_runtime_computes_both_on_every_processor(files, images: Tensor) -> None:
    for flavor, path in files.items():
        with open_runtime("onnxruntime", path) as runtime:
            got = runtime.run(images.numpy())
        assert distance(got, as_written(onnx.load(path))(images.numpy())) < 0.05, flavor


def test_openvino_computes_the_cpu_flavor_or_refuses_it_by_name(files, images: Tensor) -> None:
    if not has_vnni():
        with pytest.raises(BackendError, match=r"cpu\.onnx is of flavor cpu.*no VNNI.*flavor tensorrt"):
            open_runtime("openvino", files["cpu"])
        return
    with open_runtime("openvino", files["cpu"]) as runtime:
        got = runtime.run(images.numpy())
    assert distance(got, as_written(onnx.load(files["cpu"]))(images.numpy())) < 0.05


def test_what_computes_signed_bytes_refuses_the_cpu_flavor(files, tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=r"cpu\.onnx is of flavor cpu.*flavor tensorrt"):
        build_engine(files["cpu"], tmp_path / "cpu.plan", BUILD)
    assert not (tmp_path / "cpu.plan").exists()
    with pytest.raises(BackendError, match=r"cpu\.onnx is of flavor cpu"):
        read_plan(files["cpu"])
