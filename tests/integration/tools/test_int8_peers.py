"""ModelOpt's own INT8 file, as the table of tools makes it."""

from pathlib import Path

import numpy as np
import onnx
import torch

from leanface import bundle
from tools.studies.int8_peers import exact, quantized_by_modelopt


def test_modelopts_file_is_near_the_network(exported, images, tmp_path: Path) -> None:
    network, _ = bundle.load_network(exported.float_bundle)
    path = quantized_by_modelopt(network, images.numpy(), tmp_path / "modelopt.onnx").path
    assert path is not None
    assert any(node.op_type == "QuantizeLinear" for node in onnx.load(path).graph.node)
    with torch.inference_mode():
        expected = network(images).numpy()
    got = exact(path)(images.numpy())  # OpenVINO's sums overflow on processors without VNNI
    assert 0 < np.linalg.norm(got - expected) < 0.2 * np.linalg.norm(expected)
