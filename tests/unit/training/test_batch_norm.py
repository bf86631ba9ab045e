"""Batch norm's statistics, measured."""

from pathlib import Path

import torch
from torch import nn

from leanface.face.morphable_model import MorphableModel
from leanface.networks.resnet import FaceReconstructionNet
from leanface.synthesis.datamodule import FaceDataModule, Stream
from leanface.synthesis.prepare import prepare_faces
from leanface.tasks.face.losses import SupervisedCriterion
from leanface.tasks.face.task import FaceTask
from leanface.training.batch_norm import batch_norms, measure_batch_norm
from leanface.training.fit import fit
from tests.unit.synthesis.test_prepare import DATA
from tests.unit.training.test_training import MACHINE, OPTIMIZER


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


def test_a_streamed_training_ends_with_the_statistics_of_its_weights_at_the_datas_size(
    small_network: FaceReconstructionNet, model: MorphableModel, tmp_path: Path
) -> None:
    """Whatever sizes the steps take: here another one than the prepared faces'."""
    small = DATA.model_copy(update={"train_count": 4, "val_count": 4, "test_count": 4})
    prepare_faces(model, small, 0, tmp_path / "faces")
    stream = Stream(small, (80,), torch.device("cpu"))
    data = FaceDataModule(tmp_path / "faces", OPTIMIZER.batch_size, 0, stream)
    criterion = SupervisedCriterion(model, 0.0)
    fit(small_network, criterion, data, OPTIMIZER, MACHINE, task=FaceTask(model), seed=0, report=tmp_path / "report")
    ended = [norm.running_var.clone() for norm in batch_norms(small_network)]
    measure_batch_norm(small_network, (images.float() / 255 for images in data.statistics_images()))
    for before, norm in zip(ended, batch_norms(small_network), strict=True):
        torch.testing.assert_close(before, norm.running_var, rtol=1e-3, atol=1e-5)
