"""Every layer's latency is measured."""

from leanface.networks.resnet import FaceReconstructionNet
from leanface.pruning.groups import ChannelGraph
from leanface.pruning.plan import latency_share


def test_fewer_channels_take_a_share_of_the_time(small_network: FaceReconstructionNet) -> None:
    groups = ChannelGraph(small_network).groups()
    assert latency_share(small_network, groups, 64)(dict.fromkeys(groups, 4)) > 0
