"""Trains a student on a teacher's outputs, from disk or streamed."""

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from leanface.config import Distill, Machine, Optimizer
from leanface.distillation.criterion import DistillationCriterion
from leanface.task import Split, Task
from leanface.training.fit import FitResult, MetricLog, fit, resolve_device

TRAIN_ON_POINTS = 4
"""Validations of a training so short that each costs as much as several of its steps."""


def distill(
    student: nn.Module,
    teacher: nn.Module,
    task: Task,
    settings: Distill,
    *,
    machine: Machine,
    val: Split,
    seed: int,
    report: Path,
    log: MetricLog | None = None,
    checkpoint: Path | None = None,
    purpose: Sequence[object] = (),
    piece_seconds: float | None = None,
) -> FitResult:
    """Train `student` in place.

    Args:
        val: the labeled samples that it is validated on; the rest are arguments of `leanface.training.fit.fit`.
    """
    sizes = settings.image_sizes if settings.streamed else None
    data = task.training_data(
        settings.optimizer.batch_size, seed, stream_sizes=sizes, device=resolve_device(machine), val=val
    )
    return fit(
        student,
        DistillationCriterion(teacher, task, settings, machine.compile),
        data,
        settings.optimizer,
        machine,
        task=task,
        seed=seed,
        report=report,
        freeze_batch_norm=settings.freeze_batch_norm,
        log=log,
        checkpoint=checkpoint,
        purpose=[settings, *purpose],
        piece_seconds=piece_seconds,
    )


def train_on(
    network: nn.Module,
    teacher: nn.Module,
    task: Task,
    optimizer: Optimizer,
    settings: Distill,
    *,
    machine: Machine,
    val: Split,
    seed: int,
    report: Path,
    log: MetricLog | None = None,
    checkpoint: Path | None = None,
    purpose: Sequence[object] = (),
    piece_seconds: float | None = None,
) -> FitResult:
    """Train a fake-quantized `network` in place on stored samples, batch norms and ranges frozen; else as `distill`."""
    return fit(
        network,
        DistillationCriterion(teacher, task, settings),
        task.training_data(optimizer.batch_size, seed, val=val),
        optimizer,
        # A training of a minute or two, which compiling would not pay for.
        machine.model_copy(update={"compile": False}),
        task=task,
        seed=seed,
        report=report,
        freeze_batch_norm=True,
        log=log,
        checkpoint=checkpoint,
        purpose=[settings, *purpose],
        points=TRAIN_ON_POINTS,
        piece_seconds=piece_seconds,
    )
