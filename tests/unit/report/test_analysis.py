"""The pictures of stage analyze."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from leanface.catalog import FACE
from leanface.networks.resnet import FaceReconstructionNet
from leanface.networks.widths import widths_of
from leanface.pruning.cost import layer_costs
from leanface.pruning.groups import ChannelGraph
from leanface.report.analysis import COSTS, headline, save_layers, save_sensitivity
from leanface.tasks.face.layers import NAMING

RATIOS = ("0.25", "0.5")


FIRST = 6
"""How many groups and layers are drawn: each takes its time."""


@pytest.fixture
def sensitivity(small_network: FaceReconstructionNet) -> dict[str, Any]:
    """The beginning and the end of a network that nothing can harm."""
    groups = dict(list(ChannelGraph(small_network).groups().items())[:FIRST])
    layers = list(widths_of(small_network))
    return {
        "groups": {
            name: {
                "convolutions": group.convolutions,
                "errors": {ratio: {"vertex_mm": 0.0, "ssim": 1.0} for ratio in RATIOS},
            }
            for name, group in groups.items()
        },
        "quantize": {name: {"vertex_mm": 0.0, "ssim": 1.0} for name in (*layers[:FIRST], *layers[-FIRST:])},
    }


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


def test_the_headline_is_the_worst_of_all(sensitivity: dict[str, Any]) -> None:
    assert set(headline(sensitivity, FACE.damages).values()) == {0.0, 1.0}
    sensitivity["groups"]["backbone.conv1"]["errors"]["0.5"] = {"vertex_mm": 3.0, "ssim": 0.4}
    sensitivity["quantize"]["final_layers.3"] = {"vertex_mm": 0.0, "ssim": 0.9}
    assert headline(sensitivity, FACE.damages) == {
        "pruned_worst_mm": 3.0,
        "pruned_worst_ssim": 0.4,
        "int8_worst_mm": 0.0,
        "int8_worst_ssim": 0.9,
    }


def test_damage_shows_and_the_same_damage_gives_the_same_file(sensitivity: dict[str, Any], tmp_path: Path) -> None:
    harmless, harmed, again = (tmp_path / name for name in ("harmless.png", "harmed.png", "again.png"))
    save_sensitivity(sensitivity, NAMING, FACE.damages, harmless)
    sensitivity["quantize"]["backbone.conv1"] = {"vertex_mm": 0.1, "ssim": 0.9}
    sensitivity["groups"]["backbone.conv1"]["errors"]["0.5"] = {"vertex_mm": 1.0, "ssim": 0.5}
    save_sensitivity(sensitivity, NAMING, FACE.damages, harmed)
    save_sensitivity(sensitivity, NAMING, FACE.damages, again)
    assert (pixels(harmless) != pixels(harmed)).any()
    assert harmed.read_bytes() == again.read_bytes()


def test_costs_show(small_network: FaceReconstructionNet, tmp_path: Path) -> None:
    costs = list(layer_costs(small_network, 64).items())[:FIRST]
    layers = {name: {**cost._asdict(), "latency_ms": 1.0} for name, cost in costs}
    assert set(COSTS) <= set(layers["backbone.conv1"])
    save_layers(layers, NAMING, tmp_path / "layers.png")
    layers["backbone.conv1"]["latency_ms"] = 5.0
    save_layers(layers, NAMING, tmp_path / "slower.png")
    assert (pixels(tmp_path / "layers.png") != pixels(tmp_path / "slower.png")).any()
