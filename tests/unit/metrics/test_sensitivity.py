"""Deviations: nothing from nothing, and what the whole changed network would show."""

from collections.abc import Generator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from leanface.face.errors import geometry_errors
from leanface.face.morphable_model import MorphableModel
from leanface.face.render import Renderer
from leanface.metrics.sensitivity import Change, deviations
from leanface.networks.resnet import FaceReconstructionNet
from leanface.networks.widths import widths_of
from leanface.tasks.face.fidelity import render_similarity
from leanface.tasks.face.task import FaceTask

DEPTHS = ["backbone.conv1", "backbone.layer1.0.downsample.0", "backbone.layer3.5.conv2", "final_layers.0"]


def deviation_from(model: MorphableModel, images: Tensor) -> Any:
    return partial(FaceTask(model).deviation_from, image_size=images.shape[-1])


@contextmanager
def halved(network: FaceReconstructionNet, conv: str) -> Generator[None]:
    weight = network.get_parameter(f"{conv}.weight").data
    before = weight.clone()
    weight[::2] = 0.0
    yield
    weight.copy_(before)


def test_what_changes_nothing_costs_nothing(
    small_network: FaceReconstructionNet, images: Tensor, model: MorphableModel
) -> None:
    changes = {name: Change(name, nullcontext) for name in list(widths_of(small_network))[::8]}
    found = deviations(small_network, images, changes, deviation_from(model, images))
    assert list(found) == list(changes)
    assert all(deviation == {"vertex_mm": 0.0, "ssim": 1.0} for deviation in found.values())


def test_it_is_what_the_whole_changed_network_shows(
    small_network: FaceReconstructionNet, images: Tensor, model: MorphableModel
) -> None:
    changes = {name: Change(name, partial(halved, small_network, name)) for name in reversed(DEPTHS)}
    found = deviations(small_network, images, changes, deviation_from(model, images))
    assert list(found) == list(changes)
    renderer = Renderer(model, images.shape[-1])
    with torch.no_grad():
        original = small_network(images)
        for name, deviation in found.items():
            with halved(small_network, name):
                changed = small_network(images)
            expected_mm = float(geometry_errors(model, changed, original)["vertex_mm"].mean())
            assert expected_mm > 0
            assert deviation["vertex_mm"] == pytest.approx(expected_mm, rel=1e-3)
            expected_ssim = render_similarity(renderer, changed, original)["ssim_face"].mean()
            assert deviation["ssim"] == pytest.approx(expected_ssim, abs=1e-4)


def test_a_face_out_of_sight_still_has_a_likeness(
    small_network: FaceReconstructionNet, images: Tensor, model: MorphableModel
) -> None:
    with torch.no_grad():
        small_network.final_layers[5].bias.fill_(1e3)  # far to the side
    change = Change("final_layers.0", partial(halved, small_network, "final_layers.0"))
    found = deviations(small_network, images, {"moved": change}, deviation_from(model, images))["moved"]
    assert found["vertex_mm"] > 0
    assert found["ssim"] == 1.0
