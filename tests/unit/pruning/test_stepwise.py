import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn

from leanface.config import Prune
from leanface.errors import ConfigError
from leanface.face.morphable_model import MorphableModel
from leanface.networks.resnet import FaceReconstructionNet, batch_norm_of, widths_of
from leanface.pruning.cost import macs_and_parameters
from leanface.pruning.cost_share import latency_share, macs_share
from leanface.pruning.groups import ChannelGraph, coupled_groups
from leanface.pruning.stepwise import Pruned, prune

SmoothImages = Callable[[int, int], Tensor]
Pruner = Callable[..., Pruned]

SHIPPED = Path(__file__).parents[3] / "conf/prune/channels.yaml"


def settings(**changes: Any) -> Prune:
    small = {"importance": {"name": "magnitude", "options": {}}, "compensate": False, "round_to": 4}
    return Prune.model_validate(yaml.safe_load(SHIPPED.read_text()) | small | changes)


@pytest.fixture
def pruned(model: MorphableModel, smooth_images: SmoothImages, small_network: FaceReconstructionNet) -> Pruner:
    """Prunes the small network with changes to the shipped settings."""

    def pruned_with(**changes: Any) -> Pruned:
        errors = changes.pop("errors", {})
        return prune(small_network, settings(**changes), smooth_images(8, 5), model, errors, seed=0)

    return pruned_with


def share(network: nn.Module, original: nn.Module) -> float:
    return macs_and_parameters(network, 64)[0] / macs_and_parameters(original, 64)[0]


@pytest.mark.parametrize("changes", [{}, {"steps": 2}, {"scope": "global"}, {"residual": False}, {"compensate": True}])
def test_ratio_zero_changes_nothing(
    pruned: Pruner, smooth_images: SmoothImages, small_network: FaceReconstructionNet, changes: dict[str, Any]
) -> None:
    images = smooth_images(2, 9)
    assert torch.equal(pruned(ratio=0.0, **changes).network(images), small_network(images))


def test_residual_streams_and_stem_may_be_kept(pruned: Pruner, small_network: FaceReconstructionNet) -> None:
    before, after = widths_of(small_network), widths_of(pruned(residual=False).network)
    inside = {name for name in before if name.endswith((".conv1", ".conv2")) and name != "backbone.conv1"}
    assert {name for name in before if before[name][1] != after[name][1]} == inside


@pytest.mark.parametrize("scope", ["local", "global", "isomorphic"])
@pytest.mark.parametrize("residual", [True, False])
def test_target_is_met_and_not_by_far(
    pruned: Pruner, small_network: FaceReconstructionNet, scope: str, residual: bool
) -> None:
    result = pruned(target={"macs": 0.6}, scope=scope, residual=residual, round_to=1)
    assert 0.54 <= share(result.network, small_network) <= 0.6


def test_target_out_of_reach_names_the_range(pruned: Pruner) -> None:
    with pytest.raises(ConfigError, match=r"macs 0\.05 is out of reach: between 0\.\d+ and 1 of"):
        pruned(target={"macs": 0.05}, residual=False)


def test_sensitivity_moves_channels_at_equal_macs(pruned: Pruner, small_network: FaceReconstructionNet) -> None:
    fragile = "backbone.layer3.1.conv2"
    groups = coupled_groups(small_network)
    errors = {name: {0.25: 0.1, 0.5: 0.3, 0.75: 0.8} for name in groups} | {fragile: {0.25: 9.0, 0.5: 9.0, 0.75: 9.0}}
    uniform = pruned(ratio=0.5).network
    result = pruned(ratio=0.5, allocation="sensitivity", errors=errors).network
    assert widths_of(result)[fragile][1] == widths_of(small_network)[fragile][1]
    assert 0.85 <= share(result, uniform) <= 1.0


def test_sensitivity_meets_a_target(pruned: Pruner, small_network: FaceReconstructionNet) -> None:
    errors = {name: {0.25: 0.1, 0.5: 0.3, 0.75: 0.8} for name in coupled_groups(small_network)}
    result = pruned(target={"macs": 0.4}, allocation="sensitivity", errors=errors, round_to=1)
    assert 0.36 <= share(result.network, small_network) <= 0.4
    with pytest.raises(ConfigError, match=r"macs 0\.01 is out of reach"):
        pruned(target={"macs": 0.01}, allocation="sensitivity", errors=errors)


def test_steps_lead_to_the_same_widths_and_an_exact_record(
    pruned: Pruner, small_network: FaceReconstructionNet
) -> None:
    # Running means play no part in the choice, so that they can carry each channel's index through it.
    for module in small_network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean = torch.arange(module.num_features, dtype=torch.float32)
    once, often = pruned(steps=1), pruned(steps=3)
    assert widths_of(once.network) == widths_of(often.network)
    for name in widths_of(once.network):
        norm = batch_norm_of(name)
        if norm is not None:
            assert often.network.get_buffer(f"{norm}.running_mean").tolist() == often.kept[name]


def test_every_step_ends_closer_to_the_original(
    pruned: Pruner, smooth_images: SmoothImages, small_network: FaceReconstructionNet
) -> None:
    result = pruned(steps=2, compensate=True)
    assert result.network is result.states["compensated"]
    with torch.no_grad():
        wanted = small_network(smooth_images(8, 5))
        before, after = (
            float((result.states[state](smooth_images(8, 5)) - wanted).square().mean())
            for state in ("pruned", "compensated")
        )
    assert after < before
    assert len(result.fits) == len(widths_of(small_network))


def test_computed_share_is_that_of_the_network(pruned: Pruner, small_network: FaceReconstructionNet) -> None:
    smaller = pruned(ratio=0.4, scope="global").network
    groups = ChannelGraph(small_network).groups()
    counts = {name: widths_of(smaller)[name][1] for name in groups}
    assert macs_share(small_network, groups, 64)(counts) == pytest.approx(share(smaller, small_network), rel=1e-9)
    assert macs_share(small_network, groups, 64)({}) == 1.0


def test_latency_is_measured(small_network: FaceReconstructionNet, caplog: pytest.LogCaptureFixture) -> None:
    groups = ChannelGraph(small_network).groups()
    with caplog.at_level(logging.WARNING):
        assert latency_share(small_network, groups, 64)(dict.fromkeys(groups, 4)) > 0


@pytest.mark.parametrize(
    "wrong",
    [{"target": {}}, {"target": {"macs": 0.5, "latency": 0.5}}, {"allocation": "sensitivity", "scope": "global"}],
)
def test_contradictions_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"name one of macs and latency|needs scope local"):
        settings(**wrong)
