"""The packed morphable model as NumPy arrays: what using a network needs, without PyTorch.

Units are decimeters; x points to the image's right, y up and z towards the camera.
"""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from leanface.errors import ArtifactError
from leanface.paths import PACKAGED_MORPHABLE_MODEL

FORMAT_VERSION = 1


class Subdivision(NamedTuple):
    """A sparse matrix by rows: each vertex is a weighted mean of coarse ones."""

    starts: Int[np.ndarray, " vertices+1"]
    """Where each row begins, and the last one ends, in the two others."""
    indices: Int[np.ndarray, " entries"]
    weights: Float32[np.ndarray, " entries"]

    def apply(self, values: Float32[np.ndarray, "coarse channels"]) -> Float32[np.ndarray, "vertices channels"]:
        """Carry values from the coarse vertices to all."""
        counts = np.diff(self.starts)
        result = np.zeros((len(counts), values.shape[1]), np.float32)
        for place in range(counts.max()):  # rows are short
            rows = np.flatnonzero(counts > place)
            entries = self.starts[rows] + place
            result[rows] += self.weights[entries, None] * values[self.indices[entries]]
        return result


@dataclass(frozen=True, eq=False)
class HeadModel:
    """Identity and expression as components of a coarse mesh, which is subdivided; albedo and layout of the fine one.

    Attributes:
        coarse_mean: mean face of the coarse mesh.
        components: identity (80), then expression (64): what one standard deviation of each moves.
        subdivision: leads from the coarse mesh to the fine one.
        mean_albedo: sRGB in [0,1], like `albedo_components` under white light.
        uv: texture coordinates, v up.
        face_mask: which vertices belong to the face: not to the neck, the ears or the back of the head.
        landmarks: image-left eye, image-right eye, nose tip, image-left and image-right mouth corner.
    """

    coarse_mean: Float32[np.ndarray, "coarse 3"]
    components: Float32[np.ndarray, "144 coarse*3"]
    subdivision: Subdivision
    mean_albedo: Float32[np.ndarray, "vertices 3"]
    albedo_components: Float32[np.ndarray, "80 vertices*3"]
    triangles: Int[np.ndarray, "triangles 3"]
    uv: Float32[np.ndarray, "vertices 2"]
    face_mask: Bool[np.ndarray, " vertices"]
    landmarks: Int[np.ndarray, "5"]

    @functools.cached_property
    def mean_vertices(self) -> Float32[np.ndarray, "vertices 3"]:
        """The mean face."""
        return self.subdivision.apply(self.coarse_mean)

    @functools.cached_property
    def face_triangles(self) -> Int[np.ndarray, "triangles 3"]:
        """Those of `triangles` that lie in the face region."""
        return self.triangles[self.face_mask[self.triangles].all(1)]

    def albedo(self, albedo: Float[np.ndarray, "80"]) -> Float32[np.ndarray, "vertices 3"]:
        """Compute one face's skin color under white light, clipped to [0,1]."""
        return (self.mean_albedo + (albedo @ self.albedo_components).reshape(-1, 3)).clip(0, 1)


def load_head_model(path: Path = PACKAGED_MORPHABLE_MODEL) -> HeadModel:
    """Read a packed model.

    Raises:
        ArtifactError: the file is missing, truncated or of another format.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as packed:
            arrays = {name: packed[name] for name in packed.files}
    except FileNotFoundError:
        raise ArtifactError(f"{path} is missing; {_remedy(path)}.") from None
    except Exception as error:  # numpy raises zipfile, zlib, OSError or ValueError, depending on where it is cut
        raise ArtifactError(f"{path} is not a packed morphable model ({error}); {_remedy(path)}.") from None
    version = int(arrays.get("format_version", -1))
    if version != FORMAT_VERSION:
        raise ArtifactError(f"{path} has format {version}, expected {FORMAT_VERSION}; {_remedy(path)}.")
    return HeadModel(
        coarse_mean=arrays["mean_vertices"].astype(np.float32),
        components=np.concatenate([_components(arrays, "identity"), _components(arrays, "expression")]),
        subdivision=Subdivision(
            arrays["subdivision_indptr"].astype(np.int32),
            arrays["subdivision_indices"].astype(np.int32),
            arrays["subdivision_data"].astype(np.float32),
        ),
        mean_albedo=arrays["albedo_mean"].astype(np.float32),
        albedo_components=_components(arrays, "albedo"),
        triangles=arrays["triangles"].astype(np.int32),
        uv=arrays["uv"].astype(np.float32),
        face_mask=arrays["face_mask"].astype(bool),
        landmarks=arrays["landmarks"].astype(np.int64),
    )


def _components(arrays: dict[str, np.ndarray], name: str) -> Float32[np.ndarray, "components columns"]:
    return arrays[f"{name}_q"].astype(np.float32) * arrays[f"{name}_scale"].astype(np.float32)[:, None]


def _remedy(path: Path) -> str:
    return "reinstall LeanFace" if path == PACKAGED_MORPHABLE_MODEL else "rebuild it with `dvc repro -f prepare`"
