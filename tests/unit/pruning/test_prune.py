import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from leanface.bundle import load_network, new_spec, save_bundle
from leanface.errors import ConfigError
from leanface.networks.resnet import FaceReconstructionNet, batch_norm_of
from leanface.networks.widths import widths_of
from leanface.pruning.cost import macs_and_parameters
from leanface.pruning.groups import ChannelGraph
from leanface.pruning.importance import Importance, Magnitude, Random
from leanface.pruning.prune import PruneResult, prune_channels
from tests.conftest import SmoothImages


def prune(
    network: FaceReconstructionNet, ratio: float, importance: Importance | None = None, round_to: int = 4, seed: int = 0
) -> PruneResult:
    ratios = dict.fromkeys(ChannelGraph(network).groups(), ratio)
    return prune_channels(network, ratios, importance or Magnitude(), round_to=round_to, seed=seed)


def test_pruning_nothing_changes_nothing(smooth_images: SmoothImages, small_network: FaceReconstructionNet) -> None:
    result = prune(small_network, 0.0)
    images = smooth_images(2, 9)
    assert torch.equal(result.network(images), small_network(images))
    assert result.kept == {name: list(range(outputs)) for name, (_, outputs) in widths_of(small_network).items()}


@pytest.mark.parametrize("importance", [Magnitude(), Random()])
def test_record_is_exact(small_network: FaceReconstructionNet, importance: Importance) -> None:
    # Running means play no part in the choice, so that they can carry each channel's index through it.
    for module in small_network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean = torch.arange(module.num_features, dtype=torch.float32)
    network, kept = prune(small_network, 0.5, importance, seed=3)
    for name, (_, outputs) in widths_of(network).items():
        norm = batch_norm_of(name)
        if norm is None:
            assert kept[name] == list(range(outputs))
        else:
            assert network.get_submodule(norm).running_mean.tolist() == kept[name]


def test_weights_are_the_kept_rows(small_network: FaceReconstructionNet) -> None:
    network, kept = prune(small_network, 0.5)
    inputs, outputs = kept["backbone.layer2.1.conv1"], kept["backbone.layer2.1.conv2"]
    whole = small_network.get_submodule("backbone.layer2.1.conv2").weight
    assert torch.equal(network.get_submodule("backbone.layer2.1.conv2").weight, whole[outputs][:, inputs])


def test_convolutions_that_are_added_keep_the_same_channels(small_network: FaceReconstructionNet) -> None:
    kept = prune(small_network, 0.5).kept
    stream = [value for name, value in kept.items() if name.startswith("backbone.layer3.") and "conv3" in name]
    assert all(value == kept["backbone.layer3.0.downsample.0"] for value in stream)


def test_widths_are_multiples_and_costs_fall(small_network: FaceReconstructionNet) -> None:
    network = prune(small_network, 0.4, round_to=8).network
    assert all(outputs % 8 == 0 for name, (_, outputs) in widths_of(network).items() if "final" not in name)
    assert all(
        few < many
        for few, many in zip(macs_and_parameters(network, 64), macs_and_parameters(small_network, 64), strict=True)
    )


def test_original_is_left_alone(small_network: FaceReconstructionNet) -> None:
    before = copy.deepcopy(small_network.state_dict())
    prune(small_network, 0.5)
    after = small_network.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert all(parameter.grad is None for parameter in small_network.parameters())


def test_rebuilds_from_its_widths(
    smooth_images: SmoothImages, small_network: FaceReconstructionNet, tmp_path: Path
) -> None:
    network, kept = prune(small_network, 0.5)
    save_bundle(network, new_spec(network, 64, kept_channels=kept), tmp_path / "pruned")
    loaded, spec = load_network(tmp_path / "pruned")
    images = smooth_images(2, 9)
    assert torch.equal(loaded(images), network(images))
    assert spec.kept_channels == kept


def test_result_can_be_trained(smooth_images: SmoothImages, small_network: FaceReconstructionNet) -> None:
    network = prune(small_network, 0.5).network
    assert not any(module.training for module in network.modules())
    assert all(parameter.grad is None for parameter in network.parameters())
    network.train()
    network(smooth_images(4, 9)).square().mean().backward()
    assert all(
        parameter.grad is not None and parameter.grad.shape == parameter.shape for parameter in network.parameters()
    )


def test_chance_follows_the_seed(small_network: FaceReconstructionNet) -> None:
    state = torch.random.get_rng_state()
    first, again, other = (prune(small_network, 0.5, Random(), seed=seed).kept for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert torch.equal(torch.random.get_rng_state(), state)


def test_ratio_that_would_empty_a_layer_is_refused(small_network: FaceReconstructionNet) -> None:
    with pytest.raises(ConfigError, match=r"at most 0\.5"):
        prune(small_network, 0.6, round_to=8)
    assert prune(small_network, 0.5, round_to=8).kept["backbone.conv1"]
