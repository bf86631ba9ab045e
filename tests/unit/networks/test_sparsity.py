"""Zeros are where they were asked for, and stay there through training and quantisation."""

import copy

import pytest
import torch
from torch import nn

from leanface.networks.quantized import Quantizer
from leanface.networks.resnet import FaceReconstructionNet, widths_of
from leanface.networks.sparsity import keep_zeros, sparsify, zero_share
from leanface.quantization.fake_quantize import fake_quantize


def weights_of(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: network.get_submodule(name).get_parameter("weight").detach() for name in widths_of(network)}


def test_two_of_every_four_input_channels_are_zero_and_the_larger_ones_stay(small_network):
    dense, sparse = weights_of(small_network), weights_of(sparsify(small_network, "2of4"))
    seen = 0
    for name, weight in sparse.items():
        if name.startswith("final_layers.") or weight.shape[1] % 4:
            assert torch.equal(weight, dense[name]), name
            continue
        seen += 1
        fours, before = weight.unflatten(1, (-1, 4)), dense[name].unflatten(1, (-1, 4)).abs()
        assert ((fours != 0).sum(2) == 2).all(), name
        smallest_kept = before.masked_fill(fours == 0, torch.inf).amin(2)
        assert (before.masked_fill(fours != 0, 0).amax(2) <= smallest_kept).all(), name
    assert seen > 10


@pytest.mark.parametrize("share", [0.25, 0.9])
def test_a_share_is_zero_and_the_original_is_left_alone(small_network, share):
    before = copy.deepcopy(small_network.state_dict())
    sparse = sparsify(small_network, share)
    assert all(torch.equal(before[name], tensor) for name, tensor in small_network.state_dict().items())
    for name, weight in weights_of(sparse).items():
        expected = share if name.startswith("backbone.") else 0.0
        assert float((weight == 0).float().mean()) == pytest.approx(expected, abs=0.5 / weight.numel() + 1e-6), name
    assert 0 < zero_share(sparse) <= share + 1e-3


def train(network: nn.Module) -> None:
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2, weight_decay=0.1)
    for step in range(3):
        optimizer.zero_grad()
        network(torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(step))).square().sum().backward()
        optimizer.step()


@pytest.mark.parametrize("quantized", [False, True])
def test_zeros_stay_through_training(small_network: FaceReconstructionNet, quantized: bool):
    network: nn.Module = sparsify(small_network, "2of4")
    if quantized:
        network = fake_quantize(network, torch.rand(2, 3, 64, 64), Quantizer(residual=True))
    before = {name: weight.clone() for name, weight in weights_of(network).items()}
    keep_zeros(network)
    train(network)
    for name, weight in weights_of(network).items():
        zero = before[name] == 0
        assert (weight[zero] == 0).all(), name
        assert (weight[~zero] != before[name][~zero]).any(), name


def test_without_keeping_them_zeros_are_lost(small_network):
    network = sparsify(small_network, "2of4")
    before = zero_share(network)
    train(network)
    assert zero_share(network) < 0.6 * before  # not all: some channels are dead in so small a network
