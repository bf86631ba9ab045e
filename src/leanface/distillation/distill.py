"""Training the student on what the original makes of faces, from disk or streamed."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from leanface.config import Data, Distill, Machine
from leanface.distillation.criterion import DistillationCriterion
from leanface.face.morphable_model import MorphableModel
from leanface.networks.resnet import FaceReconstructionNet
from leanface.paths import FACES, MORPHABLE_MODEL
from leanface.synthesis.datamodule import FaceDataModule, Stream
from leanface.synthesis.dataset import FaceDataset
from leanface.training.fit import FitResult, MetricLog, fit, resolve_device


def distill(
    student: FaceReconstructionNet,
    original: FaceReconstructionNet,
    kept: Mapping[str, Sequence[int]] | None,
    settings: Distill,
    *,
    data: Data,
    machine: Machine,
    model: MorphableModel,
    val: FaceDataset,
    seed: int,
    report: Path,
    log: MetricLog | None = None,
    checkpoint: Path | None = None,
    purpose: Sequence[object] = (),
    piece_seconds: float | None = None,
) -> FitResult:
    """Train `student` in place, see `leanface.training.fit.fit`, which the other arguments are those of.

    Args:
        kept: the student's pruning record; None if it has all channels.
        val: the labelled faces that it is validated on.
    """
    stream = Stream(data, settings.image_sizes, resolve_device(machine), MORPHABLE_MODEL) if settings.streamed else None
    return fit(
        student,
        DistillationCriterion(original, model, settings, kept, machine.compile),
        FaceDataModule(FACES, settings.optimizer.batch_size, seed, stream, val),
        settings.optimizer,
        machine,
        model=model,
        seed=seed,
        report=report,
        freeze_batch_norm=settings.freeze_batch_norm,
        log=log,
        checkpoint=checkpoint,
        purpose=[settings, data, *purpose],
        piece_seconds=piece_seconds,
    )
