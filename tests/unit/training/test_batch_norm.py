"""Batch norm's statistics, measured."""

import torch
from torch import nn

from leanface.networks.resnet import FaceReconstructionNet
from leanface.training.batch_norm import batch_norms, measure_batch_norm


def test_statistics_are_the_means_over_the_batches() -> None:
    norm, batches = nn.BatchNorm2d(3), [torch.randn(4, 3, 5, 5) * 2 + 1 for _ in range(3)]
    measure_batch_norm(norm, batches)
    flat = [batch.transpose(0, 1).flatten(1) for batch in batches]
    torch.testing.assert_close(norm.running_mean, torch.stack([values.mean(1) for values in flat]).mean(0))
    torch.testing.assert_close(norm.running_var, torch.stack([values.var(1) for values in flat]).mean(0))


def test_measuring_changes_nothing_else(small_network: FaceReconstructionNet) -> None:
    small_network.train()
    frozen, *live = batch_norms(small_network)
    frozen.eval()
    weights = {name: value.clone() for name, value in small_network.named_parameters()}
    measure_batch_norm(small_network, [torch.rand(2, 3, 64, 64)])
    assert not frozen.training
    assert all(norm.training and norm.momentum == 0.1 for norm in live)
    assert all(torch.equal(value, weights[name]) for name, value in small_network.named_parameters())
