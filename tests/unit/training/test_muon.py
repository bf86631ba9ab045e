"""Muon: its updates, beside PyTorch's own for matrices, and its state."""

import copy
from typing import Any

import pytest
import torch
from torch import nn

from leanface.training.module import parameter_groups
from leanface.training.muon import Muon, orthogonalized
from tests.settings import OPTIMIZER

SETTINGS = OPTIMIZER.model_copy(update={"algorithm": "muon"})


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 1), nn.Flatten(), nn.Linear(4, 2))


def optimizer_of(network: nn.Module, **changes: Any) -> Muon:
    return Muon(parameter_groups(network, SETTINGS.model_copy(update=changes), {"4": 0.1}))


def train(network: nn.Module, optimizer: torch.optim.Optimizer, steps: int, seed: int = 0) -> float:
    generator = torch.Generator().manual_seed(seed)
    images, targets = torch.rand(16, 3, 3, 3, generator=generator), torch.rand(16, 2, generator=generator)
    for _ in range(steps):
        loss = (network(images) - targets).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.item()


@pytest.mark.parametrize("shape", [(2, 8, 30), (2, 30, 8)])
def test_singular_values_become_about_one_and_vectors_stay(shape: tuple[int, ...]) -> None:
    # Singular values from 0.1 to 1: the iteration is not meant for much smaller ones.
    left, _ = torch.linalg.qr(torch.randn(shape[0], shape[1], 8, generator=torch.Generator().manual_seed(0)))
    right, _ = torch.linalg.qr(torch.randn(shape[0], shape[2], 8, generator=torch.Generator().manual_seed(1)))
    matrices = left * torch.linspace(0.1, 1, 8) @ right.mT
    within = left.mT @ orthogonalized(matrices) @ right
    values = within.diagonal(dim1=1, dim2=2)
    assert float(values.min()) > 0.6
    assert float(values.max()) < 1.3
    torch.testing.assert_close(within, torch.diag_embed(values), atol=1e-4, rtol=0)


def test_matrices_move_as_pytorchs_own_muon_moves_them() -> None:
    torch.manual_seed(0)
    ours = nn.Linear(12, 6, bias=False)
    theirs = copy.deepcopy(ours)
    # PyTorch's computes in bfloat16, whose rounding errors are some percent of the way.
    first = Muon(parameter_groups(ours, SETTINGS, {}), precision=torch.bfloat16)
    second = torch.optim.Muon(
        theirs.parameters(),
        lr=SETTINGS.learning_rate,
        weight_decay=SETTINGS.weight_decay,
        adjust_lr_fn="match_rms_adamw",
    )
    for step in range(4):
        gradient = torch.randn(6, 12, generator=torch.Generator().manual_seed(step))
        ours.weight.grad, theirs.weight.grad = gradient.clone(), gradient.clone()
        first.step()
        second.step()
    torch.testing.assert_close(ours.weight, theirs.weight, atol=0.1 * SETTINGS.learning_rate, rtol=0)


def test_a_convolution_is_the_matrix_of_its_output_channels() -> None:
    torch.manual_seed(0)
    convolution, matrix = nn.Conv2d(3, 5, 2, bias=False), nn.Linear(12, 5, bias=False)
    with torch.no_grad():
        matrix.weight.copy_(convolution.weight.flatten(1))
    gradient = torch.randn(5, 12)
    convolution.weight.grad = gradient.view(5, 3, 2, 2).contiguous(memory_format=torch.channels_last)
    matrix.weight.grad = gradient
    for layer in (convolution, matrix):
        Muon(parameter_groups(layer, SETTINGS, {})).step()
    torch.testing.assert_close(convolution.weight.flatten(1), matrix.weight)


def test_heads_biases_and_norms_move_as_by_adamw(network: nn.Module) -> None:
    other = copy.deepcopy(network)
    groups = parameter_groups(other, SETTINGS, {"4": 0.1})
    train(network, optimizer_of(network), 1)
    train(other, torch.optim.AdamW(groups), 1)
    for name, parameter in network.named_parameters():
        same = torch.equal(parameter, other.get_parameter(name))
        assert same == (name not in ("0.weight", "2.weight")), name


def test_the_loss_falls(network: nn.Module) -> None:
    before = train(network, optimizer_of(network, learning_rate=1e-30), 1)
    assert train(network, optimizer_of(network, learning_rate=1e-2), 200) < 0.5 * before


def test_a_saved_state_goes_on_as_if_nothing_had_happened(network: nn.Module) -> None:
    optimizer = optimizer_of(network)
    train(network, optimizer, 3)
    other = copy.deepcopy(network)
    resumed = optimizer_of(other)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    train(network, optimizer, 2, seed=1)
    train(other, resumed, 2, seed=1)
    for ours, theirs in zip(network.parameters(), other.parameters(), strict=True):
        assert torch.equal(ours, theirs)
