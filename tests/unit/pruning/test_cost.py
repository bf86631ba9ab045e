import torch

from leanface.networks.resnet import FaceReconstructionNet, build_network
from leanface.networks.widths import widths_of
from leanface.pruning.cost import layer_costs, layer_latencies_ms, macs_and_parameters
from tests.conftest import SmoothImages


def test_full_network_costs_what_the_literature_says() -> None:
    macs, parameters = macs_and_parameters(build_network().eval(), 224)
    # torchvision's ResNet-50: 4.089 G multiply-accumulates and 25.557 M parameters with its 1000-class layer.
    assert macs == 4_089_184_256 - 2048 * 1000 + 2048 * 257
    assert parameters == 25_557_032 - 2049 * 1000 + 2049 * 257


def test_cost_of_one_layer(small_network: FaceReconstructionNet) -> None:
    costs = layer_costs(small_network, 64)
    inputs, outputs = widths_of(small_network)["backbone.layer2.0.conv2"]
    cost = costs["backbone.layer2.0.conv2"]
    assert cost.parameters == 9 * inputs * outputs
    assert cost.macs == cost.parameters * 8 * 8
    assert cost.activation_bytes == 4 * outputs * 8 * 8


def test_every_convolution_is_counted_once_and_hooks_are_gone(
    smooth_images: SmoothImages, small_network: FaceReconstructionNet
) -> None:
    costs = layer_costs(small_network, 64)
    latencies_ms, whole_ms = layer_latencies_ms(small_network, 64, warmup=1, runs=3)
    assert list(costs) == list(latencies_ms)
    assert set(costs) == set(widths_of(small_network))
    assert all(latency_ms > 0 for latency_ms in latencies_ms.values())
    assert whole_ms > max(latencies_ms.values())
    costs.clear()
    with torch.no_grad():
        small_network(smooth_images(1, 0))
    assert costs == {}
