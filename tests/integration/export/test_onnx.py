"""ONNX files in every runtime, and exports other than the usual ones, which take seconds each."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto
from torch import Tensor, nn

from leanface import bundle
from leanface.catalog import FACE, readers_of
from leanface.errors import BackendError, ConfigError
from leanface.export.onnx import describe, export_network, save_model
from leanface.export.parity import AS_WRITTEN, as_written, check_parity, headline, parity_inputs
from leanface.networks.quantized import Quantizer, in_flavor, quantizers_of
from leanface.networks.resnet import FaceReconstructionNet
from leanface.quantization.fake_quantize import fake_quantize
from leanface.runtime import open_all, open_runtime
from leanface.runtime.engine import make_profile
from leanface.runtime.onnx_file import read_onnx
from tests.settings import BUILD
from tests.unit.export.test_onnx import SIZE, TOLERANCES, load, parity


def quantized(
    network: FaceReconstructionNet, images: Tensor, **options: Any
) -> tuple[nn.Module, bundle.Spec, onnx.ModelProto]:
    """A network quantized by `Quantizer(residual=True, **options)`, and its ONNX model."""
    quantizer = Quantizer(residual=True, **options)
    spec = bundle.new_spec(network, SIZE, quantizer=quantizer.model_dump(mode="json"))
    fake = fake_quantize(network, images, quantizer, "max")
    return fake, spec, export_network(fake, spec, quantizer.scheme, 19)


KEPT = ("backbone.conv1", "backbone.layer2.0.downsample.0", "backbone.layer3.1.conv2", "final_layers.3")


def test_layers_that_are_kept_from_int8_compute_in_float16(
    small_network: FaceReconstructionNet, images: Tensor, exported, tmp_path: Path
) -> None:
    network, _, model = quantized(small_network, images, excluded_layers=KEPT)
    kernels = {tensor.name: tensor.data_type for tensor in model.graph.initializer if len(tensor.dims) == 4}
    assert {name for name, kind in kernels.items() if kind == TensorProto.FLOAT16} == {
        f"{name}.weight" for name in KEPT
    }
    assert sum(kind == TensorProto.INT8 for kind in kernels.values()) == 60 - len(KEPT)
    producers = {name: node for node in model.graph.node for name in node.output}
    for node in model.graph.node:
        if node.op_type == "Conv" and node.input[1] in {f"{name}.weight" for name in KEPT}:
            cast = producers[node.input[0]]
            assert cast.op_type == "Cast"
            assert cast.input[0] == "images" or producers[cast.input[0]].op_type != "DequantizeLinear"
    assert model.ByteSize() > onnx.load(exported.int8).ByteSize()
    parity(network, model, images, TOLERANCES["int8"])

    save_model(model, tmp_path / "kept.onnx", {})
    expected = network(images).detach().numpy()
    for name in ("onnxruntime", "openvino"):
        with open_runtime(name, tmp_path / "kept.onnx") as runtime:
            difference = np.linalg.norm(runtime.run(images.numpy()) - expected) / np.linalg.norm(expected)
        assert difference < TOLERANCES["int8"], name


@pytest.mark.parametrize("precision", TOLERANCES)
def test_every_runtime_computes_it_for_odd_inputs_too(exported, precision: str, images: Tensor) -> None:
    network, model = load(exported, precision)
    inputs = parity_inputs(images, FACE, dynamic_size=True)
    with open_all(dict.fromkeys(readers_of("onnx"), getattr(exported, precision))) as (runtimes, skipped):
        runs = {AS_WRITTEN: as_written(model)} | {runtime.name: runtime.run for runtime in runtimes}
        rows = check_parity(network, runs, inputs, 2 * TOLERANCES[precision])
    assert {(row.runtime, row.input) for row in rows} == {(runtime, name) for runtime in runs for name in inputs}
    assert set(runs) | set(skipped) == {AS_WRITTEN, *readers_of("onnx")}
    assert headline(rows)["parity_worst_relative_l2"] == max(row.worst_relative_l2 for row in rows)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_file_of_a_fixed_size_takes_no_other(exported, precision: str, images: Tensor, tmp_path: Path) -> None:
    network, spec = bundle.load_bundle(exported.int8_bundle if precision == "int8" else exported.float_bundle)
    model, path = export_network(network, spec, precision, 19, dynamic_size=False), tmp_path / "fixed.onnx"
    assert describe(model)["inputs"][0]["shape"] == ["batch", 3, 64, 64]
    parity(network, model, images, TOLERANCES[precision])
    save_model(model, path, {})
    for name in ("onnxruntime", "openvino"):
        with open_runtime(name, path) as runtime:
            assert runtime.input_spec.side == (64, 64)
            assert runtime.run(images.numpy()).shape == (4, 257)
            with pytest.raises(BackendError, match="a height of 64 px"):
                runtime.run(np.zeros((1, 3, 80, 64), np.float32))
    with pytest.raises(ConfigError, match=r"takes 64 px alone; export it with export\.dynamic_size"):
        make_profile(read_onnx(path), BUILD.model_copy(update={"image_size_max": 96}))


def test_the_int8_file_is_compared_with_a_network_that_clips_where_it_does(exported, images: Tensor) -> None:
    network, spec = bundle.load_bundle(exported.int8_bundle)
    for name, quantizer in quantizers_of(network):
        if name.endswith("input_quantizer"):
            quantizer.amax = quantizer.amax / 1.5  # so that these images exceed the ranges
    model = export_network(network, spec, "int8", 19, dynamic_size=True)
    run, wide = as_written(model), in_flavor(network, "tensorrt")
    with torch.inference_mode():
        clipped, meant = (one(images).numpy() for one in (network, wide))
    got = run(images.numpy())
    assert np.linalg.norm(got - meant) < 0.5 * np.linalg.norm(got - clipped)
    assert all(not quantizer.unsigned for _, quantizer in quantizers_of(network))  # the network itself stays as it is
