import torch

from leanface.networks.resnet import FaceReconstructionNet
from leanface.networks.widths import widths_of
from leanface.pruning.groups import ChannelGraph
from leanface.pruning.importance import Magnitude
from leanface.pruning.prune import prune_channels


def test_every_convolution_but_the_heads_belongs_to_one_group(small_network: FaceReconstructionNet) -> None:
    members = [name for group in ChannelGraph(small_network).groups().values() for name in group.convolutions]
    assert sorted(members) == sorted(name for name in widths_of(small_network) if name.startswith("backbone."))


def test_groups_are_named_after_their_first_convolution(small_network: FaceReconstructionNet) -> None:
    groups = ChannelGraph(small_network).groups()
    assert all(name == group.convolutions[0] for name, group in groups.items())
    assert list(groups)[:2] == ["backbone.conv1", "backbone.layer1.0.downsample.0"]


def test_residual_streams_couple_what_is_added(small_network: FaceReconstructionNet) -> None:
    groups = ChannelGraph(small_network).groups()
    streams = {name: group for name, group in groups.items() if len(group.convolutions) > 1}
    assert {name: len(group.convolutions) for name, group in streams.items()} == {
        f"backbone.layer{stage}.0.downsample.0": depth + 1 for stage, depth in enumerate((3, 4, 6, 3), start=1)
    }
    inside = [name for name, group in groups.items() if group.inside_block]
    assert len(inside) == 2 * 16
    assert not set(inside) & (set(streams) | {"backbone.conv1"})


def test_every_convolution_but_the_first_reads_one_group(small_network: FaceReconstructionNet) -> None:
    readers = [name for group in ChannelGraph(small_network).groups().values() for name in group.consumers]
    assert sorted(readers) == sorted(set(widths_of(small_network)) - {"backbone.conv1"})


def test_pruning_one_group_changes_its_widths_alone(small_network: FaceReconstructionNet) -> None:
    group = ChannelGraph(small_network).groups()["backbone.layer3.0.downsample.0"]
    before = widths_of(small_network)
    after = widths_of(prune_channels(small_network, {group.convolutions[0]: 0.25}, Magnitude()).network)
    left = group.channels * 3 // 4
    for name, (inputs, outputs) in before.items():
        expected = left if name in group.consumers else inputs, left if name in group.convolutions else outputs
        assert after[name] == expected


def test_tracing_leaves_no_trace(small_network: FaceReconstructionNet) -> None:
    before = {name: tensor.clone() for name, tensor in small_network.state_dict().items()}
    ChannelGraph(small_network).groups()
    assert all(torch.equal(tensor, before[name]) for name, tensor in small_network.state_dict().items())
    assert all(parameter.grad is None for parameter in small_network.parameters())
