"""How far a reading's five landmarks are from where they were seen, in pixels and relative to the face."""

from jaxtyping import Float
from torch import Tensor

from leanface.face.camera import image_from_camera
from leanface.face.morphable_model import MorphableModel


def interocular_px(model: MorphableModel, size: int) -> float:
    """Return the distance between the mean face's eyes where the alignment puts them.

    As the alignment brings every face to the mean face's scale, this one distance serves renders and photos alike, and,
    unlike the distance seen, does not shrink as the head turns.
    """
    eyes = image_from_camera(model.mean_vertices[model.landmarks[:2]][None], size)[0, :, :2]
    return float((eyes[0] - eyes[1]).square().sum().sqrt())


def landmark_errors(
    points: Float[Tensor, "batch 5 2"], seen: Float[Tensor, "batch 5 2"], eye_distance_px: float
) -> dict[str, Float[Tensor, " batch"]]:
    """Measure landmark_px, the mean distance of the five, and landmark_nme, in percent of the interocular distance."""
    distance_px = (points - seen).square().sum(-1).sqrt().mean(1)
    return {"landmark_px": distance_px, "landmark_nme": 100 * distance_px / eye_distance_px}
