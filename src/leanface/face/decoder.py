"""Coefficients to a posed mesh with normals, one face at a time and as fast as the network: the deployed path.

The same as `MorphableModel.vertices`, `vertex_normals` and `camera_from_model`, to float32 rounding. It works on the
coarse mesh that the model is packed as, whose components fit the processor's cache, and subdivides the result:
subdivision is linear.
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from leanface.face.coefficients import ANGLES, COUNT, EXPRESSION, IDENTITY, TRANSLATION
from leanface.face.compiled import compiled
from leanface.face.geometry import METERS_PER_DM, rotation_from_angles
from leanface.face.head_model import HeadModel
from leanface.face.kernels import fill_normals

SHAPE = slice(IDENTITY.start, EXPRESSION.stop)
_COLUMNS = 1024


class DecodedMesh(NamedTuple):
    """One face, in meters. Vertices and normals are in the model's frame, `vertices_camera` in the camera's."""

    vertices: Float[np.ndarray, "vertices 3"]
    vertices_camera: Float[np.ndarray, "vertices 3"]
    normals: Float[np.ndarray, "vertices 3"]
    rotation: Float[np.ndarray, "3 3"]


class Decoder:
    """Decodes with one morphable model's shape. Keeps no state between faces: any threads may share it."""

    def __init__(self, head: HeadModel) -> None:
        """Prepare the model's shape, in meters from here on."""
        count, values = head.components.shape
        padding = -values % _COLUMNS
        meters = np.float32(METERS_PER_DM)
        self._mean = np.pad(meters * head.coarse_mean.ravel(), (0, padding))
        padded = np.pad(meters * head.components, ((0, 0), (0, padding)))
        self._components = np.ascontiguousarray(padded.reshape(count, -1, _COLUMNS).transpose(1, 0, 2))
        self._subdivision = head.subdivision
        self._triangles = head.triangles

    def decode(self, coefficients: Float[np.ndarray, "257"]) -> DecodedMesh:
        """Decode one face's mesh; the arrays are the caller's own.

        Raises:
            ValueError: the coefficients are not float32 (257,).
        """
        if coefficients.shape != (COUNT,) or coefficients.dtype != np.float32:
            raise ValueError(f"expected float32 ({COUNT},), got {coefficients.dtype} {coefficients.shape}")
        vertices = self.vertices(coefficients)
        rotation = rotation_of(coefficients)
        vertices_camera = self.camera(vertices, rotation, coefficients)
        return DecodedMesh(vertices, vertices_camera, self.normals(vertices), rotation)

    def vertices(self, coefficients: Float[np.ndarray, "257"]) -> Float[np.ndarray, "vertices 3"]:
        """Compute the shape in the model's frame."""
        coarse = self._mean.copy()
        _accumulate(np.ascontiguousarray(coefficients[SHAPE]), self._components, coarse)
        vertices = np.empty((len(self._subdivision.starts) - 1, 3), np.float32)
        _subdivide(coarse, *self._subdivision, vertices)
        return vertices

    def camera(
        self,
        vertices: Float[np.ndarray, "vertices 3"],
        rotation: Float[np.ndarray, "3 3"],
        coefficients: Float[np.ndarray, "257"],
    ) -> Float[np.ndarray, "vertices 3"]:
        """Rotate and move vertices into the camera's frame."""
        posed = np.empty_like(vertices)
        _pose(vertices, rotation, translation_of(coefficients), posed)
        return posed

    def normals(self, vertices: Float[np.ndarray, "vertices 3"]) -> Float[np.ndarray, "vertices 3"]:
        """Compute unit normals: the area-weighted mean of the adjacent triangles' normals."""
        normals = np.zeros_like(vertices)
        fill_normals(vertices, self._triangles, normals)
        return normals


def rotation_of(coefficients: Float[np.ndarray, "257"]) -> Float[np.ndarray, "3 3"]:
    """Return one face's rotation from the model's to the camera's frame; acts on column vectors."""
    return rotation_from_angles(coefficients[ANGLES])


def translation_of(coefficients: Float[np.ndarray, "257"]) -> Float[np.ndarray, "3"]:
    """Return one face's translation, in the camera's frame (meters)."""
    return np.float32(METERS_PER_DM) * coefficients[TRANSLATION]


@compiled(fastmath={"contract"})
def _accumulate(factors: Any, components: Any, out: Any) -> None:
    """Add to out (N,) the sum of factors (K,) times components (N/C,K,C), by columns that fit the first cache.

    BLAS would wake threads of its own, which takes longer than the product where others keep the processor busy.
    """
    columns = components.shape[2]
    for block in range(components.shape[0]):
        part = out[block * columns : (block + 1) * columns]
        # Four at a time: that many fewer reads and writes of `part`. The number of components is a multiple of 4.
        for k in range(0, factors.shape[0], 4):
            f0, f1, f2, f3 = factors[k], factors[k + 1], factors[k + 2], factors[k + 3]
            c0, c1, c2, c3 = (
                components[block, k],
                components[block, k + 1],
                components[block, k + 2],
                components[block, k + 3],
            )
            for column in range(columns):
                part[column] += f0 * c0[column] + f1 * c1[column] + f2 * c2[column] + f3 * c3[column]


@compiled(fastmath={"contract"})
def _subdivide(coarse: Any, starts: Any, indices: Any, weights: Any, out: Any) -> None:
    """Fill out (V,3) from the coordinates coarse (3 coarse vertices and more,)."""
    for row in range(out.shape[0]):
        x = y = z = np.float32(0.0)
        for at in range(starts[row], starts[row + 1]):
            weight, place = weights[at], np.uint32(3 * indices[at])
            x += weight * coarse[place]
            y += weight * coarse[place + np.uint32(1)]
            z += weight * coarse[place + np.uint32(2)]
        out[row, 0] = x
        out[row, 1] = y
        out[row, 2] = z


@compiled(fastmath={"contract"})
def _pose(vertices: Any, rotation: Any, translation: Any, out: Any) -> None:
    for row in range(out.shape[0]):
        x, y, z = vertices[row, 0], vertices[row, 1], vertices[row, 2]
        for axis in range(3):
            out[row, axis] = rotation[axis, 0] * x + rotation[axis, 1] * y + rotation[axis, 2] * z + translation[axis]
