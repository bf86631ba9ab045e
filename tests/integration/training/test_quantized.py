"""Quantization-aware training through the project's one trainer."""

from pathlib import Path

import pytest
import torch
from torch import nn

from leanface.config import Optimizer
from leanface.errors import LeanFaceError
from leanface.face.morphable_model import MorphableModel
from leanface.networks.quantized import Quantizer
from leanface.networks.resnet import FaceReconstructionNet
from leanface.quantization.fake_quantize import fake_quantize
from leanface.synthesis.datamodule import FaceDataModule
from leanface.synthesis.dataset import FaceDataset
from leanface.tasks.face.losses import SupervisedCriterion
from leanface.tasks.face.task import FaceTask
from leanface.training.fit import Session, fit
from tests import settings
from tests.settings import MACHINE

STEPS = {"steps": 3, "learning_rate": 1e-4, "warmup_fraction": 0.1, "weight_decay": 0.0, "ema_decay": 0.0}
OPTIMIZER = settings.OPTIMIZER.model_copy(update=STEPS)


@pytest.fixture
def faces(few_faces: Path) -> Path:
    return few_faces


def train(network: nn.Module, faces: Path, model: MorphableModel, report: Path, optimizer: Optimizer) -> None:
    fit(
        network,
        SupervisedCriterion(model, 1.0),
        FaceDataModule(faces, optimizer.batch_size, 0),
        optimizer,
        Session(MACHINE, seed=0, report=report),
        task=FaceTask(model),
        freeze_batch_norm=True,
    )


@pytest.fixture
def quantized(small_network: FaceReconstructionNet, faces: Path) -> nn.Module:
    return fake_quantize(small_network, FaceDataset(faces / "train").head(8).images, Quantizer(residual=True))


def test_training_moves_weights_but_neither_ranges_nor_statistics(
    quantized: nn.Module, faces: Path, model: MorphableModel, tmp_path: Path
) -> None:
    before = {name: tensor.clone() for name, tensor in quantized.state_dict().items()}
    train(quantized, faces, model, tmp_path, OPTIMIZER)
    after = quantized.state_dict()
    for name, tensor in before.items():
        if name.endswith(("_amax", "running_mean", "running_var")):
            torch.testing.assert_close(after[name], tensor)
    assert not torch.equal(after["backbone.conv1.weight"], before["backbone.conv1.weight"])


def test_an_absurd_learning_rate_stops_the_run_and_is_named(
    quantized: nn.Module, faces: Path, model: MorphableModel, tmp_path: Path
) -> None:
    absurd = OPTIMIZER.model_copy(update={"learning_rate": 1e25})
    with pytest.raises(LeanFaceError, match=r"at step 1; lower optimizer\.learning_rate"):
        train(quantized, faces, model, tmp_path, absurd)
