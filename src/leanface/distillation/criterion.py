"""The loss of a pruned network: the teacher's outputs, and the labels."""

import functools
import logging
from collections.abc import Callable, Mapping
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from leanface.config import Distill
from leanface.distillation.teacher import FrozenTeacher
from leanface.task import Batch, SampleError, Task

logger = logging.getLogger(__name__)

Weights = Float[Tensor, " batch"] | None


Errors = Callable[[Tensor, Tensor], dict[str, Tensor]]
"""(predicted, target) to the terms of each sample."""


class _Errors(nn.Module):
    """Error terms, computed together."""

    def __init__(self, terms: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.terms = nn.ModuleDict(dict(terms))

    def forward(self, predicted: Tensor, target: Tensor) -> dict[str, Tensor]:
        return {name: cast(SampleError, error).per_sample(predicted, target) for name, error in self.terms.items()}


class DistillationCriterion(nn.Module):
    """(1 - alpha) * (terms against the teacher, weighted by imitation) + alpha * (terms against the labels).

    The terms are those of the task whose weight is not zero. Of samples without labels the first bracket alone counts,
    in full; with alpha 1 the teacher is not asked. Holds a frozen copy of the teacher: nothing of it is among the
    parameters or the state of the network that is trained.

    Attentive imitation follows the teacher where it is right: a sample counts by softmax(-error / T) over the batch,
    one on average, where the error is the teacher's against the label. Without labels all samples count alike.

    Source: Saputra et al., distilling knowledge from a deep pose regressor network, ICCV 2019 (arXiv:1908.00858), which
    weighs by 1 - error / (largest error - smallest); the softmax and its temperature stand in for that.

    A classifier's terms are softened by the same temperature (`Task.terms`).

    Args:
        teacher: the network to learn from.
        task: what the outputs mean.
        distill: weights, alpha and temperature.
        compiled: compute the terms through torch.compile.
    """

    def __init__(self, teacher: nn.Module, task: Task, distill: Distill, compiled: bool = False) -> None:
        super().__init__()
        self.alpha = distill.alpha
        self.imitation, self.temperature = distill.imitation, distill.temperature
        self.weights = {name: weight for name, weight in distill.terms.items() if weight > 0}
        terms = task.terms(list(self.weights), self.temperature)
        self.imitated, self.labeled = _Errors(terms.teacher), _Errors(terms.labels)
        self.teacher = FrozenTeacher(teacher)
        # Hundreds of small kernels, which a processor launches slower than a GPU runs them.
        self._imitated, self._labeled = (
            torch.compile(errors.forward, dynamic=False) if compiled else errors.forward
            for errors in (self.imitated, self.labeled)
        )
        self.teacher_error = task.whole_error()

    def forward(self, network: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Return terms by name: "loss"; "labels"; and, unweighted and against the teacher, its parts."""
        truth = batch.targets
        if truth is None:
            _say_that_alpha_is_ignored(self.alpha)
        alpha = 0.0 if truth is None else self.alpha
        predicted = network(batch.images)
        parts: dict[str, Tensor] = {}
        loss = torch.zeros((), device=predicted.device)
        if alpha < 1:
            outputs = self.teacher(batch)
            parts = self._compare(self._imitated, predicted, outputs, self._importance(outputs, truth))
            loss = (1 - alpha) * self._total(parts)
        if truth is not None and alpha > 0:
            parts["labels"] = self._total(self._compare(self._labeled, predicted, truth, None))
            loss = loss + alpha * parts["labels"]
        return parts | {"loss": loss}

    def _compare(self, errors: Errors, predicted: Tensor, target: Tensor, weights: Weights) -> dict[str, Tensor]:
        """Compute the terms, as means over samples."""
        per_sample = errors(predicted.float(), target)
        return {name: (error if weights is None else error * weights).mean() for name, error in per_sample.items()}

    def _total(self, terms: Mapping[str, Tensor]) -> Tensor:
        return torch.stack([weight * terms[name] for name, weight in self.weights.items()]).sum()

    def _importance(self, outputs: Tensor, truth: Tensor | None) -> Weights:
        """Weigh how much each sample counts in the imitation, one on average."""
        if truth is None or self.imitation == 0:
            return None
        error = cast(SampleError, self.teacher_error).per_sample(outputs, truth)
        weights = torch.softmax(-error / self.temperature, dim=0) * len(error)
        return 1 + self.imitation * (weights - 1)


@functools.cache  # once, not at every batch
def _say_that_alpha_is_ignored(alpha: float) -> None:
    if alpha > 0:
        logger.warning(
            "the samples have no labels: distill.alpha=%g is ignored, only the teacher is learned from", alpha
        )
