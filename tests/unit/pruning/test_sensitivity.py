"""Sensitivity to pruning: it foretells what removing the channels does."""

import copy

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
from leanface.pruning.sensitivity import GroupSensitivity, pruning_sensitivity
from leanface.tasks.face.task import FaceTask
from tests.conftest import smooth_images

STEM, CHAIN, STREAM = "backbone.conv1", "backbone.layer2.1.conv2", "backbone.layer3.0.downsample.0"

NOTHING, QUARTER, MOST = 1e-6, 0.25, 0.9

Found = dict[str, GroupSensitivity]


@pytest.fixture(scope="module")
def images() -> Tensor:
    return smooth_images(2, seed=7)


@pytest.fixture(scope="module")
def found(shared_network: FaceReconstructionNet, images: Tensor, model: MorphableModel) -> Found:
    network = copy.deepcopy(shared_network)
    sensitivity = pruning_sensitivity(network, images, FaceTask(model), (NOTHING, QUARTER, MOST))
    before, after = shared_network.state_dict(), network.state_dict()
    assert all(torch.equal(tensor, before[name]) for name, tensor in after.items()), "the network stays as it was"
    return sensitivity


def test_it_is_the_error_of_a_network_without_these_channels(
    found: Found, small_network: FaceReconstructionNet, images: Tensor, model: MorphableModel
) -> None:
    for group in (STEM, CHAIN, STREAM):
        pruned = prune_channels(small_network, {group: QUARTER}, Magnitude()).network
        with torch.no_grad():
            expected_mm = float(geometry_errors(model, pruned(images), small_network(images))["vertex_mm"].mean())
        assert expected_mm > 0
        assert found[group].errors[str(QUARTER)]["vertex_mm"] == pytest.approx(expected_mm, rel=1e-3)


def test_no_channel_gone_is_no_error(found: Found) -> None:
    for group in found.values():
        assert group.errors[str(NOTHING)]["vertex_mm"] == 0
        assert group.errors[str(MOST)]["vertex_mm"] > 0
        assert group.errors[str(MOST)]["ssim"] < group.errors[str(NOTHING)]["ssim"]


def test_every_convolution_before_the_heads_is_in_one_group(
    found: Found, small_network: FaceReconstructionNet, images: Tensor
) -> None:
    groups = ChannelGraph(small_network).groups()
    assert [group.convolutions for group in found.values()] == [group.convolutions for group in groups.values()]
    members = [conv for group in found.values() for conv in group.convolutions]
    assert sorted(members) == sorted(name for name in widths_of(small_network) if name.startswith("backbone."))
    costs = layer_costs(small_network, images.shape[-1])
    assert sum(group.macs for group in found.values()) == sum(costs[conv].macs for conv in members)
    assert sum(group.parameters for group in found.values()) == sum(costs[conv].parameters for conv in members)
