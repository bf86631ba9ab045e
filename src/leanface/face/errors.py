"""Measure how far two predictions of a face are apart, in millimeters, levels of 255 and degrees."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from leanface.face.camera import camera_from_model, rotation_from_angles
from leanface.face.coefficients import ALBEDO, EXPRESSION, IDENTITY, split
from leanface.face.morphable_model import MorphableModel, per_model

MM_PER_DM = 100.0
LEVELS = 255.0
_CHUNK = 64


def face_bases(model: MorphableModel) -> dict[str, Float[Tensor, "components columns"]]:
    """Scale components on the face region: a row's norm is the RMS over its vertices of one sigma's effect.

    Identity and expression count millimeters (of the vertex displacement), albedo levels of 255 (per channel).
    """
    mask = model.face_mask
    count = int(mask.sum())

    def rows(basis: Tensor, scale: float) -> Tensor:
        return basis.view(len(basis), -1, 3)[:, mask].flatten(1) * scale

    return {
        "identity": rows(model.identity_basis, MM_PER_DM / math.sqrt(count)),
        "expression": rows(model.expression_basis, MM_PER_DM / math.sqrt(count)),
        "albedo": rows(model.albedo_basis, LEVELS / math.sqrt(3 * count)),
    }


@per_model
def _grams(model: MorphableModel) -> dict[str, Float[Tensor, "components components"]]:
    """Multiply the rows of `face_bases` with each other: a thousandth of the numbers, which say as much of errors."""
    return {name: basis @ basis.T for name, basis in face_bases(model).items()}


def rotation_angle_deg(a_rad: Float[Tensor, "batch 3"], b_rad: Float[Tensor, "batch 3"]) -> Float[Tensor, " batch"]:
    """Compute the angle of the rotation that leads from one pose to the other."""
    relative = rotation_from_angles(a_rad.double()).transpose(1, 2) @ rotation_from_angles(b_rad.double())
    cosine = (relative.diagonal(dim1=1, dim2=2).sum(-1) - 1) / 2
    return torch.rad2deg(cosine.clamp(-1, 1).acos()).float()


@torch.no_grad()
def geometry_errors(
    model: MorphableModel, predicted: Float[Tensor, "batch 257"], truth: Float[Tensor, "batch 257"]
) -> dict[str, Float[Tensor, " batch"]]:
    """Compute errors per sample over the face region.

    identity_mm and expression_mm: RMS vertex displacement by that group alone; vertex_mm: mean vertex distance of the
    whole shape in the model's frame; posed_mm: the same after rotation (no translation); nme: vertex_mm in percent of
    the true outer eye distance is not defined on this model, so of the distance between the eyeball landmarks;
    albedo_levels: RMS; rotation_deg: geodesic; translation_mm: distance.
    """
    grams, errors = _grams(model), dict[str, Tensor]()
    for name, part in (("identity_mm", IDENTITY), ("expression_mm", EXPRESSION), ("albedo_levels", ALBEDO)):
        delta = predicted[:, part] - truth[:, part]
        errors[name] = ((delta @ grams[name.split("_")[0]]) * delta).sum(1).clamp_min(0).sqrt()
    distances = [
        _vertex_distances(model, predicted[start : start + _CHUNK], truth[start : start + _CHUNK])
        for start in range(0, len(predicted), _CHUNK)
    ]
    for index, name in enumerate(("vertex_mm", "posed_mm", "nme")):
        errors[name] = torch.cat([chunk[index] for chunk in distances])
    a, b = split(predicted), split(truth)
    errors["rotation_deg"] = rotation_angle_deg(a.angles_rad, b.angles_rad)
    errors["translation_mm"] = (a.translation - b.translation).norm(dim=1) * MM_PER_DM
    return errors


def _vertex_distances(model: MorphableModel, predicted: Tensor, truth: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    a, b = split(predicted), split(truth)
    va, vb = model.vertices(a.identity, a.expression), model.vertices(b.identity, b.expression)
    eyes = vb[:, model.landmarks[:2]]
    between_eyes = (eyes[:, 0] - eyes[:, 1]).square().sum(-1).sqrt()
    va, vb = va[:, model.face_mask], vb[:, model.face_mask]
    zero = torch.zeros_like(a.translation)
    posed = camera_from_model(va, a.angles_rad, zero) - camera_from_model(vb, b.angles_rad, zero)
    vertex = (va - vb).square().sum(-1).sqrt().mean(1)
    posed = posed.square().sum(-1).sqrt().mean(1)
    return vertex * MM_PER_DM, posed * MM_PER_DM, 100 * vertex / between_eyes


@torch.no_grad()
def vertex_errors_mm(
    model: MorphableModel, predicted: Float[Tensor, "batch 257"], truth: Float[Tensor, "batch 257"]
) -> Float[Tensor, " vertices"]:
    """Average every vertex's distance over the samples, shape only, in the model's frame."""
    total = torch.zeros(model.vertex_count, device=predicted.device)
    for start in range(0, len(predicted), _CHUNK):
        a, b = split(predicted[start : start + _CHUNK]), split(truth[start : start + _CHUNK])
        offsets = model.vertices(a.identity, a.expression) - model.vertices(b.identity, b.expression)
        total += offsets.square().sum(-1).sqrt().sum(0)
    return total / len(predicted) * MM_PER_DM
