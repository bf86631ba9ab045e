from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from leanface import bundle
from leanface.config import Prune
from leanface.errors import ConfigError
from leanface.face.morphable_model import MorphableModel
from leanface.networks.resnet import FaceReconstructionNet, batch_norm_of, build_network
from leanface.networks.widths import widths_of
from leanface.pruning.cost import macs_and_parameters
from leanface.pruning.groups import ChannelGraph
from leanface.pruning.plan import Architecture, macs_share
from leanface.pruning.prune import Pruned, prune
from leanface.tasks.face.task import FaceTask
from tests.conftest import SmoothImages

Pruner = Callable[..., Pruned]

SHIPPED = Path(__file__).parents[3] / "conf/prune/channels.yaml"


def settings(**changes: Any) -> Prune:
    small = {"importance": {"name": "magnitude", "options": {}}, "compensate": False, "round_to": 4}
    return Prune.model_validate(yaml.safe_load(SHIPPED.read_text()) | small | changes)


@pytest.fixture
def pruned(model: MorphableModel, smooth_images: SmoothImages, small_network: FaceReconstructionNet) -> Pruner:
    """Prunes the small network with changes to the shipped settings."""

    def pruned_with(**changes: Any) -> Pruned:
        return prune(small_network, settings(**changes), smooth_images(8, 5), FaceTask(model), seed=0)

    return pruned_with


def share(network: nn.Module, original: nn.Module) -> float:
    return macs_and_parameters(network, 64)[0] / macs_and_parameters(original, 64)[0]


@pytest.mark.parametrize("changes", [{}, {"compensate": True}])
def test_ratio_zero_changes_nothing(
    pruned: Pruner, smooth_images: SmoothImages, small_network: FaceReconstructionNet, changes: dict[str, Any]
) -> None:
    images = smooth_images(2, 9)
    assert torch.equal(pruned(ratio=0.0, **changes).network(images), small_network(images))


def test_target_is_met_and_not_by_far(pruned: Pruner, small_network: FaceReconstructionNet) -> None:
    result = pruned(target={"macs": 0.6}, round_to=1)
    assert 0.54 <= share(result.network, small_network) <= 0.6


def test_target_out_of_reach_names_the_range(pruned: Pruner) -> None:
    with pytest.raises(ConfigError, match=r"macs 0\.01 is out of reach: between 0\.\d+ and 1 of"):
        pruned(target={"macs": 0.01}, round_to=8)


def test_the_record_says_which_channels_were_kept(pruned: Pruner, small_network: FaceReconstructionNet) -> None:
    # Running means play no part in the choice, so that they can carry each channel's index through it.
    for module in small_network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean = torch.arange(module.num_features, dtype=torch.float32)
    result = pruned()
    for name in widths_of(result.network):
        norm = batch_norm_of(name)
        if norm is not None:
            assert result.network.get_buffer(f"{norm}.running_mean").tolist() == result.kept[name]


def test_the_re_fit_ends_closer_to_the_teacher(
    pruned: Pruner, smooth_images: SmoothImages, small_network: FaceReconstructionNet
) -> None:
    result = pruned(compensate=True)
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
    smaller = pruned(ratio=0.4).network
    groups = ChannelGraph(small_network).groups()
    counts = {name: widths_of(smaller)[name][1] for name in groups}
    assert macs_share(small_network, groups, 64)(counts) == pytest.approx(share(smaller, small_network), rel=1e-9)
    assert macs_share(small_network, groups, 64)({}) == 1.0


@pytest.mark.parametrize("wrong", [{"target": {}}, {"target": {"macs": 1.5}}, {"target": {"latency": 0.5}}])
def test_other_targets_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"target\.(macs|latency)"):
        settings(**wrong)


DROPPED = ("backbone.layer1.1", "backbone.layer3.4", "backbone.layer3.5")


@pytest.fixture
def shallower(model: MorphableModel, smooth_images: SmoothImages, small_network: FaceReconstructionNet) -> Pruned:
    counts = {name: group.channels // 2 for name, group in ChannelGraph(small_network).groups().items()}
    architecture = Architecture(DROPPED, counts)
    return prune(
        small_network,
        settings(compensate=True),
        smooth_images(32, 5),
        FaceTask(model),
        seed=0,
        architecture=architecture,
    )


def test_an_architecture_has_fewer_layers_and_channels(shallower: Pruned, small_network: FaceReconstructionNet) -> None:
    before, after = widths_of(small_network), widths_of(shallower.network)
    assert set(before) - set(after) == {f"{block}.conv{index}" for block in DROPPED for index in (1, 2, 3)}
    assert set(shallower.kept) == set(after)
    assert all(2 * after[name][1] == before[name][1] for name in after if not name.startswith("final_layers"))


def test_what_follows_a_dropped_block_makes_up_for_it(
    shallower: Pruned, smooth_images: SmoothImages, small_network: FaceReconstructionNet
) -> None:
    images = smooth_images(16, 9)
    with torch.no_grad():
        wanted = small_network(images)
        before, after = (
            float((shallower.states[state](images) - wanted).square().mean()) for state in ("pruned", "compensated")
        )
    assert after < 0.5 * before
    assert {fit.name for fit in shallower.fits} == set(widths_of(shallower.network))


def test_a_shallower_network_is_rebuilt_from_its_bundle(
    shallower: Pruned, smooth_images: SmoothImages, tmp_path: Path
) -> None:
    spec = bundle.new_spec(shallower.network, 64, kept_channels=shallower.kept)
    bundle.save_bundle(shallower.network, spec, tmp_path / "student")
    images = smooth_images(2, 9)
    assert torch.equal(bundle.load_network(tmp_path / "student")[0](images), shallower.network(images))


def test_dropping_what_is_no_block_is_refused(small_network: FaceReconstructionNet) -> None:
    widths = widths_of(small_network)
    del widths["final_layers.2"]
    with pytest.raises(ValueError, match=r"differ at final_layers\.2"):
        build_network(widths)
