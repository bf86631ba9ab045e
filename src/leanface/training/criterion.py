"""What is minimised: errors weighted by what each coefficient moves.

A plain mean over the 257 coefficients learns the wrong thing: most of them hardly move a vertex. So every group's
error is the fraction of variance unexplained, with each coefficient weighted by its variance on the face (in mm or in
levels of 255), and the groups by their importance to the eye.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from leanface.face.camera import rotation_from_angles
from leanface.face.coefficients import COUNT, LAYOUT, split
from leanface.face.lighting import shade, vertex_normals
from leanface.face.morphable_model import MorphableModel, columns_of
from leanface.metrics.geometry import face_bases
from leanface.synthesis.dataset import FaceBatch
from leanface.synthesis.synthesis import population

Criterion = Callable[[nn.Module, FaceBatch], dict[str, Tensor]]
"""(network, batch) -> named terms; "loss" is minimised, the others are logged."""

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

    def per_face(
        self, predicted: Float[Tensor, "batch 257"], target: Float[Tensor, "batch 257"]
    ) -> Float[Tensor, " batch"]:
        """ "loss" of each face."""
        return ((predicted.float() - target.float()).square() * self.weights) @ self.group_weights


class PhotometricLoss(nn.Module):
    """Colour error of shaded face vertices, relative to the population's variance.

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

    def _colours(self, coefficients: Tensor, rotation: Tensor) -> Tensor:
        parts = split(coefficients)
        albedo = self.mean + (parts.albedo @ self.basis).view(len(coefficients), -1, 3)
        return shade(albedo, self.normals @ rotation.transpose(1, 2), parts.lighting)

    def forward(self, predicted: Float[Tensor, "batch 257"], target: Float[Tensor, "batch 257"]) -> Float[Tensor, ""]:
        return self.per_face(predicted, target).mean()

    def per_face(
        self, predicted: Float[Tensor, "batch 257"], target: Float[Tensor, "batch 257"]
    ) -> Float[Tensor, " batch"]:
        """The loss of each face."""
        with torch.autocast(predicted.device.type, enabled=False):
            rotation = rotation_from_angles(split(target).angles_rad)
            truth = self._colours(target.float(), rotation)
            difference = self._colours(predicted.float(), rotation) - truth
            return difference.square().mean((1, 2)) / truth.var().clamp_min(1e-4)


class SupervisedCriterion(nn.Module):
    """Coefficients and shaded colours against ground truth."""

    def __init__(self, model: MorphableModel, photometric_weight: float) -> None:
        super().__init__()
        self.coefficients = CoefficientLoss(model)
        self.photometric = PhotometricLoss(model)
        self.photometric_weight = photometric_weight

    def forward(self, network: nn.Module, batch: FaceBatch) -> dict[str, Tensor]:
        assert batch.coefficients is not None  # the configuration refuses to train a teacher on photos
        predicted = network(batch.images).float()
        terms = self.coefficients(predicted, batch.coefficients)
        terms["photometric"] = self.photometric(predicted, batch.coefficients)
        terms["loss"] = terms["loss"] + self.photometric_weight * terms["photometric"]
        return terms
