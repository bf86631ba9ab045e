"""Where the five landmarks of a posed face are seen."""

from jaxtyping import Float
from torch import Tensor

from leanface.face.camera import camera_from_model, image_from_camera
from leanface.face.coefficients import split
from leanface.face.morphable_model import MorphableModel, columns_of


def landmark_vertices(
    model: MorphableModel, identity: Float[Tensor, "batch 80"], expression: Float[Tensor, "batch 64"]
) -> Float[Tensor, "batch 5 3"]:
    """Compute the five vertices in the model's frame, in decimeters: `model.vertices` of these alone."""
    columns = columns_of(model.landmarks)
    offsets = identity @ model.identity_basis[:, columns] + expression @ model.expression_basis[:, columns]
    return model.mean_vertices[model.landmarks] + offsets.view(-1, 5, 3)


def landmarks_image(
    model: MorphableModel, coefficients: Float[Tensor, "batch 257"], size: int
) -> Float[Tensor, "batch 5 2"]:
    """Project eyes, nose tip and mouth corners into an image of `size` pixels, also where something hides them.

    x to the right and y down, in pixels, with pixel centers at integers; the order is that of
    `leanface.photos.alignment.MEAN_FACE_LANDMARKS_DM`.
    """
    parts = split(coefficients)
    vertices = landmark_vertices(model, parts.identity, parts.expression)
    return image_from_camera(camera_from_model(vertices, parts.angles_rad, parts.translation), size)[..., :2]
