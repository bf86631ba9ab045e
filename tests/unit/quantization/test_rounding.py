"""Rounding with error feedback: against its naive twin, and what it does to networks."""

import copy

import pytest
import torch
from torch import Tensor, nn

from leanface.networks.graph import NORMS, trace
from leanface.networks.layer_inputs import patches_of
from leanface.networks.quantized import Quantizer, quantizers_of
from leanface.networks.resnet import FaceReconstructionNet
from leanface.quantization.fake_quantize import fake_quantize
from leanface.quantization.rounding import BLOCK, DAMPING, LEVELS, STRIDE, round_weights, round_with_feedback
from tests.conftest import smooth_images
from tests.other_networks import NETWORKS, SIZE, trained_a_little

QUANTIZER = Quantizer(residual=True)


def problem(groups: int, outputs: int, inputs: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(inputs)
    weights = torch.randn(groups, outputs, inputs, generator=generator)
    mixed = torch.randn(groups, inputs, inputs, generator=generator, dtype=torch.float64)
    return weights, weights.abs().amax(2, keepdim=True) / 7, mixed @ mixed.mT


def naive(weights: Tensor, step: Tensor, covariance: Tensor) -> Tensor:
    """One group, after Optimal Brain Surgeon: round an input, let all others make up for it, and take it out."""
    left, count = weights.double().clone(), weights.shape[1]
    damped = covariance + DAMPING * covariance.diagonal().mean() * torch.eye(count)
    inverse = torch.linalg.inv(damped)
    rounded = torch.empty_like(left)
    for index in covariance.diagonal().argsort(descending=True).tolist():
        rounded[:, index] = (left[:, index] / step[:, 0]).round().clamp(-LEVELS, LEVELS) * step[:, 0]
        error = (left[:, index] - rounded[:, index]) / inverse[index, index]
        left -= error[:, None] * inverse[index]
        inverse = inverse - inverse[:, index, None] * inverse[None, index] / inverse[index, index]
        inverse[index, index] = 1.0  # it is taken out
    return rounded


@pytest.mark.parametrize("inputs", [1, 24, BLOCK + 12])
def test_it_does_what_its_naive_twin_does(inputs: int) -> None:
    weights, step, covariance = problem(2, 5, inputs)
    rounded = round_with_feedback(weights, step, covariance)
    for group in range(2):
        expected = naive(weights[group], step[group], covariance[group]).float()
        # Sums of other orders may round a tie to the other side.
        assert (rounded[group] - expected).abs().lt(1e-4).double().mean() > 0.98


def test_the_responses_vary_less_than_after_rounding_to_the_nearest_level() -> None:
    weights, step, covariance = problem(1, 16, 48)

    def variance(rounded: Tensor) -> float:
        error = (rounded - weights).double()
        return float(((error @ covariance) * error).sum())

    assert variance(round_with_feedback(weights, step, covariance)) < 0.5 * variance((weights / step).round() * step)


def test_inputs_that_do_not_go_together_get_the_nearest_level() -> None:
    weights, step, _ = problem(1, 4, 12)
    rounded = round_with_feedback(weights, step, torch.eye(12, dtype=torch.float64)[None])
    torch.testing.assert_close(rounded, (weights / step).round() * step)


@pytest.mark.parametrize("constant", [0.0, 1.0])
def test_inputs_without_variance_are_rounded_too(constant: float) -> None:
    weights, step, covariance = problem(1, 4, 12)
    rounded = round_with_feedback(weights, step, constant * torch.zeros_like(covariance))
    assert rounded.isfinite().all()


@pytest.fixture(scope="module")
def rounded(shared_network: FaceReconstructionNet) -> tuple[nn.Module, nn.Module]:
    """A quantized network as it was, and with rounded weights. Do not change them."""
    images = smooth_images(4, seed=7)
    network = fake_quantize(copy.deepcopy(shared_network), images, QUANTIZER)
    before = copy.deepcopy(network)
    round_weights(network, images)
    return before, network


def test_weights_lie_on_their_levels_and_ranges_stay(rounded: tuple[nn.Module, nn.Module]) -> None:
    before, network = rounded
    ranges = {name: module.amax for name, module in quantizers_of(before)}
    for name, module in quantizers_of(network):
        assert torch.equal(module.amax, ranges[name])
        if name.endswith("weight_quantizer"):
            weight = network.get_submodule(name.rpartition(".")[0]).weight.detach()
            torch.testing.assert_close(module(weight), weight, rtol=0, atol=1e-6 * float(weight.abs().max()))


def test_mean_responses_stay_those_of_the_weights_before(rounded: tuple[nn.Module, nn.Module], images: Tensor) -> None:
    before, network = rounded
    name = next(iter(trace(network).layers))  # the first layer reads the same in both
    layer, old = network.get_submodule(name), before.get_submodule(name)
    norm, old_norm = (each.get_submodule(trace(network).norms[name]) for each in (network, before))
    assert isinstance(norm, NORMS)
    patches = patches_of(layer, layer.input_quantizer(images))[::STRIDE]  # the positions that count
    shift = (patches @ (layer.weight - old.weight).detach().flatten(1).T).mean(0)
    moved = norm.running_mean - old_norm.running_mean
    torch.testing.assert_close(moved, shift, rtol=1e-3, atol=1e-5)
    assert moved.abs().max() > 0


def test_the_network_comes_closer_to_the_one_in_floating_point(
    small_network: FaceReconstructionNet, smooth_images
) -> None:
    calibration, others = smooth_images(48, 1), smooth_images(16, 2)
    with torch.no_grad():
        expected = small_network(others)
        network = fake_quantize(copy.deepcopy(small_network), calibration, QUANTIZER)
        for name, module in list(quantizers_of(network)):
            if not name.endswith("weight_quantizer"):
                module.disable()  # what it is about
        nearest = (network(others) - expected).norm()
        round_weights(network, calibration)
        assert (network(others) - expected).norm() < 0.8 * nearest


@pytest.mark.parametrize("name", NETWORKS)
def test_other_networks_are_rounded_too(name: str) -> None:
    calibration = nn.functional.interpolate(smooth_images(8, 1), size=SIZE)
    network = fake_quantize(trained_a_little(name), calibration, QUANTIZER)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with torch.no_grad():
        expected = network(calibration)
        round_weights(network, calibration)
        got = network(calibration)
    assert (got - expected).norm() < 0.3 * expected.norm()
    changed = {key for key, value in network.state_dict().items() if not torch.equal(value, before[key])}
    assert changed
    assert all(key.endswith(("weight", "bias", "running_mean")) for key in changed)
