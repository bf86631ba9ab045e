"""ONNX files: what is in them, and that they compute what PyTorch computes."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, numpy_helper
from torch import Tensor, nn

from leanface import bundle
from leanface.catalog import FACE
from leanface.errors import ExportError
from leanface.export.onnx import describe, export_network, save_model
from leanface.export.parity import AS_WRITTEN, FAINT, Parity, as_written, check_parity, parity_inputs
from leanface.networks.inference import inference_form
from leanface.networks.resnet import FaceReconstructionNet

SIZE = 64
TOLERANCES = {"fp32": 1e-5, "fp16": 1e-2, "int8": 3e-2}


def load(exported, precision: str) -> tuple[nn.Module, onnx.ModelProto]:
    folder = exported.int8_bundle if precision == "int8" else exported.float_bundle
    return bundle.load_bundle(folder)[0], onnx.load(getattr(exported, precision))


def operators(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


def parity(network: nn.Module, model: onnx.ModelProto, images: Tensor, tolerance: float) -> Parity:
    """Of the file as it is written, on these images alone."""
    (row,) = check_parity(network, {AS_WRITTEN: as_written(model)}, {"pictures": images}, tolerance)
    return row


def parameter_count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("precision", TOLERANCES)
def test_the_file_computes_what_pytorch_computes(exported, precision: str, images: Tensor) -> None:
    network, model = load(exported, precision)
    row = parity(network, model, images, TOLERANCES[precision])
    assert row.shape == tuple(images.shape)
    assert row.relative_l2 <= row.worst_relative_l2 <= 2 * TOLERANCES[precision]


@pytest.mark.parametrize("precision", TOLERANCES)
def test_the_file_says_what_it_is(exported, precision: str) -> None:
    _, model = load(exported, precision)
    onnx.checker.check_model(model, full_check=True)
    description = describe(model)
    assert description["inputs"] == [{"name": "images", "dtype": "float32", "shape": ["batch", 3, "height", "width"]}]
    assert description["outputs"] == [{"name": "coefficients", "dtype": "float32", "shape": ["batch", 257]}]
    assert description["opset"] == 19
    metadata = description["metadata"]
    assert metadata["leanface.precision"] == precision
    assert json.loads(metadata["leanface.input"])["size"] == 64
    assert json.loads(metadata["leanface.outputs"])["identity"] == [0, 80]
    assert {"leanface.version", "leanface.license"} <= set(metadata)
    assert "leanface.teacher" not in metadata, "this network has none"


@pytest.mark.parametrize("precision", TOLERANCES)
def test_batch_height_and_width_are_dynamic(exported, precision: str) -> None:
    network, model = load(exported, precision)
    pictures = torch.rand(3, 3, 96, 80, generator=torch.Generator().manual_seed(1)) * 0.5
    assert parity(network, model, pictures, 0.2).shape == (3, 3, 96, 80)


@pytest.mark.parametrize(("precision", "bytes_per_weight"), [("fp32", 4), ("fp16", 2), ("int8", 1)])
def test_weights_are_stored_in_their_precision(exported, precision: str, bytes_per_weight: int) -> None:
    network, model = load(exported, precision)
    kind = {"fp32": TensorProto.FLOAT, "fp16": TensorProto.FLOAT16, "int8": TensorProto.INT8}[precision]
    kernels = [tensor for tensor in model.graph.initializer if len(tensor.dims) == 4]
    assert len(kernels) == 60
    assert {tensor.data_type for tensor in kernels} == {kind}
    overhead = model.ByteSize() - bytes_per_weight * parameter_count(network)
    assert overhead < 120_000  # scales, biases and names


def test_fp32_has_no_batch_norms_and_no_casts(exported) -> None:
    _, model = load(exported, "fp32")
    assert set(operators(model)) == {
        "Conv",
        "Relu",
        "Add",
        "MaxPool",
        "GlobalAveragePool",
        "Concat",
        "Flatten",
    }


def test_fp16_casts_only_its_input_and_output(exported) -> None:
    _, model = load(exported, "fp16")
    casts = [node for node in model.graph.node if node.op_type == "Cast"]
    assert {node.input[0] for node in casts} & {"images"}
    assert {node.output[0] for node in casts} & {"coefficients"}
    assert len(casts) == 2


def test_int8_quantizes_feature_maps_only_and_dequantizes_weights_per_channel(exported) -> None:
    _, model = load(exported, "int8")
    counts = operators(model)
    assert not {"Cast", "BatchNormalization", "Constant"} & set(counts)
    initializers = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    dequantized = [node for node in model.graph.node if node.op_type == "DequantizeLinear"]
    weights = [node for node in dequantized if node.input[0] in initializers]
    assert len(weights) == counts["Conv"] == 60
    assert len(dequantized) - len(weights) == counts["QuantizeLinear"]
    for node in weights:
        kernel, scale = (initializers[name] for name in node.input)
        assert kernel.dtype == np.int8
        assert scale.shape == (len(kernel),)
        assert [attribute.i for attribute in node.attribute if attribute.name == "axis"] == [0]


def test_int8_levels_are_those_of_the_fake_quantized_network(exported) -> None:
    network, model = load(exported, "int8")
    initializers = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for name, conv in network.named_modules():
        if isinstance(conv, nn.Conv2d):
            levels = (127 * conv.weight / conv.weight_quantizer.amax).round().detach().numpy()
            # Folding the batch norm may turn a channel's sign, and a tie to the other side.
            off = np.abs(np.abs(initializers[f"{name}.weight.int8"].astype(int)) - np.abs(levels))
            assert off.max() <= 1
            assert off.mean() < 1e-3


def test_int8_feature_maps_are_unsigned_where_they_cannot_be_negative(exported) -> None:
    _, model = load(exported, "int8")
    kinds = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    producers = {name: node.op_type for node in model.graph.node for name in node.output}
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear":
            signed = producers.get(node.input[0]) == "Conv"  # a projection, the rest comes from ReLUs and images
            assert kinds[node.input[2]] == (TensorProto.INT8 if signed else TensorProto.UINT8)


@pytest.mark.parametrize("weight", [-1.5, 0.0, 1e-20])
def test_folding_bears_any_batch_norm(small_network: FaceReconstructionNet, images: Tensor, weight: float) -> None:
    with torch.no_grad():
        for module in small_network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight[::3] = weight
        expected = small_network(images)
        folded = inference_form(small_network)
        torch.testing.assert_close(folded(images), expected, rtol=1e-3, atol=1e-4)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert any(isinstance(module, nn.BatchNorm2d) for module in small_network.modules())


def test_a_file_that_computes_something_else_is_refused(exported, images: Tensor) -> None:
    network, model = load(exported, "fp32")
    bias = next(tensor for tensor in model.graph.initializer if tensor.dims == [80])
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + 1.0, bias.name))
    with pytest.raises(ExportError, match="does not compute what PyTorch computes"):
        parity(network, model, images, 1e-4)


def test_odd_inputs_keep_the_input_contract(images: Tensor) -> None:
    inputs = parity_inputs(images, FACE, dynamic_size=True)
    assert {len(pictures) for pictures in inputs.values()} >= {1, 7}
    assert len({pictures.shape[2:] for pictures in inputs.values()}) == 2
    for name, pictures in inputs.items():
        assert (pictures.amin(), pictures.amax()) >= (0, 0), name
        assert pictures.amax() <= 1, name
    assert 0 < inputs["black"].max() <= FAINT
    assert 1 - FAINT <= inputs["white"].min() < 1
    assert set(inputs["black and white noise"].unique().tolist()) == {0.0, 1.0}
    assert {pictures.shape[2:] for pictures in parity_inputs(images, FACE, dynamic_size=False).values()} == {(64, 64)}


def test_a_runtime_that_fails_on_one_input_is_named_with_it(exported, images: Tensor) -> None:
    network, model = load(exported, "fp32")
    honest = as_written(model)
    runs = {AS_WRITTEN: honest, "blind": lambda pictures: honest(pictures) + (pictures.max() <= FAINT)}
    with pytest.raises(ExportError, match=r"blind, black \(1, 3, 64, 64\)") as caught:
        check_parity(network, runs, parity_inputs(images, FACE, dynamic_size=True), 1e-4)
    assert str(caught.value).count("sample 0") == 1


def test_a_file_that_computes_nan_is_refused(exported, images: Tensor) -> None:
    network, model = load(exported, "fp32")
    bias = next(tensor for tensor in model.graph.initializer if tensor.dims == [80])
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) * np.float32(np.nan), bias.name))
    with pytest.raises(ExportError, match="nan"):
        parity(network, model, images, 1e-4)


def test_a_precision_that_does_not_fit_is_refused(exported) -> None:
    for folder, precision in ((exported.float_bundle, "int8"), (exported.int8_bundle, "fp16")):
        network, spec = bundle.load_bundle(folder)
        with pytest.raises(ExportError, match=precision):
            export_network(network, spec, precision, 19)
    network, spec = bundle.load_bundle(exported.float_bundle)
    with pytest.raises(ExportError, match=r"fp32, fp16, int8$"):
        export_network(network, spec, "int4", 19)


def test_saving_leaves_the_file_its_description_and_nothing_else(exported, tmp_path: Path) -> None:
    _, model = load(exported, "fp32")
    save_model(model, tmp_path / "a" / "network.onnx", {"variant": "teacher_fp32"})
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["network.json", "network.onnx"]
    assert json.loads((tmp_path / "a" / "network.json").read_text()) == {"variant": "teacher_fp32"}
    session = onnxruntime.InferenceSession(str(tmp_path / "a" / "network.onnx"))
    assert [entry.name for entry in session.get_outputs()] == ["coefficients"]
