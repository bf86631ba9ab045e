"""Sensitivity to pruning: it foretells what removing the channels does."""

import pytest
import torch
from torch import Tensor

from leanface.face.errors import geometry_errors
from leanface.face.morphable_model import MorphableModel
from leanface.networks.resnet import FaceReconstructionNet
from leanface.networks.widths import widths_of
from leanface.pruning.cost import layer_costs
from leanface.pruning.groups import ChannelGraph
from leanface.pruning.importance import Magnitude
from leanface.pruning.prune import prune_channels
from leanface.pruning.sensitivity import pruning_sensitivity
from leanface.tasks.face.task import FaceTask

STEM, CHAIN, STREAM = "backbone.conv1", "backbone.layer2.1.conv2", "backbone.layer3.0.downsample.0"


def test_it_is_the_error_of_a_network_without_these_channels(
    small_network: FaceReconstructionNet, images: Tensor, model: MorphableModel
) -> None:
    found = pruning_sensitivity(small_network, images, FaceTask(model), (0.25, 0.5))
    for group in (STEM, CHAIN, STREAM):
        for ratio in (0.25, 0.5):
            pruned = prune_channels(small_network, {group: ratio}, Magnitude()).network
            with torch.no_grad():
                expected_mm = float(geometry_errors(model, pruned(images), small_network(images))["vertex_mm"].mean())
            assert expected_mm > 0
            assert found[group].errors[str(ratio)]["vertex_mm"] == pytest.approx(expected_mm, rel=1e-3)


def test_the_network_stays_as_it_was_and_no_channel_gone_is_no_error(
    small_network: FaceReconstructionNet, images: Tensor, model: MorphableModel
) -> None:
    before = {name: tensor.clone() for name, tensor in small_network.state_dict().items()}
    found = pruning_sensitivity(small_network, images, FaceTask(model), (1e-6, 0.9))
    for group in found.values():
        assert group.errors["1e-06"]["vertex_mm"] == 0
        assert group.errors["0.9"]["vertex_mm"] > 0
        assert group.errors["0.9"]["ssim"] < group.errors["1e-06"]["ssim"]
    assert all(torch.equal(tensor, before[name]) for name, tensor in small_network.state_dict().items())


def test_every_convolution_before_the_heads_is_in_one_group(
    small_network: FaceReconstructionNet, images: Tensor, model: MorphableModel
) -> None:
    found = pruning_sensitivity(small_network, images[:1], FaceTask(model), (0.5,))
    groups = ChannelGraph(small_network).groups()
    assert [group.convolutions for group in found.values()] == [group.convolutions for group in groups.values()]
    members = [conv for group in found.values() for conv in group.convolutions]
    assert sorted(members) == sorted(name for name in widths_of(small_network) if name.startswith("backbone."))
    costs = layer_costs(small_network, images.shape[-1])
    assert sum(group.macs for group in found.values()) == sum(costs[conv].macs for conv in members)
    assert sum(group.parameters for group in found.values()) == sum(costs[conv].parameters for conv in members)
