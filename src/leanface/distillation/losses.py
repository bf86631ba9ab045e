"""What of a reading the small network is held to: errors per face, each of which is 1 for the population's mean."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from leanface.face.camera import REFERENCE_SIZE_PX, camera_from_model
from leanface.face.coefficients import EXPRESSION, IDENTITY, split
from leanface.face.landmarks import landmarks_image
from leanface.face.morphable_model import MorphableModel, columns_of
from leanface.metrics.geometry import MM_PER_DM
from leanface.synthesis.synthesis import population, sample_coefficients
from leanface.training.criterion import CoefficientLoss, PhotometricLoss


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

    def per_face(
        self, predicted: Float[Tensor, "batch 257"], target: Float[Tensor, "batch 257"]
    ) -> Float[Tensor, " batch"]:
        # In full precision: a millimetre of a decimetre is below bf16's resolution.
        with torch.autocast(predicted.device.type, enabled=False):
            difference = self._posed_mm(predicted.float()) - self._posed_mm(target.float())
            return difference.square().sum(-1).mean(1) / self.variance_mm2

    def _posed_mm(self, coefficients: Tensor) -> Float[Tensor, "batch samples 3"]:
        parts = split(coefficients)
        offsets = torch.cat([parts.identity, parts.expression], dim=1) @ self.basis
        vertices_mm = self.mean + offsets.view(len(coefficients), -1, 3)
        return camera_from_model(vertices_mm, parts.angles_rad, torch.zeros_like(parts.translation))


class LandmarkLoss(nn.Module):
    """Mean squared distance in the image of the five landmarks, relative to the population's variance of them.

    Pose, translation and shape must agree for a landmark to be in its place. Alignment brings every face's
    landmarks nearly to the same places, so the population's variance is small and the loss is strict.
    """

    SAMPLES = 1024

    def __init__(self, model: MorphableModel) -> None:
        super().__init__()
        # Five vertices of the model, so that all of it need not be kept.
        columns = columns_of(model.landmarks)
        self.model = MorphableModel(
            mean_vertices=model.mean_vertices[model.landmarks],
            identity_basis=model.identity_basis[:, columns],
            expression_basis=model.expression_basis[:, columns],
            mean_albedo=model.mean_albedo[model.landmarks],
            albedo_basis=model.albedo_basis[:, columns],
            triangles=model.triangles[:0],
            uv=model.uv[:5],
            face_mask=model.face_mask[model.landmarks],
            landmarks=torch.arange(5, device=model.landmarks.device),
        )
        generator = torch.Generator(model.mean_vertices.device).manual_seed(0)
        points = landmarks_image(model, sample_coefficients(model, self.SAMPLES, generator), REFERENCE_SIZE_PX)
        self.variance_px2 = float((points - points.mean(0)).square().sum(-1).mean())

    def per_face(
        self, predicted: Float[Tensor, "batch 257"], target: Float[Tensor, "batch 257"]
    ) -> Float[Tensor, " batch"]:
        with torch.autocast(predicted.device.type, enabled=False):
            ours, theirs = (
                landmarks_image(self.model, each.float(), REFERENCE_SIZE_PX) for each in (predicted, target)
            )
            return (ours - theirs).square().sum(-1).mean(1) / self.variance_px2


TERMS: dict[str, Callable[[MorphableModel], nn.Module]] = {
    "coefficients": CoefficientLoss,
    "vertices": VertexLoss,
    "landmarks": LandmarkLoss,
    "photometric": PhotometricLoss,
}
"""Errors by name; each has `per_face(predicted, target)`, from two readings (B,257) to (B,)."""
