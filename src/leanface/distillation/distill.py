"""Trains a student on a teacher's outputs, from disk or streamed."""

from dataclasses import replace

from torch import nn

from leanface.config import Distill, Optimizer
from leanface.distillation.criterion import DistillationCriterion
from leanface.task import Split, Task
from leanface.training.fit import FitResult, Session, fit, resolve_device

TRAIN_ON_POINTS = 4
"""Validations of a training so short that each costs as much as several of its steps."""


def distill(
    student: nn.Module,
    teacher: nn.Module,
    task: Task,
    settings: Distill,
    session: Session,
    *,
    val: Split,
) -> FitResult:
    """Train `student` in place.

    Args:
        val: the labeled samples that it is validated on.
    """
    sizes = settings.image_sizes if settings.streamed else None
    device = resolve_device(session.machine)
    return fit(
        student,
        DistillationCriterion(teacher, task, settings, session.machine.compile),
        task.training_data(settings.optimizer.batch_size, session.seed, stream_sizes=sizes, device=device, val=val),
        settings.optimizer,
        replace(session, run_key=[settings, *session.run_key]),
        task=task,
        freeze_batch_norm=settings.freeze_batch_norm,
    )


def train_on(
    network: nn.Module,
    teacher: nn.Module,
    task: Task,
    optimizer: Optimizer,
    settings: Distill,
    session: Session,
    *,
    val: Split,
) -> FitResult:
    """Train a fake-quantized `network` in place on stored samples, with batch norms and ranges frozen."""
    # It takes a minute or two, which compiling would not pay for.
    machine = session.machine.model_copy(update={"compile": False})
    return fit(
        network,
        DistillationCriterion(teacher, task, settings),
        task.training_data(optimizer.batch_size, session.seed, val=val),
        optimizer,
        replace(session, machine=machine, run_key=[settings, *session.run_key]),
        task=task,
        freeze_batch_norm=True,
        points=TRAIN_ON_POINTS,
    )
