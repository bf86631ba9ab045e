"""The Basel Face Model in Deep3DFaceRecon's form, BFM_model_front.mat, as a `MorphableModel`.

Its license forbids shipping it: the file is the user's own, made by Deep3DFaceRecon's transferBFM09 or found in
ModelScope's snapshot. It holds 35,709 vertices in decimeters, components that count standard deviations, colors up
to 255, and MATLAB's indices, which start at 1.

Source: https://github.com/sicxu/Deep3DFaceRecon_pytorch, util/load_mats.py (layout) and models/bfm.py (frame).
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy import io

from leanface.errors import ArtifactError
from leanface.face.morphable_model import MorphableModel

# Its own types leave everything open.
_loadmat: Any = io.loadmat  # pyright: ignore[reportUnknownVariableType]

COMPONENTS = {"idBase": 80, "exBase": 64, "texBase": 80}
"""Columns of each basis, which has three rows per vertex."""

LANDMARKS_68 = 68
EYE_CORNERS = ((36, 39), (42, 45))
NOSE_TIP = 30
MOUTH_CORNERS = (48, 54)
"""Where the five landmarks are among the 68, counted from 0; left is left in the image."""


def load_basel(path: Path) -> MorphableModel:
    """Read BFM_model_front.mat.

    As in Deep3DFaceRecon, the origin is the mean of the mean face's vertices. Texture coordinates, which the file
    lacks, unwrap the mean face onto an upright cylinder.

    Raises:
        ArtifactError: the file is missing, is no MAT file, or has another layout.
    """
    arrays = _read(path)
    mean = arrays["meanshape"].reshape(-1, 3).astype(np.float32)
    mean -= mean.mean(axis=0)
    triangles = _indices(path, arrays, "tri", len(mean)).reshape(-1, 3)
    face_mask = np.zeros(len(mean), bool)
    face_mask[_indices(path, arrays, "frontmask2_idx", len(mean))] = True
    return MorphableModel(
        mean_vertices=torch.from_numpy(mean),
        identity_basis=_basis(arrays["idBase"]),
        expression_basis=_basis(arrays["exBase"]),
        mean_albedo=torch.from_numpy(arrays["meantex"].reshape(-1, 3).astype(np.float32) / np.float32(255)),
        albedo_basis=_basis(arrays["texBase"]) / 255,
        triangles=torch.from_numpy(_facing(mean, triangles)),
        uv=torch.from_numpy(cylindrical_uv(mean)),
        face_mask=torch.from_numpy(face_mask),
        landmarks=torch.from_numpy(_landmarks(mean, _indices(path, arrays, "keypoints", len(mean)))),
    )


def cylindrical_uv(vertices: Float[np.ndarray, "vertices 3"]) -> Float[np.ndarray, "vertices 2"]:
    """Return the angle about an upright axis, and the height, both scaled to [0,1].

    The axis goes through the middle of the rearmost plane: so a face, which is open at the back, is never cut.
    """
    x, y, z = vertices.T
    around = np.stack([np.arctan2(x, z - z.min()), y], axis=1)
    low, high = around.min(axis=0), around.max(axis=0)
    return ((around - low) / (high - low)).astype(np.float32)


def _read(path: Path) -> dict[str, np.ndarray]:
    try:
        with path.open("rb") as file:
            arrays: dict[str, np.ndarray] = _loadmat(file)
    except FileNotFoundError:
        raise ArtifactError(
            f"{path} is missing. Put your own copy of the Basel Face Model there (BFM_model_front.mat, made by "
            "Deep3DFaceRecon or from ModelScope's snapshot), or set data.morphable_model to where it is."
        ) from None
    except Exception as error:  # scipy raises its own, ValueError, TypeError, zlib.error, NotImplementedError, ...
        raise ArtifactError(f"{path} is not a MAT file that SciPy reads ({error}); copy it again.") from None
    wanted = ("meanshape", "meantex", *COMPONENTS, "tri", "keypoints", "frontmask2_idx")
    if missing := [name for name in wanted if name not in arrays]:
        raise _other_layout(path, f"{', '.join(missing)} missing")
    rows = arrays["meanshape"].size
    shapes = {"meanshape": (rows // 3 * 3,), "meantex": (rows,)}
    shapes |= {name: (rows, columns) for name, columns in COMPONENTS.items()}
    for name, shape in shapes.items():
        found = arrays[name].shape if len(shape) == 2 else (arrays[name].size,)
        if found != shape:
            raise _other_layout(path, f"{name} is {found}, not {shape}")
        if not np.isfinite(arrays[name]).all():
            raise _other_layout(path, f"{name} holds numbers that are not finite")
    if arrays["keypoints"].size != LANDMARKS_68:
        raise _other_layout(path, f"{arrays['keypoints'].size} keypoints, not {LANDMARKS_68}")
    return arrays


def _indices(path: Path, arrays: dict[str, np.ndarray], name: str, count: int) -> Int[np.ndarray, " indices"]:
    """Return vertex indices, counted from 0."""
    indices = arrays[name].astype(np.int64).ravel() - 1
    if indices.size == 0 or indices.min() < 0 or indices.max() >= count:
        raise _other_layout(path, f"{name} does not index {count} vertices from 1 on")
    return indices


def _other_layout(path: Path, what: str) -> ArtifactError:
    return ArtifactError(f"{path} is not a BFM_model_front.mat: {what}. Make it with Deep3DFaceRecon's transferBFM09.")


def _basis(columns: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(columns.T, dtype=np.float32))


def _facing(
    vertices: Float[np.ndarray, "vertices 3"], triangles: Int[np.ndarray, "triangles 3"]
) -> Int[np.ndarray, "triangles 3"]:
    """Wind triangles so that the face looks along +z: Deep3DFaceRecon draws both sides, our rasterizer one."""
    a, b, c = (vertices[triangles[:, corner], :2] for corner in range(3))
    first, second = b - a, c - a
    area = (first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]).sum()
    return triangles if area > 0 else np.ascontiguousarray(triangles[:, ::-1])


def _landmarks(vertices: Float[np.ndarray, "vertices 3"], keypoints: Int[np.ndarray, "68"]) -> Int[np.ndarray, "5"]:
    """Pick eyes, nose tip and mouth corners; an eye is the vertex nearest to the middle of its corners."""
    middles = [vertices[keypoints[list(corners)]].mean(axis=0) for corners in EYE_CORNERS]
    eyes = [int(np.square(vertices - middle).sum(axis=1).argmin()) for middle in middles]
    return np.array([*eyes, keypoints[NOSE_TIP], *keypoints[list(MOUTH_CORNERS)]])
