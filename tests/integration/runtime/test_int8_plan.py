"""Networks that the INT8 kernels refuse by name, exported as they are."""

from pathlib import Path

import onnx
import pytest

from leanface.bundle import new_spec
from leanface.errors import BackendError
from leanface.export.onnx import export_network
from leanface.networks.quantized import Quantizer
from leanface.quantization.fake_quantize import fake_quantize
from leanface.runtime.int8.plan import read_plan


def test_a_network_whose_additions_are_not_quantized_is_refused(small_network, smooth_images, tmp_path: Path) -> None:
    quantizer = Quantizer(residual=False)
    network = fake_quantize(small_network, smooth_images(4, 0), quantizer)
    spec = new_spec(network, 64).model_copy(update={"quantizer": quantizer.model_dump()})
    onnx.save(export_network(network, spec, "int8", opset=19), tmp_path / "network.onnx")
    with pytest.raises(BackendError, match=r"network\.onnx: .*Add.*quantized feature map.*OpenVINO"):
        read_plan(tmp_path / "network.onnx")


def test_a_convolution_that_was_kept_is_named(small_network, smooth_images, tmp_path: Path) -> None:
    quantizer = Quantizer(residual=True, excluded_layers=("backbone.layer2.0.conv1",))
    network = fake_quantize(small_network, smooth_images(4, 0), quantizer)
    spec = new_spec(network, 64).model_copy(update={"quantizer": quantizer.model_dump()})
    onnx.save(export_network(network, spec, "int8", opset=19), tmp_path / "network.onnx")
    with pytest.raises(BackendError, match=r"Cast|backbone\.layer2\.0\.conv1"):
        read_plan(tmp_path / "network.onnx")
