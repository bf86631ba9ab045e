"""Profiles as trtexec writes them."""

import json
from pathlib import Path
from typing import Any

import pytest

from leanface.errors import ArtifactError
from leanface.runtime.trtexec import read_trtexec

PROFILE: list[dict[str, Any]] = [
    {"count": 3},
    {"name": "Reformatting CopyNode for Input Tensor 0", "timeMs": 3, "averageMs": 1, "medianMs": 1, "percentage": 25},
    {
        "name": "/backbone/conv1/Conv + /backbone/relu/Relu",
        "timeMs": 9,
        "averageMs": 3,
        "medianMs": 3,
        "percentage": 75,
    },
]
"""As NVIDIA's trtexec writes it: samples/common/sampleReporting.cpp of TensorRT 10."""

LAYERS = {
    "Layers": [
        {
            "Name": "/backbone/conv1/Conv + /backbone/relu/Relu",
            "LayerType": "CaskConvolution",
            "Inputs": [{"Name": "a", "Dimensions": [1, 4, 8, 8], "Format/Datatype": "Int8"}],
            "Outputs": [{"Name": "b", "Dimensions": [1, 2, 8, 8], "Format/Datatype": "Half"}],
            "Metadata": "[ONNX Layer: /backbone/conv1/input_quantizer/QuantizeLinear]\x1e"
            "[ONNX Layer: /backbone/conv1/Conv]",
        }
    ]
}


def test_trtexecs_profile_is_read_with_its_layers_and_times(tmp_path: Path) -> None:
    files = {"profile": PROFILE, "layers": LAYERS, "times": [{"computeMs": 4.1}, {"computeMs": 3.9}]}
    for name, content in files.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    profile = read_trtexec(*(tmp_path / f"{name}.json" for name in files))
    assert (profile.latency_ms, profile.sum_ms, profile.covers) == (4.0, 4.0, True)
    reformat, conv = profile.kernels
    assert (reformat.reformats, conv.reformats) == (True, False)
    assert (conv.layer, conv.precision, conv.size_bytes) == ("backbone.conv1", "Half", 4 * 64 + 2 * 2 * 64)


def test_another_json_is_no_profile(tmp_path: Path) -> None:
    (tmp_path / "profile.json").write_text('[{"count": 1}, {"name": "a"}]')
    with pytest.raises(ArtifactError, match="not what trtexec writes"):
        read_trtexec(tmp_path / "profile.json")
