"""One head's pose, projection, normals and light, in NumPy: what using a network needs, without PyTorch.

The same as the batched functions of `leanface.face.camera` and `leanface.face.lighting`, to float32 rounding; frames
and units are described there.
"""

import math

import numpy as np
from jaxtyping import Float, Float32

from leanface.face.coefficients import ANGLES, LIGHTING, TRANSLATION

FOCAL_PX = 1015.0
REFERENCE_SIZE_PX = 224
DISTANCE_DM = 10.0
"""The camera of Deep3DFaceRecon: focal length in an image of the reference size, and distance from the origin."""


def project(vertices_camera: Float[np.ndarray, "vertices 3"], size: int) -> Float[np.ndarray, "vertices 3"]:
    """Project to a square image of `size` pixels: x and y in pixels, and 1 / depth in 1/dm (larger is nearer)."""
    inverse_depth = 1 / (DISTANCE_DM - vertices_camera[:, 2])
    focal = FOCAL_PX * size / REFERENCE_SIZE_PX
    center = (size - 1) / 2
    projected = np.empty_like(vertices_camera)
    projected[:, 0] = vertices_camera[:, 0] * inverse_depth * focal + center
    projected[:, 1] = vertices_camera[:, 1] * inverse_depth * -focal + center
    projected[:, 2] = inverse_depth
    return projected


def rolled(coefficients: Float32[np.ndarray, "257"], roll_rad: float) -> Float32[np.ndarray, "257"]:
    """Turn a head, its place and its light about the camera's axis, counterclockwise as the camera sees it.

    Returns:
        New coefficients, of what the same picture shows when it is turned about its middle.
    """
    turned = coefficients.copy()
    turned[ANGLES.stop - 1] += roll_rad  # roll is the outermost of the three rotations
    x, y = TRANSLATION.start, TRANSLATION.start + 1
    turned[[x, y]] = _rotated(coefficients[x], coefficients[y], roll_rad)
    # Of the nine bands 1, y, z, x, xy, yz, zz, xz, xx - yy (see `leanface.face.lighting`) three pairs turn.
    bands, light = turned[LIGHTING].reshape(9, 3), coefficients[LIGHTING].reshape(9, 3)
    bands[[3, 1]] = _rotated(light[3], light[1], roll_rad)
    bands[[7, 5]] = _rotated(light[7], light[5], roll_rad)
    bands[[8, 4]] = _rotated(light[8], light[4], 2 * roll_rad)
    return turned


def _rotated(x: np.ndarray, y: np.ndarray, angle_rad: float) -> tuple[np.ndarray, np.ndarray]:
    cos, sin = math.cos(angle_rad), math.sin(angle_rad)
    return cos * x - sin * y, sin * x + cos * y
