"""What training minimizes for a face: errors weighted by what each coefficient moves, 1 for the population's mean.

A plain mean over the 257 coefficients learns the wrong thing: most of them hardly move a vertex. So every group's
error is the fraction of variance unexplained, with each coefficient weighted by its variance on the face (in mm or in
levels of 255), and the groups by their importance to the eye.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from leanface.face.camera import REFERENCE_SIZE_PX, camera_from_model, rotation_from_angles
from leanface.face.coefficients import COUNT, EXPRESSION, IDENTITY, LAYOUT, split
from leanface.face.errors import MM_PER_DM, face_bases
from leanface.face.landmarks import landmarks_image
from leanface.face.lighting import shade, vertex_normals
from leanface.face.morphable_model import MorphableModel, columns_of
from leanface.synthesis.synthesis import population, sample_coefficients
from leanface.task import Batch

GROUP_WEIGHTS = {
    "identity": 1.0,
    "expression": 1.0,
    "albedo": 1.0,
    "angles": 1.0,
    "lighting": 0.5,
    "translation": 0.5,
}


class CoefficientLoss(nn.Module):
    """Fraction of variance unexplained per group of coefficients, and their weighted sum as "loss"."""

    weights: Float[Tensor, "257"]
    group_weights: Float[Tensor, "257"]

    def __init__(self, model: MorphableModel) -> None:
        super().__init__()
        weights = torch.zeros(COUNT, device=model.mean_vertices.device)
        group_weights = torch.zeros_like(weights)
        _, deviation = population(model)
        bases = face_bases(model)
        for name, part in LAYOUT.items():
            group_weights[part] = GROUP_WEIGHTS[name]
            if name in bases:
                # Variance that one sigma causes, over the group's total; the population's own sigma is close to 1.
                weights[part] = bases[name].square().sum(1) / (bases[name].square().sum(1) * deviation[part] ** 2).sum()
            else:
                weights[part] = 1.0 / deviation[part].square() / (part.stop - part.start)
        self.register_buffer("weights", weights, persistent=False)
        self.register_buffer("group_weights", group_weights, persistent=False)

    def forward(
        self, predicted: Float[Tensor, "batch 257"], target: Float[Tensor, "batch 257"]
    ) -> dict[str, Float[Tensor, ""]]:
        squared = (predicted.float() - target.float()).square().mean(0) * self.weights
        terms = {name: squared[part].sum() for name, part in LAYOUT.items()}
        terms["loss"] = (squared * self.group_weights).sum()
        return terms

    def per_sample(
        self, predicted: Float[Tensor, "batch 257"], target: Float[Tensor, "batch 257"]
    ) -> Float[Tensor, " batch"]:
        """Return the loss of each face."""
        return ((predicted.float() - target.float()).square() * self.weights) @ self.group_weights


class PhotometricLoss(nn.Module):
    """Color error of shaded face vertices, relative to the population's variance.

    Albedo times light is what a photo shows; this term ties the two together, so that an error in one is not paid
    for twice. Both readings are shaded with the mean face's normals under the true pose: cheap, and zero if they agree.
    """

    def __init__(self, model: MorphableModel, samples: int = 512) -> None:
        super().__init__()
        index = model.face_mask.nonzero()[:, 0]
        index = index[torch.linspace(0, len(index) - 1, samples, device=index.device).long()]
        normals = vertex_normals(model.mean_vertices[None], model.triangles)[:, index]
        self.register_buffer("normals", normals, persistent=False)
        self.register_buffer("mean", model.mean_albedo[index], persistent=False)
        self.register_buffer("basis", model.albedo_basis[:, columns_of(index)].contiguous(), persistent=False)

    normals: Tensor
    mean: Tensor
    basis: Tensor

    def _colors(self, coefficients: Tensor, rotation: Tensor) -> Tensor:
        parts = split(coefficients)
        albedo = self.mean + (parts.albedo @ self.basis).view(len(coefficients), -1, 3)
        return shade(albedo, self.normals @ rotation.transpose(1, 2), parts.lighting)

    def forward(self, predicted: Float[Tensor, "batch 257"], target: Float[Tensor, "batch 257"]) -> Float[Tensor, ""]:
        return self.per_sample(predicted, target).mean()

    def per_sample(
        self, predicted: Float[Tensor, "batch 257"], target: Float[Tensor, "batch 257"]
    ) -> Float[Tensor, " batch"]:
        """Return the loss of each face."""
        with torch.autocast(predicted.device.type, enabled=False):
            rotation = rotation_from_angles(split(target).angles_rad)
            truth = self._colors(target.float(), rotation)
            difference = self._colors(predicted.float(), rotation) - truth
            return difference.square().mean((1, 2)) / truth.var().clamp_min(1e-4)


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

    def per_sample(
        self, predicted: Float[Tensor, "batch 257"], target: Float[Tensor, "batch 257"]
    ) -> Float[Tensor, " batch"]:
        # In full precision: a millimeter of a decimeter is below bf16's resolution.
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

    def per_sample(
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
"""Error terms by name; each has `per_sample(predicted, target)`, from two readings (B,257) to (B,)."""


class SupervisedCriterion(nn.Module):
    """Coefficients and shaded colors against ground truth."""

    def __init__(self, model: MorphableModel, photometric_weight: float) -> None:
        super().__init__()
        self.coefficients = CoefficientLoss(model)
        self.photometric = PhotometricLoss(model)
        self.photometric_weight = photometric_weight

    def forward(self, network: nn.Module, batch: Batch) -> dict[str, Tensor]:
        assert batch.targets is not None  # the configuration refuses to train a teacher on photos
        predicted = network(batch.images).float()
        terms = self.coefficients(predicted, batch.targets)
        terms["photometric"] = self.photometric(predicted, batch.targets)
        terms["loss"] = terms["loss"] + self.photometric_weight * terms["photometric"]
        return terms
