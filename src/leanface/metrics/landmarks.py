"""The five landmarks in the picture: where coefficients put them, and how far from where they were seen."""

import torch
from jaxtyping import Float
from torch import Tensor

from leanface.face.camera import camera_from_model, image_from_camera
from leanface.face.coefficients import split
from leanface.face.morphable_model import MorphableModel


def landmark_points(
    model: MorphableModel, coefficients: Float[Tensor, "batch 257"], size: int
) -> Float[Tensor, "batch 5 2"]:
    """The model's landmarks, projected into a picture of `size` pixels: x right, y down, pixel centres at integers."""
    parts = split(coefficients)
    index = (model.landmarks[:, None] * 3 + torch.arange(3, device=model.landmarks.device)).flatten()
    offsets = parts.identity @ model.identity_basis[:, index] + parts.expression @ model.expression_basis[:, index]
    shape = model.mean_vertices[model.landmarks] + offsets.view(-1, len(model.landmarks), 3)
    return image_from_camera(camera_from_model(shape, parts.angles_rad, parts.translation), size)[..., :2]


def interocular_px(model: MorphableModel, size: int) -> float:
    """Distance between the mean face's eyes where the alignment puts them.

    As the alignment brings every face to the mean face's scale, this one distance serves renders and photos alike, and,
    unlike the distance seen, does not shrink as the head turns.
    """
    eyes = image_from_camera(model.mean_vertices[model.landmarks[:2]][None], size)[0, :, :2]
    return float((eyes[0] - eyes[1]).square().sum().sqrt())


def landmark_errors(
    points: Float[Tensor, "batch 5 2"], seen: Float[Tensor, "batch 5 2"], eye_distance_px: float
) -> dict[str, Float[Tensor, " batch"]]:
    """landmark_px: mean distance of the five; landmark_nme: the same in percent of the interocular distance."""
    distance_px = (points - seen).square().sum(-1).sqrt().mean(1)
    return {"landmark_px": distance_px, "landmark_nme": 100 * distance_px / eye_distance_px}
