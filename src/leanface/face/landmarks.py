"""Where the five landmarks of a posed face are seen."""

import torch
from jaxtyping import Float
from torch import Tensor

from leanface.face.camera import camera_from_model, image_from_camera
from leanface.face.coefficients import split
from leanface.face.morphable_model import MorphableModel


def landmarks_image(
    model: MorphableModel, coefficients: Float[Tensor, "batch 257"], size: int
) -> Float[Tensor, "batch 5 2"]:
    """Eyes, nose tip and mouth corners in an image of `size` pixels, also where something hides them.

    x to the right and y down, in pixels, with pixel centres at integers; the order is that of
    `leanface.data.alignment.MEAN_FACE_LANDMARKS_DM`.
    """
    parts = split(coefficients)
    # Three of a basis' columns belong to a vertex.
    columns = (3 * model.landmarks[:, None] + torch.arange(3, device=model.landmarks.device)).flatten()
    offsets = parts.identity @ model.identity_basis[:, columns] + parts.expression @ model.expression_basis[:, columns]
    vertices = model.mean_vertices[model.landmarks] + offsets.view(-1, 5, 3)
    return image_from_camera(camera_from_model(vertices, parts.angles_rad, parts.translation), size)[..., :2]
