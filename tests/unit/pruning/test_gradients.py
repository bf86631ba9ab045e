import copy

import pytest
import torch
from torch import Tensor, nn

from leanface.errors import ConfigError
from leanface.face.coefficients import LAYOUT
from leanface.face.morphable_model import MorphableModel
from leanface.networks.resnet import FaceReconstructionNet
from leanface.pruning.gradients import Calibration, observe_gradients
from leanface.pruning.groups import ChannelGraph, layers_with_outputs
from leanface.pruning.importance import HessianDiagonal, Taylor
from leanface.pruning.prune import Scorer, prune_channels
from leanface.synthesis.synthesis import sample_coefficients
from leanface.tasks.face.task import FaceTask
from tests.conftest import SmoothImages

STREAM = "backbone.layer2.0.downsample.0"


def test_weights_make_every_group_count_alike(model: MorphableModel) -> None:
    readings = 3 * sample_coefficients(model, 50, torch.Generator().manual_seed(0)) + 1
    unexplained = FaceTask(model).output_weights(readings) * (readings - readings.mean(0)).square().sum(0) / 49
    for part in LAYOUT.values():
        assert float(unexplained[part].sum()) == pytest.approx(1.0, rel=1e-4)


@pytest.mark.parametrize("name", ["backbone.conv1", "backbone.layer2.0.conv2", STREAM])
def test_taylor_score_is_the_squared_derivative_by_a_gate(
    model: MorphableModel, smooth_images: SmoothImages, small_network: FaceReconstructionNet, name: str
) -> None:
    calibration = Calibration(smooth_images(2, 5).double(), FaceTask(model))
    copies = [copy.deepcopy(small_network) for _ in range(2)]
    group, *others = (ChannelGraph(each).groups()[name].dependencies for each in (small_network, *copies))
    small_network.double()  # ReLU's kinks leave room for small steps only
    taylor, channel, step = Taylor(), 3, 1e-5
    losses: list[list[float]] = []
    for gate, gated, layers in zip((1 - step, 1 + step), copies, others, strict=True):
        for norm in layers_with_outputs(layers, nn.BatchNorm2d):
            norm.double()
            norm.weight.data[channel] *= gate
            norm.bias.data[channel] *= gate
        losses.append(projections(gated.double(), small_network, calibration))
    slopes = [(high - low) / (2 * step) for low, high in zip(*losses, strict=True)]
    observe_gradients(small_network, calibration, taylor.observe, seed=0)
    score = float(taylor(group)[channel])
    assert score == pytest.approx(sum(slope**2 for slope in slopes) / len(slopes), rel=1e-3)


def projections(network: nn.Module, original: nn.Module, calibration: Calibration) -> list[float]:
    """L of every image under seed 0, with the original's weights."""
    with torch.no_grad():
        scales = calibration.task.output_weights(original(calibration.images)).sqrt()
        answers = network(calibration.images)
    generator = torch.Generator().manual_seed(0)
    signs = [torch.randint(2, scales.shape, generator=generator) * 2.0 - 1.0 for _ in answers]
    return [float((answer * scales * sign).sum()) for answer, sign in zip(answers, signs, strict=True)]


def test_hessian_sees_every_image(
    model: MorphableModel, smooth_images: SmoothImages, small_network: FaceReconstructionNet
) -> None:
    """Its h is the mean of every image's squared gradient."""
    images, squares = smooth_images(3, 5), list[Tensor]()
    criterion, name = HessianDiagonal(), "backbone.layer2.0.conv2"
    conv = small_network.get_submodule(name)
    assert isinstance(conv, nn.Conv2d)

    def observe(network: nn.Module) -> None:
        criterion.observe(network)
        assert conv.weight.grad is not None
        squares.append(conv.weight.grad.square())

    observe_gradients(small_network, Calibration(images, FaceTask(model)), observe, seed=0)
    criterion(ChannelGraph(small_network).groups()[name].dependencies)
    assert len(squares) == 3
    torch.testing.assert_close(conv.weight.grad, torch.stack(squares).mean(0))


def test_curvature_predicts_the_cost_of_a_small_change(
    model: MorphableModel, smooth_images: SmoothImages, small_network: FaceReconstructionNet
) -> None:
    """The mean squared projection of a change is the change of the outputs, weighted and squared."""
    calibration = Calibration(smooth_images(8, 5), FaceTask(model))
    norm = small_network.get_submodule("backbone.layer4.2.bn3")
    assert isinstance(norm, nn.BatchNorm2d)
    with torch.no_grad():
        answers = small_network(calibration.images)
        weights = FaceTask(model).output_weights(answers)
        changed = copy.deepcopy(small_network)
        other = changed.get_submodule("backbone.layer4.2.bn3")
        assert isinstance(other, nn.BatchNorm2d)
        other.bias += 1e-2
        cost = float(((changed(calibration.images) - answers).square() * weights).sum(1).mean())
    seen: list[float] = []

    def observe(_: nn.Module) -> None:
        assert norm.bias.grad is not None
        seen.append(float(norm.bias.grad.sum() * 1e-2) ** 2)

    for seed in range(8):
        observe_gradients(small_network, calibration, observe, seed)
    assert sum(seen) / len(seen) == pytest.approx(cost, rel=0.4)


def test_gradients_are_paid_for_by_those_who_look_at_them(
    model: MorphableModel, smooth_images: SmoothImages, small_network: FaceReconstructionNet
) -> None:
    with pytest.raises(ConfigError, match="Taylor looks at gradients"):
        prune_channels(small_network, {STREAM: 0.5}, Taylor())
    calibration = Calibration(smooth_images(2, 5), FaceTask(model))
    scorer = Scorer(small_network, Taylor(), 0, calibration)
    assert set(scorer.scores) == set(scorer.groups)
    assert all(parameter.grad is None for parameter in small_network.parameters())
