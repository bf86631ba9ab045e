"""Training a distilled student on by the same criterion: quantisation-aware if it is quantised."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import nn

from leanface.config import Distill, Machine, Optimizer
from leanface.distillation.criterion import DistillationCriterion
from leanface.face.morphable_model import MorphableModel
from leanface.networks.resnet import FaceReconstructionNet
from leanface.paths import FACES
from leanface.synthesis.datamodule import FaceDataModule
from leanface.synthesis.dataset import FaceDataset
from leanface.training.fit import FitResult, MetricLog, fit

POINTS = 4
"""Validations of a training so short that each costs as much as several of its steps."""


def train_on(
    network: nn.Module,
    original: FaceReconstructionNet,
    kept: Mapping[str, Sequence[int]] | None,
    optimizer: Optimizer,
    settings: Distill,
    *,
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
    """Train `network` in place on stored faces, batch norms frozen, as are ranges; the rest as in `distill`."""
    return fit(
        network,
        DistillationCriterion(original, model, settings, kept),
        FaceDataModule(FACES, optimizer.batch_size, seed, val=val),
        optimizer,
        # A training of a minute or two, which compiling would not pay for.
        machine.model_copy(update={"compile": False}),
        model=model,
        seed=seed,
        report=report,
        freeze_batch_norm=True,
        log=log,
        checkpoint=checkpoint,
        purpose=[settings, *purpose],
        points=POINTS,
        piece_seconds=piece_seconds,
    )
