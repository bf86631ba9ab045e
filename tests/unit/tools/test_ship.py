"""What a release takes from the working tree."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from leanface import bundle, catalog, paths
from leanface.errors import ArtifactError, GateError
from leanface.files import atomic_write, write_json
from leanface.networks.resnet import FaceReconstructionNet
from leanface.stages import configure
from tools.release.ship import ship

GATE = {"limit": 0.982, "value": 0.99, "interval": None, "passed": True, "bound": "min"}
VARIANTS = {
    "quantized_int8": {"runtime": "openvino", "intervals": {}, "truth_vertex_mm": 1.2},
    "cpu_int8": {"runtime": "openvino", "intervals": {}, "truth_vertex_mm": 1.15},
    "distilled_fp16": {"runtime": "openvino", "intervals": {}, "truth_vertex_mm": 1.1},
}
SUMMARY = {
    "scale": "gpu",
    "image_size": 224,
    "device": {"cpu": "one"},
    "variants": VARIANTS,
    "gates": {"ssim": GATE},
    "not_measured": {},
    "not_run": [],
}


WEIGHTS = np.random.default_rng(0).integers(-127, 128, 4096, np.int8)


def scaled(scale: float, weights: np.ndarray = WEIGHTS) -> onnx.ModelProto:
    """Make a network of one input, which it multiplies with int8 weights times `scale`."""
    nodes = [
        helper.make_node("DequantizeLinear", ["weights", "scale"], ["floats"]),
        helper.make_node("Mul", ["x", "floats"], ["y"]),
    ]
    held = {"weights": weights, "scale": np.float32(scale)}
    graph = helper.make_graph(
        nodes,
        "flavor",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [len(weights)])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in held.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)


@pytest.fixture
def finished(project: Path, small_network: FaceReconstructionNet) -> Path:
    """A project whose pipeline has run, and a folder of assets from the release before."""
    configure.run()
    write_json(paths.SUMMARY, SUMMARY)
    for name in VARIANTS:
        rows = [f"{number},{1.0 + number % 2},0.5" for number in range(101)]
        table = "\n".join(["sample,truth_vertex_mm,teacher_vertex_mm", *rows])
        atomic_write(paths.evaluation_dir(name) / "samples.csv", table)
    atomic_write(paths.MODEL_CARD, "# Model card\n")
    for variant, scale in {catalog.DEPLOYED: 1.0, catalog.DEPLOYED_ON_CPU: 0.5}.items():
        atomic_write(paths.onnx_path(variant), scaled(scale).SerializeToString())
    bundle.save_bundle(small_network, bundle.new_spec(small_network, 64), paths.DISTILLED)
    assets = project / "assets"
    atomic_write(assets / paths.PACKAGED_MODEL.name, "the one before")
    return assets


def test_both_networks_their_card_and_their_scores_are_shipped(
    finished: Path, small_network: FaceReconstructionNet
) -> None:
    ship(finished)
    assert (finished / "leanface_int8.onnx").read_bytes() == paths.onnx_path(catalog.DEPLOYED).read_bytes()
    on_cpu = finished / "leanface_int8_cpu.onnx"
    assert on_cpu.stat().st_size < paths.onnx_path(catalog.DEPLOYED_ON_CPU).stat().st_size - WEIGHTS.nbytes // 2
    session: Any = onnxruntime.InferenceSession(str(on_cpu), providers=["CPUExecutionProvider"])
    (result,) = session.run(None, {"x": np.array(3, np.float32)})
    np.testing.assert_array_equal(result, 3 * 0.5 * WEIGHTS.astype(np.float32))
    assert (finished / "leanface_int8.md").read_text() == "# Model card\n"
    shipped = bundle.load_network(finished / "leanface_fp16")[0].state_dict()
    assert shipped["backbone.conv1.weight"].equal(small_network.state_dict()["backbone.conv1.weight"].half().float())
    known = json.loads((finished / "leanface_int8.json").read_text())
    assert known["scores"] == VARIANTS
    errors = {"truth_vertex_mm": 1.5, "teacher_vertex_mm": 0.5}  # without the 101st face
    assert known["first"] == {"count": 100} | dict.fromkeys(VARIANTS, errors)
    assert (known["data"]["image_size"], known["seed"]) == (112, 0)


def _another_network_for_cpus() -> None:
    path = paths.onnx_path(catalog.DEPLOYED_ON_CPU)
    atomic_write(path, scaled(1.0, WEIGHTS[::-1].copy()).SerializeToString())


def _a_gate_fails() -> None:
    write_json(paths.SUMMARY, SUMMARY | {"gates": {"ssim": GATE | {"passed": False}}})


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        (_a_gate_fails, GateError),
        (lambda: paths.MODEL_CARD.unlink(), ArtifactError),
        (lambda: (paths.evaluation_dir("distilled_fp16") / "samples.csv").unlink(), ArtifactError),
        (lambda: paths.onnx_path(catalog.DEPLOYED).unlink(), ArtifactError),
        (lambda: paths.onnx_path(catalog.DEPLOYED_ON_CPU).unlink(), ArtifactError),
        (lambda: atomic_write(paths.onnx_path(catalog.DEPLOYED_ON_CPU), "no ONNX"), ArtifactError),
        (_another_network_for_cpus, ArtifactError),
        (lambda: (paths.DISTILLED / bundle.WEIGHTS).unlink(), ArtifactError),
    ],
    ids=[
        "a failed gate",
        "no card",
        "no errors by face",
        "no INT8 network",
        "none for CPUs",
        "a damaged one for CPUs",
        "flavors of two networks",
        "no FP16 network",
    ],
)
def test_nothing_changes_unless_all_is_there(finished: Path, spoil: Callable[[], None], error: type[Exception]) -> None:
    spoil()
    with pytest.raises(error):
        ship(finished)
    assert [path.name for path in finished.iterdir()] == ["leanface_int8.onnx"]
    assert (finished / "leanface_int8.onnx").read_text() == "the one before"
