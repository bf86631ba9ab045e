"""The loss of a pruned network: the original's answers, their shape, where it looks, and the labels."""

import copy
import functools
import logging
from collections.abc import Mapping, Sequence
from typing import Self, cast

import torch
from torch import Tensor, nn

from leanface.config import Distill
from leanface.data.dataset import FaceBatch
from leanface.distillation.losses import AttentionLoss, VertexLoss
from leanface.face.morphable_model import MorphableModel
from leanface.networks.resnet import STAGE_DEPTHS, FaceReconstructionNet, widths_of
from leanface.training.criterion import CoefficientLoss

logger = logging.getLogger(__name__)


class DistillationCriterion(nn.Module):
    """(1 - alpha) * (coefficients + vertices + attention, against the original) + alpha * (the labels).

    Of faces without labels the first bracket alone counts, in full.

    Each term has its weight from the configuration; the labels count as coefficients and vertices do. Holds a
    frozen copy of the original: nothing of it is among the parameters or the state of the network that is
    trained.

    Args:
        teacher: the original network.
        model: the morphable model.
        distill: weights, alpha and temperature.
        kept: the student's pruning record; None if it has all channels.
    """

    def __init__(
        self,
        teacher: FaceReconstructionNet,
        model: MorphableModel,
        distill: Distill,
        kept: Mapping[str, Sequence[int]] | None,
    ) -> None:
        super().__init__()
        self.teacher = copy.deepcopy(teacher)
        # pyright does not know this overload of nn.Module.to
        self.teacher.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.teacher.eval().requires_grad_(False)
        self.settings = distill
        self.coefficients = CoefficientLoss(model)
        self.vertices = VertexLoss(model)
        self.attention = AttentionLoss(distill.temperature)
        for stage, channels in enumerate(_stage_channels(teacher, kept)):
            self.register_buffer(f"channels{stage}", torch.tensor(channels), persistent=False)

    def train(self, mode: bool = True) -> Self:
        """As usual, but the original stays in eval mode: its batch norms must not learn."""
        super().train(mode)
        self.teacher.eval()
        return self

    def forward(self, network: nn.Module, batch: FaceBatch) -> dict[str, Tensor]:
        """Terms by name: "loss", and unweighted "coefficients", "vertices", "attention", "labels"."""
        with torch.no_grad():
            answers, teacher_maps = self.teacher.forward_with_maps(batch.images)
        predicted, maps = cast(FaceReconstructionNet, network).forward_with_maps(batch.images)
        channels = [self.get_buffer(f"channels{stage}") for stage in range(len(maps))]
        terms = {
            "coefficients": self.coefficients(predicted, answers)["loss"],
            "vertices": self.vertices(predicted, answers),
            "attention": self.attention(maps, teacher_maps, channels),
        }
        weights, truth = self.settings, batch.coefficients
        imitation = (
            weights.coefficient_weight * terms["coefficients"]
            + weights.vertex_weight * terms["vertices"]
            + weights.attention_weight * terms["attention"]
        )
        if truth is None:
            _say_that_alpha_is_ignored(weights.alpha)
            return terms | {"loss": imitation}
        labels = weights.coefficient_weight * self.coefficients(predicted, truth)[
            "loss"
        ] + weights.vertex_weight * self.vertices(predicted, truth)
        return terms | {"labels": labels, "loss": (1 - weights.alpha) * imitation + weights.alpha * labels}


@functools.cache  # once, not at every batch
def _say_that_alpha_is_ignored(alpha: float) -> None:
    if alpha > 0:
        logger.warning("the faces have no labels: distill.alpha=%g is ignored, only the original is learnt from", alpha)


def _stage_channels(teacher: FaceReconstructionNet, kept: Mapping[str, Sequence[int]] | None) -> list[Sequence[int]]:
    """The original's channels that survive in the feature maps after each of the four stages."""
    last = [f"backbone.layer{stage}.{depth - 1}.conv3" for stage, depth in enumerate(STAGE_DEPTHS, start=1)]
    return [range(widths_of(teacher)[name][1]) if kept is None else kept[name] for name in last]
