"""Fake quantization: ranges, gradients, and the way through a bundle."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from leanface import bundle
from leanface.errors import ArtifactError
from leanface.networks.quantized import Quantizer, QuantResidualAdd, quantizers_of
from leanface.networks.resnet import FaceReconstructionNet
from leanface.networks.widths import widths_of
from leanface.quantization.fake_quantize import CALIBRATIONS, fake_quantize, percentile_of

QUANTIZER = Quantizer(residual=True)


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


def test_a_bundle_brings_it_back_bitwise(small_network: FaceReconstructionNet, images: Tensor, tmp_path: Path) -> None:
    network = fake_quantize(small_network, images, QUANTIZER)
    spec = bundle.new_spec(network, 64, quantizer=QUANTIZER.model_dump(mode="json"))
    bundle.save_bundle(network, spec, tmp_path / "quantized")
    loaded, loaded_spec = bundle.load_bundle(tmp_path / "quantized")
    assert loaded_spec.quantizer == spec.quantizer
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


@pytest.mark.parametrize("calibration", CALIBRATIONS)
def test_an_activations_range_is_within_what_was_seen(
    small_network: FaceReconstructionNet, images: Tensor, calibration: str
) -> None:
    seen: list[Tensor] = []
    conv = small_network.backbone.layer1[0].downsample[0]
    hook = conv.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach().abs().flatten()))
    expected = small_network(images).detach()
    hook.remove()
    network = fake_quantize(small_network, images, QUANTIZER, calibration, batch_size=3)
    amax = float(dict(quantizers_of(network))["backbone.layer1.0.downsample.0.input_quantizer"].amax)
    largest = float(seen[0].max())
    assert 0.2 * largest < amax <= 1.001 * largest
    if calibration == "max":
        assert amax == largest
    assert relative(network(images).detach(), expected) < 0.2


KEPT = ("backbone.conv1", "backbone.layer2.0.downsample.0", "final_layers.3")


def test_kept_layers_have_no_quantizers_also_after_a_bundle(
    small_network: FaceReconstructionNet, images: Tensor, tmp_path: Path
) -> None:
    quantizer = Quantizer(residual=True, excluded_layers=KEPT)
    all_of_them = {name for name, _ in quantizers_of(fake_quantize(copy.deepcopy(small_network), images, QUANTIZER))}
    network = fake_quantize(small_network, images, quantizer)
    spec = bundle.new_spec(network, 64, quantizer=quantizer.model_dump(mode="json"))
    bundle.save_bundle(network, spec, tmp_path / "quantized")
    loaded, _ = bundle.load_bundle(tmp_path / "quantized")
    expected = {name for name in all_of_them if name.rpartition(".")[0] not in KEPT}
    assert {name for name, _ in quantizers_of(loaded)} == expected
    assert len(all_of_them) - len(expected) == 2 * len(KEPT)
    assert torch.equal(loaded(images), network(images))


def test_the_fewer_layers_are_quantized_the_closer_it_stays(
    small_network: FaceReconstructionNet, images: Tensor
) -> None:
    expected = small_network(images).detach()
    all_but_one = tuple(name for name in widths_of(small_network) if name != "final_layers.3")
    network = fake_quantize(small_network, images, Quantizer(residual=False, excluded_layers=all_but_one))
    found = network(images).detach()
    assert torch.equal(found[:, :224], expected[:, :224])
    assert not torch.equal(found[:, 224:227], expected[:, 224:227])


def test_a_bundle_that_keeps_an_unknown_layer_is_refused(
    small_network: FaceReconstructionNet, images: Tensor, tmp_path: Path
) -> None:
    network = fake_quantize(small_network, images, QUANTIZER)
    quantizer = Quantizer(residual=True, excluded_layers=("backbone.conv9",)).model_dump(mode="json")
    bundle.save_bundle(network, bundle.new_spec(network, 64, quantizer=quantizer), tmp_path / "quantized")
    with pytest.raises(ArtifactError, match=r"does not have: backbone\.conv9"):
        bundle.load_bundle(tmp_path / "quantized")


@pytest.mark.parametrize("percentile", [50.0, 99.0, 100.0])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_a_percentile_is_found_to_a_bin_at_any_scale(percentile: float, scale: float) -> None:
    magnitudes = scale * torch.randn(100_000, generator=torch.Generator().manual_seed(0), dtype=torch.double).abs()
    counts, edges = np.histogram(magnitudes.numpy(), bins=2048, range=(0.0, magnitudes.max().item()))
    found = percentile_of(torch.tensor(counts).double(), torch.tensor(edges), percentile).item()
    assert found == pytest.approx(np.percentile(magnitudes, percentile), abs=2 * magnitudes.max().item() / 2048)


@pytest.mark.parametrize("residual", [True, False])
def test_residual_additions_are_quantized_on_request(
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
        loss = (network(images) - target).square().mean()
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
