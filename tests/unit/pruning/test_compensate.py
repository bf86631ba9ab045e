import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from leanface.errors import ConfigError
from leanface.networks.resnet import FaceReconstructionNet
from leanface.pruning.compensate import _Moments, compensate
from leanface.pruning.groups import ChannelGraph
from leanface.pruning.importance import Magnitude
from leanface.pruning.prune import PruneResult, prune_channels
from tests.conftest import SmoothImages

RIDGE = 1e-3


@pytest.fixture
def pruned(small_network: FaceReconstructionNet) -> PruneResult:
    return pruned_by(small_network, 0.5)


def pruned_by(network: FaceReconstructionNet, ratio: float) -> PruneResult:
    return prune_channels(network, dict.fromkeys(ChannelGraph(network).groups(), ratio), Magnitude(), round_to=4)


def test_unpruned_network_stays_bitwise_the_same(
    smooth_images: SmoothImages, small_network: FaceReconstructionNet
) -> None:
    network, kept = pruned_by(small_network, 0.0)
    result, fits = compensate(network, small_network, kept, smooth_images(8, 5), RIDGE)
    images = smooth_images(4, 9)
    assert torch.equal(result(images), small_network(images))
    assert all(fit.error_before == fit.error_after == 0.0 for fit in fits)


def test_no_response_gets_worse_on_the_calibration_images(
    smooth_images: SmoothImages, small_network: FaceReconstructionNet, pruned: PruneResult
) -> None:
    _, fits = compensate(pruned.network, small_network, pruned.kept, smooth_images(32, 5), RIDGE)
    assert [fit.name for fit in fits if fit.error_after > fit.error_before * (1 + 1e-5)] == []
    assert len(fits) == len(pruned.kept)


def test_answers_come_closer_on_other_images(
    smooth_images: SmoothImages, small_network: FaceReconstructionNet, pruned: PruneResult
) -> None:
    result, _ = compensate(pruned.network, small_network, pruned.kept, smooth_images(64, 5), RIDGE)
    images = smooth_images(32, 9)
    with torch.no_grad():
        wanted = small_network(images)
        before, after = (distance(network(images), wanted) for network in (pruned.network, result))
    assert after < 0.5 * before


def distance(given: Tensor, wanted: Tensor) -> float:
    """Share of the variance over images that is not explained."""
    return float((given - wanted).square().sum() / (wanted - wanted.mean(0)).square().sum())


def test_arguments_are_left_alone(
    smooth_images: SmoothImages, small_network: FaceReconstructionNet, pruned: PruneResult
) -> None:
    before = copy.deepcopy((small_network.state_dict(), pruned.network.state_dict()))
    compensate(pruned.network, small_network, pruned.kept, smooth_images(8, 5), RIDGE)
    for states, network in zip(before, (small_network, pruned.network), strict=True):
        assert all(torch.equal(value, states[name]) for name, value in network.state_dict().items())


def test_a_twin_takes_over_from_the_channel_that_went(
    smooth_images: SmoothImages, small_network: FaceReconstructionNet
) -> None:
    # Two channels that always answer alike: without one of them, the next layer can be restored exactly.
    block = small_network.backbone.layer1[0]
    block.bn1.weight.data[0], block.bn1.bias.data[0] = 3.0, 1.0  # a strong pair
    block.conv1.weight.data[1] = block.conv1.weight.data[0]
    for tensor in (block.bn1.weight.data, block.bn1.bias.data, block.bn1.running_mean, block.bn1.running_var):
        tensor[1] = tensor[0]
    network = copy.deepcopy(small_network)
    small = network.backbone.layer1[0]
    width = block.conv1.out_channels
    left = [channel for channel in range(width) if channel != 1]
    small.conv1, small.bn1 = (
        nn.Conv2d(block.conv1.in_channels, width - 1, 1, bias=False),
        nn.BatchNorm2d(width - 1),
    )
    small.conv1.weight.data = block.conv1.weight.data[left]
    small.bn1.load_state_dict(
        {name: value[left] if value.ndim else value for name, value in block.bn1.state_dict().items()}
    )
    small.conv2 = nn.Conv2d(width - 1, width, 3, padding=1, bias=False)
    small.conv2.weight.data = block.conv2.weight.data[:, left]
    kept = pruned_by(small_network, 0.0).kept | {"backbone.layer1.0.conv1": left}
    _, fits = compensate(network.eval(), small_network, kept, smooth_images(16, 5), 1e-4)
    fit = next(fit for fit in fits if fit.name == "backbone.layer1.0.conv2")
    assert fit.error_before > 1e-2
    assert fit.error_after < 1e-3 * fit.error_before


def test_some_positions_tell_nearly_as_much_as_all(
    smooth_images: SmoothImages, small_network: FaceReconstructionNet, pruned: PruneResult
) -> None:
    @torch.no_grad()
    def error(images: int, share: float) -> float:
        given = compensate(pruned.network, small_network, pruned.kept, smooth_images(images, 5), RIDGE, share)[0]
        return float((given(unseen) - small_network(unseen)).square().mean())

    unseen = smooth_images(32, 6)
    with torch.no_grad():
        before = float((pruned.network(unseen) - small_network(unseen)).square().mean())
    some, every = error(64, 0.25), error(64, 1.0)
    assert some != every
    assert some < 2 * every
    assert some < before / 4


def test_ridge_that_rounding_hides_is_refused(
    smooth_images: SmoothImages, small_network: FaceReconstructionNet, pruned: PruneResult
) -> None:
    # With fewer rows than weights, nothing but the ridge makes a layer's weights unique.
    with pytest.raises(ConfigError, match="at least 1e-4"):
        compensate(pruned.network, small_network, pruned.kept, smooth_images(2, 5), 1e-12)


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(1, 1, 0), (1, 2, 0), (3, 1, 1), (3, 2, 1), (7, 2, 3)])
def test_ridge_regression_solves_the_normal_equations(kernel: int, stride: int, padding: int) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(4, 5, kernel, stride, padding, bias=False)
    x = 3 + torch.randn(12, 4, 10, 10)
    with torch.no_grad():
        response = conv(x)
        residual = torch.randn_like(response)
        moments = _Moments(conv, 1.0)
        for inputs, target in zip(x.split(5), (response + residual).split(5), strict=True):
            moments.add(inputs, target)
        change, intercept, before, after = moments.solve(ridge=0.1)

    rows = F.unfold(x, kernel, padding=padding, stride=stride).transpose(1, 2).flatten(0, 1).double().numpy()
    wanted = residual.flatten(2).transpose(1, 2).flatten(0, 1).double().numpy()
    centered = rows - rows.mean(0)
    strength = 0.1 * (centered**2).mean()
    normal = centered.T @ centered / len(rows) + strength * np.eye(rows.shape[1])
    solution = np.linalg.solve(normal, centered.T @ (wanted - wanted.mean(0)) / len(rows))
    offset = wanted.mean(0) - rows.mean(0) @ solution
    np.testing.assert_allclose(change.flatten(1).T.numpy(), solution, atol=1e-5)
    np.testing.assert_allclose(intercept.numpy(), offset, atol=1e-4)
    variance = float((response + residual).double().var(dim=(0, 2, 3), unbiased=False).mean())
    assert before == pytest.approx((wanted**2).mean() / variance, rel=1e-4)
    assert after == pytest.approx(((wanted - rows @ solution - offset) ** 2).mean() / variance, rel=1e-4)
