"""Fake quantisation: ranges, gradients, and the way through a bundle."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from leanface import bundle
from leanface.errors import ArtifactError
from leanface.networks.quantized import Quantizer, QuantResidualAdd, quantizers_of
from leanface.networks.resnet import FaceReconstructionNet, widths_of
from leanface.quantization.fake_quantize import fake_quantize

QUANTIZER = Quantizer(residual=True)


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


def test_a_bundle_brings_it_back_bitwise(small_network: FaceReconstructionNet, images: Tensor, tmp_path: Path) -> None:
    network = fake_quantize(small_network, images, QUANTIZER)
    spec = bundle.new_spec(network, 64, quantizer=QUANTIZER.model_dump())
    bundle.save_bundle(network, spec, tmp_path / "quantized")
    loaded, loaded_spec = bundle.load_bundle(tmp_path / "quantized")
    assert loaded_spec == spec
    assert torch.equal(loaded(images), network(images))
    with pytest.raises(ArtifactError, match="floating-point"):
        bundle.load_network(tmp_path / "quantized")


def test_a_description_from_another_version_is_refused(
    small_network: FaceReconstructionNet, images: Tensor, tmp_path: Path
) -> None:
    network = fake_quantize(small_network, images, QUANTIZER)
    spec = bundle.new_spec(network, 64, quantizer={"scheme": "int3", "residual": True})
    bundle.save_bundle(network, spec, tmp_path / "quantized")
    with pytest.raises(ArtifactError, match="int3"):
        bundle.load_bundle(tmp_path / "quantized")


def test_it_stays_close_to_the_float_network(small_network: FaceReconstructionNet, images: Tensor) -> None:
    with torch.no_grad():
        before = small_network(images)
        after = fake_quantize(small_network, images, QUANTIZER)(images)
    assert 0 < relative(after, before) < 0.2


def test_a_weights_range_is_the_largest_magnitude_of_its_channel(
    small_network: FaceReconstructionNet, images: Tensor
) -> None:
    weights = {name: small_network.get_submodule(name).weight for name in widths_of(small_network)}
    network = fake_quantize(small_network, images, QUANTIZER)
    ranges = {name: module.amax for name, module in quantizers_of(network)}
    for name, weight in weights.items():
        expected = weight.detach().abs().amax(dim=(1, 2, 3))
        assert torch.equal(ranges[f"{name}.weight_quantizer"].flatten(), expected)


@pytest.mark.parametrize("percentile", [100.0, 99.0])
def test_an_activations_range_is_a_percentile_of_its_magnitudes(
    small_network: FaceReconstructionNet, images: Tensor, percentile: float
) -> None:
    seen: list[Tensor] = []
    conv = small_network.backbone.layer1[0].downsample[0]
    hook = conv.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach().abs().flatten()))
    small_network(images)
    hook.remove()
    network = fake_quantize(small_network, images, QUANTIZER, percentile=percentile, batch_size=3)
    amax = dict(quantizers_of(network))["backbone.layer1.0.downsample.0.input_quantizer"].amax
    expected = seen[0].sort().values[round(percentile / 100 * (len(seen[0]) - 1))]
    assert float(amax) == pytest.approx(float(expected), rel=0.01)


@pytest.mark.parametrize("residual", [True, False])
def test_residual_additions_are_quantised_on_request(
    small_network: FaceReconstructionNet, images: Tensor, residual: bool
) -> None:
    network = fake_quantize(small_network, images, Quantizer(residual=residual))
    additions = [name for name, module in network.named_modules() if isinstance(module, QuantResidualAdd)]
    active = [name for name, _ in quantizers_of(network) if name.rpartition(".")[0] in additions]
    assert len(additions) == 16
    assert len(active) == (16 if residual else 0)


def test_widths_are_those_of_the_float_network(small_network: FaceReconstructionNet, images: Tensor) -> None:
    before = widths_of(small_network)
    assert widths_of(fake_quantize(small_network, images, QUANTIZER)) == before


def test_training_it_reaches_every_weight_and_lowers_the_loss(
    small_network: FaceReconstructionNet, images: Tensor
) -> None:
    network = fake_quantize(small_network, images, QUANTIZER)
    target = torch.randn(len(images), 257, generator=torch.Generator().manual_seed(2))
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-2)
    losses: list[float] = []
    for _ in range(4):
        predicted, maps = network.forward_with_maps(images)
        loss = (predicted - target).square().mean() + 1e-3 * sum(stage.square().mean() for stage in maps)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    convs = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    assert all(conv.weight.grad is not None and conv.weight.grad.abs().sum() > 0 for conv in convs)
    assert losses == sorted(losses, reverse=True)


def test_it_runs_under_bf16_autocast(small_network: FaceReconstructionNet, images: Tensor) -> None:
    network = fake_quantize(small_network, images, QUANTIZER)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        mixed = network(images).float()
    assert relative(mixed, network(images).detach()) < 0.1


@pytest.mark.parametrize(
    ("pictures", "message"),
    [(torch.zeros(0, 3, 64, 64), "at least one image"), (torch.full((1, 3, 64, 64), torch.inf), "finite")],
)
def test_useless_calibration_images_are_refused(
    small_network: FaceReconstructionNet, pictures: Tensor, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        fake_quantize(small_network, pictures, QUANTIZER)
