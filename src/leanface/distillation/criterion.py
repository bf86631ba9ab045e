"""The loss of a pruned network: the original's answers, what they mean, where it looks, and the labels."""

import functools
import logging
from collections.abc import Mapping, Sequence
from typing import Protocol, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from leanface.config import Distill
from leanface.distillation.attention import build_attention
from leanface.distillation.losses import TERMS
from leanface.distillation.original import Original
from leanface.face.morphable_model import MorphableModel
from leanface.networks.resnet import STAGE_DEPTHS, FaceReconstructionNet, widths_of
from leanface.synthesis.dataset import FaceBatch
from leanface.training.criterion import CoefficientLoss

logger = logging.getLogger(__name__)

Weights = Float[Tensor, " batch"] | None


class _FaceError(Protocol):
    def per_face(self, predicted: Tensor, target: Tensor) -> Tensor: ...


class DistillationCriterion(nn.Module):
    """(1 - alpha) * (terms + attention, against the original) + alpha * (terms against the labels).

    The terms are those of `leanface.distillation.losses.TERMS` whose weight is not zero. Of faces without labels the
    first bracket alone counts, in full; with alpha 1 the original is not asked. Holds a frozen copy of the original:
    nothing of it is among the parameters or the state of the network that is trained.

    Args:
        teacher: the original network.
        model: the morphable model.
        distill: weights, alpha and temperature.
        kept: the student's pruning record; None if it has all channels.
        compiled: compute the terms through torch.compile.
    """

    def __init__(
        self,
        teacher: FaceReconstructionNet,
        model: MorphableModel,
        distill: Distill,
        kept: Mapping[str, Sequence[int]] | None,
        compiled: bool = False,
    ) -> None:
        super().__init__()
        self.alpha = distill.alpha
        self.weights = {name: weight for name, weight in distill.terms.model_dump().items() if weight > 0}
        self.errors = nn.ModuleDict({name: TERMS[name](model) for name in self.weights})
        self.attention_weight = distill.attention.weight
        self.attention = build_attention(distill.attention.name, distill.temperature, _stage_channels(teacher, kept))
        self.reads_maps = self.attention.reads_maps and self.attention_weight > 0
        self.original = Original(
            teacher,
            self.attention.of_teacher if self.reads_maps else None,
            remembers=self.attention.compact or not self.reads_maps,
        )
        # Hundreds of small kernels, which a processor launches slower than a GPU runs them.
        self._errors = torch.compile(self._per_face, dynamic=False) if compiled else self._per_face
        self.teacher_error = CoefficientLoss(model)

    def forward(self, network: nn.Module, batch: FaceBatch) -> dict[str, Tensor]:
        """Terms by name: "loss"; "labels"; and, unweighted and against the original, its parts."""
        truth = batch.coefficients
        if truth is None:
            _say_that_alpha_is_ignored(self.alpha)
        alpha = 0.0 if truth is None else self.alpha
        maps: list[Tensor] = []
        if self.reads_maps and alpha < 1:
            predicted, maps = cast(FaceReconstructionNet, network).forward_with_maps(batch.images)
        else:
            predicted = network(batch.images)
        parts: dict[str, Tensor] = {}
        loss = torch.zeros((), device=predicted.device)
        if alpha < 1:
            original = self.original(batch)
            weights = self._importance(original.coefficients, truth)
            parts = self._compare(predicted, original.coefficients, weights)
            loss = (1 - alpha) * self._total(parts)
            if self.reads_maps:
                parts["attention"] = self.attention(maps, original.maps).mean()
                loss = loss + (1 - alpha) * self.attention_weight * parts["attention"]
        if truth is not None and alpha > 0:
            parts["labels"] = self._total(self._compare(predicted, truth, None))
            loss = loss + alpha * parts["labels"]
        return parts | {"loss": loss}

    def _compare(self, predicted: Tensor, target: Tensor, weights: Weights) -> dict[str, Tensor]:
        """The terms, as means over faces."""
        per_face = self._errors(predicted.float(), target)
        return {name: (error if weights is None else error * weights).mean() for name, error in per_face.items()}

    def _per_face(self, predicted: Tensor, target: Tensor) -> dict[str, Tensor]:
        return {name: cast(_FaceError, error).per_face(predicted, target) for name, error in self.errors.items()}

    def _total(self, terms: Mapping[str, Tensor]) -> Tensor:
        return torch.stack([weight * terms[name] for name, weight in self.weights.items()]).sum()

    def _importance(self, answers: Tensor, truth: Tensor | None) -> Weights:
        """How much each face counts in the imitation, one on average."""
        if truth is None or self.attention_weight == 0:
            return None
        weights = self.attention.importance(self.teacher_error.per_face(answers, truth))
        return None if weights is None else 1 + self.attention_weight * (weights - 1)


@functools.cache  # once, not at every batch
def _say_that_alpha_is_ignored(alpha: float) -> None:
    if alpha > 0:
        logger.warning("the faces have no labels: distill.alpha=%g is ignored, only the original is learnt from", alpha)


def _stage_channels(teacher: FaceReconstructionNet, kept: Mapping[str, Sequence[int]] | None) -> list[Sequence[int]]:
    """The original's channels that survive in the feature maps after each of the four stages."""
    last = [f"backbone.layer{stage}.{depth - 1}.conv3" for stage, depth in enumerate(STAGE_DEPTHS, start=1)]
    return [range(widths_of(teacher)[name][1]) if kept is None else kept[name] for name in last]
