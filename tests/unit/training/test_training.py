"""Training: losses, averaging, Lightning, pieces."""

from pathlib import Path

import pytest
import torch
from torch import nn

from leanface.face.coefficients import ALBEDO, IDENTITY
from leanface.face.errors import face_bases, geometry_errors
from leanface.face.morphable_model import MorphableModel
from leanface.networks.resnet import FaceReconstructionNet
from leanface.synthesis.synthesis import population, sample_coefficients
from leanface.tasks.face.losses import CoefficientLoss, PhotometricLoss
from leanface.training.average import WeightAverage
from leanface.training.checkpoint import Checkpoint
from leanface.training.fit import resolve_precision
from leanface.training.module import parameter_groups
from tests.settings import MACHINE, OPTIMIZER

SCALES = (1.0, 1.0, 1.0, 0.3, 0.1, 0.04, 0.2)


def some(model: MorphableModel, count: int = 64) -> torch.Tensor:
    return sample_coefficients(model, count, torch.Generator().manual_seed(5))


def test_no_error_costs_nothing_and_the_mean_face_costs_one_per_group(model: MorphableModel) -> None:
    loss, truth = CoefficientLoss(model), some(model, 4000)
    assert float(loss(truth, truth)["loss"]) == 0.0
    mean, _ = population(model)
    terms = loss(mean.expand_as(truth), truth)
    for name in ("identity", "expression", "albedo", "angles", "lighting", "translation"):
        assert 0.85 < float(terms[name]) < 1.15, name


def test_the_faces_losses_average_to_the_batchs(model: MorphableModel) -> None:
    truth, other = some(model, 8), some(model, 9)[1:]
    for loss in (CoefficientLoss(model), PhotometricLoss(model)):
        total = loss(other, truth)
        total = total["loss"] if isinstance(total, dict) else total
        torch.testing.assert_close(loss.per_sample(other, truth).mean(), total)


def test_a_coefficient_costs_what_it_moves(model: MorphableModel) -> None:
    """One sigma of the first component moves most, so it must cost most."""
    loss, effect = CoefficientLoss(model), face_bases(model)["identity"].norm(dim=1)
    truth = torch.zeros(1, 257)
    costs = torch.stack([loss(truth + torch.eye(257)[index], truth)["identity"] for index in range(80)])
    torch.testing.assert_close(costs / costs.sum(), effect.square() / effect.square().sum())


def test_errors_are_zero_at_identity_and_mm_match_the_vertices(model: MorphableModel) -> None:
    truth = some(model, 3)
    assert all(float(values.max()) < 0.03 for values in geometry_errors(model, truth, truth).values())
    off = truth.clone()
    off[:, IDENTITY] += 0.3 * torch.randn(3, 80)
    off[:, ALBEDO] += 0.3 * torch.randn(3, 80)
    moved = model.vertices(off[:, IDENTITY], torch.zeros(3, 64)) - model.vertices(
        truth[:, IDENTITY], torch.zeros(3, 64)
    )
    expected = 100 * moved[:, model.face_mask].square().sum(-1).mean(1).sqrt()
    torch.testing.assert_close(geometry_errors(model, off, truth)["identity_mm"], expected, atol=1e-3, rtol=1e-3)


def test_rotation_error_is_the_angle_between(model: MorphableModel) -> None:
    truth = torch.zeros(1, 257)
    turned = truth.clone()
    turned[:, 225] = 0.1
    assert float(geometry_errors(model, turned, truth)["rotation_deg"]) == pytest.approx(5.73, abs=0.01)


def test_photometric_loss_sees_albedo_and_light_but_not_shape(model: MorphableModel) -> None:
    loss, truth = PhotometricLoss(model), some(model, 4)
    assert float(loss(truth, truth)) == 0.0
    shape = truth.clone()
    shape[:, :144] += 1.0
    assert float(loss(shape, truth)) == 0.0
    for part in (ALBEDO, slice(227, 254)):
        off = truth.clone()
        off[:, part] += 0.2
        assert float(loss(off, truth)) > 0


def test_average_follows_and_swap_is_its_own_inverse() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    average = WeightAverage(network, decay=0.5)
    start = network[0].weight.detach().clone()
    with torch.no_grad():
        network[0].weight.add_(1.0)
    average.update(network)  # the first decay is 1 / 10
    average.swap(network)
    torch.testing.assert_close(network[0].weight, start + 0.9)
    average.swap(network)
    torch.testing.assert_close(network[0].weight, start + 1.0)


def test_heads_learn_at_the_scale_of_their_outputs() -> None:
    network = FaceReconstructionNet()
    groups = parameter_groups(
        network,
        OPTIMIZER,
        {f"final_layers.{head}": scale for head, scale in enumerate(SCALES)},
    )
    rates = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    assert len(rates) == len(list(network.parameters()))
    assert rates[id(network.final_layers[3].weight)] == pytest.approx(3e-4)
    assert rates[id(network.backbone.conv1.weight)] == pytest.approx(1e-3)
    decays = {id(parameter): group["weight_decay"] for group in groups for parameter in group["params"]}
    assert decays[id(network.backbone.bn1.weight)] == 0.0
    assert decays[id(network.backbone.conv1.weight)] == 0.01


# Streamed batches number themselves; Lightning cannot know that data from disk starts its epoch anew.


def test_only_states_of_trainings_are_removed(tmp_path: Path) -> None:
    states = ["state-0123456789ab.ckpt", "state-0123456789ab.tmp", "state-ba9876543210.ckpt"]
    others = ["state-abc123", "state-notes.txt", "state-0123456789ab.ckpt.bak", "teacher-0123456789ab.ckpt"]
    for name in [*states, *others[1:]]:
        (tmp_path / name).touch()
    (tmp_path / others[0]).mkdir()
    Checkpoint(tmp_path / "state.ckpt", "0123456789ab", None).remove()
    assert {path.name for path in tmp_path.iterdir()} == set(others)


def test_mixed_precision_only_where_the_processor_has_it() -> None:
    capabilities = torch.cpu.get_capabilities()
    has_bf16 = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")
    automatic = MACHINE.model_copy(update={"precision": "auto"})
    assert resolve_precision(automatic, "cpu") == ("bf16-mixed" if has_bf16 else "32-true")
    assert resolve_precision(MACHINE, "cpu") == "32-true"
