"""One head's pose, projection, normals and light, in NumPy: what using a network needs, without PyTorch.

The same as the batched functions of `leanface.face.camera` and `leanface.face.lighting`, to float32 rounding; frames
and units are described there.
"""

import numpy as np
from jaxtyping import Float

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
