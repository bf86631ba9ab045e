"""Sensitivity to INT8: one layer at a time, and only that layer."""

import copy

import pytest
import torch
from torch import Tensor, nn

from leanface.face.errors import geometry_errors
from leanface.face.morphable_model import MorphableModel
from leanface.networks.quantized import Quantizer, quantizers_of
from leanface.networks.resnet import FaceReconstructionNet
from leanface.networks.widths import widths_of
from leanface.quantization.fake_quantize import fake_quantize
from leanface.quantization.sensitivity import quantization_sensitivity
from leanface.task import Deviation
from leanface.tasks.face.task import FaceTask
from tests.conftest import smooth_images

SHAPE_HEADS = {"final_layers.0", "final_layers.1"}
"""Identity and expression."""

ANGLES_HEAD = "final_layers.3"

Found = dict[str, Deviation]


@pytest.fixture(scope="module")
def images() -> Tensor:
    return smooth_images(2, seed=7)


@pytest.fixture(scope="module")
def found(shared_network: FaceReconstructionNet, images: Tensor, model: MorphableModel) -> Found:
    network = copy.deepcopy(shared_network)
    sensitivity = quantization_sensitivity(network, images, FaceTask(model))
    before, after = shared_network.state_dict(), network.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(tensor, before[name]) for name, tensor in after.items()), "the network stays as it was"
    return sensitivity


def rounded(values: Tensor, largest: Tensor) -> Tensor:
    """To the 255 levels from -largest to largest."""
    step = largest / 127
    return (values / step).round().clamp(-127, 127) * step


def test_it_is_the_error_of_one_layer_rounded_to_integers(
    found: Found, small_network: FaceReconstructionNet, images: Tensor, model: MorphableModel
) -> None:
    ranges = dict(quantizers_of(fake_quantize(copy.deepcopy(small_network), images, Quantizer(residual=False))))
    with torch.no_grad():
        original = small_network(images)
        for name in ("backbone.conv1", "backbone.layer2.1.conv2", "final_layers.0"):
            changed = copy.deepcopy(small_network)
            conv = changed.get_submodule(name)
            assert isinstance(conv, nn.Conv2d)
            conv.weight.copy_(rounded(conv.weight, conv.weight.abs().amax(dim=(1, 2, 3), keepdim=True)))
            largest = ranges[f"{name}.input_quantizer"].amax
            conv.register_forward_pre_hook(lambda _, inputs, most=largest: (rounded(inputs[0], most),))
            expected_mm = float(geometry_errors(model, changed(images), original)["vertex_mm"].mean())
            assert expected_mm > 0
            assert found[name]["vertex_mm"] == pytest.approx(expected_mm, rel=0.02)


def test_every_layer_is_measured(found: Found, shared_network: FaceReconstructionNet) -> None:
    assert set(found) == set(widths_of(shared_network))


def test_a_head_only_moves_what_it_reads(found: Found) -> None:
    for name, deviation in found.items():
        moves_vertices = name.startswith("backbone.") or name in SHAPE_HEADS
        assert (deviation["vertex_mm"] > 0) == moves_vertices, name
    assert found[ANGLES_HEAD]["ssim"] < 1
