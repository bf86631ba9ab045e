"""What a release takes from the working tree."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from leanface import bundle, catalog, paths
from leanface.errors import ArtifactError, GateError
from leanface.files import atomic_write, write_json
from leanface.networks.resnet import FaceReconstructionNet
from leanface.stages import configure
from tools.release.ship import ship

GATE = {"limit": 0.982, "value": 0.99, "interval": None, "passed": True, "bound": "min"}
VARIANTS = {
    "quantized_int8": {"runtime": "openvino", "intervals": {}, "truth_vertex_mm": 1.2},
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
    atomic_write(paths.onnx_path(catalog.DEPLOYED), "the new network")
    bundle.save_bundle(small_network, bundle.new_spec(small_network, 64), paths.DISTILLED)
    assets = project / "assets"
    atomic_write(assets / paths.PACKAGED_MODEL.name, "the one before")
    return assets


def test_both_networks_their_card_and_their_scores_are_shipped(
    finished: Path, small_network: FaceReconstructionNet
) -> None:
    ship(finished)
    assert (finished / "leanface_int8.onnx").read_text() == "the new network"
    assert (finished / "leanface_int8.md").read_text() == "# Model card\n"
    shipped = bundle.load_network(finished / "leanface_fp16")[0].state_dict()
    assert shipped["backbone.conv1.weight"].equal(small_network.state_dict()["backbone.conv1.weight"].half().float())
    known = json.loads((finished / "leanface_int8.json").read_text())
    assert known["scores"] == VARIANTS
    errors = {"truth_vertex_mm": 1.5, "teacher_vertex_mm": 0.5}  # without the 101st face
    assert known["first"] == {"count": 100} | dict.fromkeys(VARIANTS, errors)
    assert (known["data"]["image_size"], known["seed"]) == (112, 0)


def _a_gate_fails() -> None:
    write_json(paths.SUMMARY, SUMMARY | {"gates": {"ssim": GATE | {"passed": False}}})


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        (_a_gate_fails, GateError),
        (lambda: paths.MODEL_CARD.unlink(), ArtifactError),
        (lambda: (paths.evaluation_dir("distilled_fp16") / "samples.csv").unlink(), ArtifactError),
        (lambda: paths.onnx_path(catalog.DEPLOYED).unlink(), ArtifactError),
        (lambda: (paths.DISTILLED / bundle.WEIGHTS).unlink(), ArtifactError),
    ],
    ids=["a failed gate", "no card", "no errors by face", "no INT8 network", "no FP16 network"],
)
def test_nothing_changes_unless_all_is_there(finished: Path, spoil: Callable[[], None], error: type[Exception]) -> None:
    spoil()
    with pytest.raises(error):
        ship(finished)
    assert [path.name for path in finished.iterdir()] == ["leanface_int8.onnx"]
    assert (finished / "leanface_int8.onnx").read_text() == "the one before"
