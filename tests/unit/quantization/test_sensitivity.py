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
from leanface.tasks.face.task import FaceTask

SHAPE_HEADS = {"final_layers.0", "final_layers.1"}
"""Identity and expression."""

ANGLES_HEAD = "final_layers.3"


def rounded(values: Tensor, largest: Tensor) -> Tensor:
    """To the 255 levels from -largest to largest."""
    step = largest / 127
    return (values / step).round().clamp(-127, 127) * step


def test_it_is_the_error_of_one_layer_rounded_to_integers(
    small_network: FaceReconstructionNet, images: Tensor, model: MorphableModel
) -> None:
    found = quantization_sensitivity(small_network, images, FaceTask(model))
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


def test_every_layer_is_measured_and_the_network_stays_as_it_was(
    small_network: FaceReconstructionNet, images: Tensor, model: MorphableModel
) -> None:
    before = {name: tensor.clone() for name, tensor in small_network.state_dict().items()}
    found = quantization_sensitivity(small_network, images, FaceTask(model))
    assert set(found) == set(widths_of(small_network))
    state = small_network.state_dict()
    assert list(state) == list(before)
    assert all(torch.equal(tensor, before[name]) for name, tensor in state.items())


def test_a_head_only_moves_what_it_reads(
    small_network: FaceReconstructionNet, images: Tensor, model: MorphableModel
) -> None:
    found = quantization_sensitivity(small_network, images, FaceTask(model))
    for name, deviation in found.items():
        moves_vertices = name.startswith("backbone.") or name in SHAPE_HEADS
        assert (deviation["vertex_mm"] > 0) == moves_vertices, name
    assert found[ANGLES_HEAD]["ssim"] < 1
