"""What of the original the small network is held to, beside the coefficients."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from leanface.data.synthesis import population
from leanface.face.camera import camera_from_model
from leanface.face.coefficients import EXPRESSION, IDENTITY, split
from leanface.face.morphable_model import MorphableModel
from leanface.metrics.geometry import MM_PER_DM


class VertexLoss(nn.Module):
    """Mean squared distance of posed face vertices, relative to the population's variance of shape in mm^2.

    Vertices are turned by the pose but not translated (depth is hardly visible, and would drown the shape). 1
    is as wrong as the mean face in the right pose.

    Args:
        model: the morphable model.
        samples: face vertices that stand for all; geometry is smooth, so a few hundred do.
    """

    mean: Float[Tensor, "samples 3"]
    basis: Float[Tensor, "144 samples*3"]

    def __init__(self, model: MorphableModel, samples: int = 512) -> None:
        super().__init__()
        index = model.face_mask.nonzero()[:, 0]
        index = index[torch.linspace(0, len(index) - 1, min(samples, len(index)), device=index.device).long()]
        both = torch.cat([model.identity_basis, model.expression_basis])
        basis = both.view(len(both), -1, 3)[:, index].flatten(1) * MM_PER_DM
        _, deviation = population(model)
        spread = torch.cat([deviation[IDENTITY], deviation[EXPRESSION]])
        self.variance_mm2 = float((basis * spread[:, None]).square().sum() / len(index))
        self.register_buffer("mean", model.mean_vertices[index] * MM_PER_DM, persistent=False)
        self.register_buffer("basis", basis.contiguous(), persistent=False)

    def forward(self, predicted: Float[Tensor, "batch 257"], target: Float[Tensor, "batch 257"]) -> Float[Tensor, ""]:
        # In full precision: a millimetre of a decimetre is below bf16's resolution.
        with torch.autocast(predicted.device.type, enabled=False):
            difference = self._posed_mm(predicted.float()) - self._posed_mm(target.float())
            return difference.square().sum(-1).mean() / self.variance_mm2

    def _posed_mm(self, coefficients: Tensor) -> Float[Tensor, "batch samples 3"]:
        parts = split(coefficients)
        offsets = torch.cat([parts.identity, parts.expression], dim=1) @ self.basis
        vertices_mm = self.mean + offsets.view(len(coefficients), -1, 3)
        return camera_from_model(vertices_mm, parts.angles_rad, torch.zeros_like(parts.translation))


class AttentionLoss(nn.Module):
    """Where each surviving channel looks, against the channel of the original that it came from.

    Per image and channel, softmax(activation / T) over positions is a distribution; the loss is the KL
    divergence from the original's to the student's, averaged over images, channels and stages, times T^2,
    which keeps the gradient's size independent of T.

    Source: Shu et al., channel-wise distillation, ICCV 2021 (arXiv:2011.13256); T^2 as in Hinton et al., 2015
    (arXiv:1503.02531).
    """

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(
        self,
        student: Sequence[Float[Tensor, "batch few height width"]],
        teacher: Sequence[Float[Tensor, "batch many height width"]],
        channels: Sequence[Int[Tensor, " few"]],
    ) -> Float[Tensor, ""]:
        """One feature map per stage; `channels` are the original's channels that the student's came from."""
        stages = [
            self._divergence(ours, theirs[:, kept])
            for ours, theirs, kept in zip(student, teacher, channels, strict=True)
        ]
        return torch.stack(stages).mean()

    def _divergence(self, student: Tensor, teacher: Tensor) -> Tensor:
        ours = F.log_softmax(student.flatten(2).float() / self.temperature, dim=-1)
        theirs = F.log_softmax(teacher.flatten(2).float() / self.temperature, dim=-1)
        summed = F.kl_div(ours, theirs, reduction="sum", log_target=True)
        return summed * self.temperature**2 / math.prod(student.shape[:2])
