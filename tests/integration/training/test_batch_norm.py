"""Statistics of batch norms after a training."""

from pathlib import Path

import torch

from leanface.face.morphable_model import MorphableModel
from leanface.networks.resnet import FaceReconstructionNet
from leanface.synthesis.datamodule import FaceDataModule, Stream
from leanface.synthesis.prepare import prepare_faces
from leanface.tasks.face.losses import SupervisedCriterion
from leanface.tasks.face.task import FaceTask
from leanface.training.batch_norm import batch_norms, measure_batch_norm
from leanface.training.fit import Session, fit
from tests.settings import DATA, MACHINE, OPTIMIZER


def test_a_streamed_training_ends_with_the_statistics_of_its_weights_at_the_datas_size(
    small_network: FaceReconstructionNet, model: MorphableModel, tmp_path: Path
) -> None:
    """Whatever sizes the steps take: here another one than the prepared faces'."""
    small = DATA.model_copy(update={"train_count": 4, "val_count": 4, "test_count": 4})
    prepare_faces(model, small, 0, tmp_path / "faces")
    stream = Stream(small, (80,), torch.device("cpu"))
    data = FaceDataModule(tmp_path / "faces", OPTIMIZER.batch_size, 0, stream)
    criterion = SupervisedCriterion(model, 0.0)
    session = Session(MACHINE, seed=0, report=tmp_path / "report")
    fit(small_network, criterion, data, OPTIMIZER, session, task=FaceTask(model))
    ended = [norm.running_var.clone() for norm in batch_norms(small_network)]
    measure_batch_norm(small_network, (images.float() / 255 for images in data.statistics_images()))
    for before, norm in zip(ended, batch_norms(small_network), strict=True):
        torch.testing.assert_close(before, norm.running_var, rtol=1e-3, atol=1e-5)
