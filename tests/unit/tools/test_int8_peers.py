"""The table of INT8 files by different tools."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from leanface.metrics.latency import Timing
from leanface.metrics.ratio import MedianEstimate
from tools.studies.int8_peers import OPENVINO_DEFAULT, Row, page, quantized_by_nncf


def timing(latency_ms: float, speedup: float, spread: float = 0.1) -> Timing:
    ratio = MedianEstimate(speedup, speedup * (1 - spread), speedup * (1 + spread), 8)
    return Timing(MedianEstimate(latency_ms, None, None, 8), latency_ms, latency_ms, latency_ms, 1.0, ratio, 8, 80)


def test_every_row_is_compared_with_the_best_uncompressed_one_and_says_why_it_did_not_run() -> None:
    errors = {"vertex_mm": 0.1, "posed_mm": 0.2, "rotation_deg": 0.3}
    rows = [
        Row("Original FP32", "torch", 100_000_000, None, timing(40.0, 1.0)),
        Row("Original FP32", OPENVINO_DEFAULT, 96_000_000, None, timing(6.0, 6.7)),
        Row("Light INT8, flavor cpu", "openvino", 6_500_000, errors, timing(1.5, 26.7)),
        Row("Light INT8, flavor cpu", "onnxruntime", 6_500_000, errors, timing(2.0, 20.0, 0.5)),
        Row("Light INT8, NNCF", "openvino", None, None, None, "NNCF is not installed"),
    ]
    lines = page(rows, {"cpu": "a processor"}, 112).splitlines()
    assert (
        "| Light INT8, flavor cpu | 6.5 | openvino | 0.100 | 0.200 | 0.300 | 1.50 | 26.7 (24.0 to 29.4) | 4.0 |"
        in lines
    )
    assert any("| 20.0 (10.0 to 30.0, too wide) |" in line for line in lines)
    assert "| Light INT8, NNCF | - | openvino | - | - | - | - | not_run | - |" in lines
    assert lines[-1] == "- Light INT8, NNCF in openvino: `not_run`: NNCF is not installed"


@pytest.mark.skipif(importlib.util.find_spec("nncf") is not None, reason="NNCF is installed")
def test_a_tool_that_is_not_installed_is_named_with_its_extra(tmp_path: Path) -> None:
    peer = quantized_by_nncf(tmp_path / "none.onnx", np.zeros((1, 3, 8, 8), np.float32), tmp_path / "peer.xml")
    assert peer.path is None
    assert "leanface[peers]" in (peer.not_run or "")
