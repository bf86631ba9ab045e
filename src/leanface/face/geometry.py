"""One head's pose, projection and light, in NumPy: what using a network needs, without PyTorch.

The same as the batched functions of `leanface.face.camera` and `leanface.face.lighting`, to float32 rounding; frames
are described there.

Source of the light's factors: Ramamoorthi and Hanrahan, SIGGRAPH 2001: irradiance is the lighting's first nine
coefficients, each scaled by pi, 2 pi / sqrt(3) or 2 pi / sqrt(8) by band; signs and order as in Deep3DFaceRecon.
"""

import math
from collections.abc import Iterable
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Float, Float32

from leanface.face.coefficients import ANGLES, LIGHTING, TRANSLATION

FOCAL_PX = 1015.0
REFERENCE_SIZE_PX = 224
DISTANCE_DM, DISTANCE_M = 10.0, 1.0
"""The camera of Deep3DFaceRecon: focal length in an image of the reference size, and distance from the origin."""

METERS_PER_DM = 0.1
"""Morphable models and coefficients are in decimeters, what is decoded of them is in meters."""

MIN_AREA_PX2 = 1e-9
"""Twice the area under which a projected triangle counts as seen edge-on."""

_A = (math.pi, 2 * math.pi / math.sqrt(3), 2 * math.pi / math.sqrt(8))
_C = (1 / math.sqrt(4 * math.pi), math.sqrt(3 / (4 * math.pi)), 3 * math.sqrt(5) / math.sqrt(12 * math.pi))
CONSTANT, LINEAR, QUADRATIC = (a * c for a, c in zip(_A, _C, strict=True))
BAND_FACTORS = (
    CONSTANT,
    -LINEAR,
    LINEAR,
    -LINEAR,
    QUADRATIC,
    -QUADRATIC,
    1.5 / math.sqrt(3) * QUADRATIC,
    -QUADRATIC,
    0.5 * QUADRATIC,
)
"""Of 1, y, z, x, xy, yz, zz - 1/3, xz, xx - yy: light's bands as polynomials of the normal (see
`leanface.face.lighting`)."""
BANDS = len(BAND_FACTORS)

Scalars = TypeVar("Scalars", bound=Any)
"""Numbers, or arrays of them."""


def rotation_rows(cos: Iterable[Scalars], sin: Iterable[Scalars]) -> tuple[tuple[Scalars, Scalars, Scalars], ...]:
    """Return the rows of roll @ yaw @ pitch, which acts on column vectors.

    Args:
        cos: of pitch about x, yaw about y and roll about z; `sin` likewise.
    """
    (cx, cy, cz), (sx, sy, sz) = cos, sin
    return (
        (cz * cy, cz * sy * sx - sz * cx, cz * sy * cx + sz * sx),
        (sz * cy, sz * sy * sx + cz * cx, sz * sy * cx - cz * sx),
        (-sy, cy * sx, cy * cx),
    )


def rotation_from_angles(angles_rad: Float[np.ndarray, "3"]) -> Float32[np.ndarray, "3 3"]:
    """Compute one head's rotation from the model's to the camera's frame; acts on column vectors."""
    return np.array(rotation_rows(np.cos(angles_rad), np.sin(angles_rad)), np.float32)


def project(
    vertices_camera: Float[np.ndarray, "vertices 3"], size: int, distance: float = DISTANCE_M
) -> Float[np.ndarray, "vertices 3"]:
    """Project to a square image of `size` pixels: x and y in pixels, and 1 / depth (larger is nearer).

    Args:
        distance: of the camera from the origin, in the vertices' unit: DISTANCE_M or DISTANCE_DM.
    """
    inverse_depth = 1 / (distance - vertices_camera[:, 2])
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
