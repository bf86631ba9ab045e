"""Left for right: which vertex is whose mirror image, and what a reading of the mirrored photo should be."""

from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.spatial import KDTree
from torch import Tensor

from leanface.face.coefficients import split
from leanface.face.errors import LEVELS, MM_PER_DM, rotation_angle_deg
from leanface.face.morphable_model import MorphableModel, per_model


class Mirror(NamedTuple):
    """Each vertex's counterpart on the other side.

    Attributes:
        partner: its index.
        symmetric: whether the pairs are mutual, as on a symmetric mesh. Otherwise the nearest vertex stands in.
        residual_mm: how far, at worst in the face region, a vertex's mirror image is from its partner: what is measured
            through the pairs is off by no more.
    """

    partner: Int[Tensor, " vertices"]
    symmetric: bool
    residual_mm: float


@per_model
def mirror_of(model: MorphableModel) -> Mirror:
    """Pair the vertices by where they are in the mean face, over the plane x = 0."""
    points = model.mean_vertices.double().numpy()
    distance_dm, partner = _nearest(points, points * (-1.0, 1.0, 1.0))
    symmetric = bool((partner[partner] == np.arange(len(partner))).all())
    residual_mm = float(distance_dm[model.face_mask.numpy()].max()) * MM_PER_DM
    return Mirror(torch.from_numpy(partner), symmetric, residual_mm)


def _nearest(
    points: Float[np.ndarray, "N 3"], queries: Float[np.ndarray, "M 3"]
) -> tuple[Float[np.ndarray, " M"], Int[np.ndarray, " M"]]:
    """Find the distance and index of the point nearest to each query."""
    tree: Any = KDTree(points)  # its own types leave everything open
    distance, index = tree.query(queries)
    return distance, index.astype(np.int64)


@torch.inference_mode()
def mirror_errors(
    model: MorphableModel,
    mirror: Mirror,
    readings: Float[Tensor, "batch 257"],
    of_mirrored: Float[Tensor, "batch 257"],
) -> dict[str, Float[Tensor, " batch"]]:
    """Measure how far readings of mirrored photos are from the mirrored readings, over the face region.

    mirror_mm: mean vertex distance, shape only; mirror_deg: angle between the poses; mirror_levels: RMS of the albedo.
    """
    a, b = split(readings), split(of_mirrored)
    face = model.face_mask
    sides = torch.tensor([-1.0, 1.0, 1.0])
    expected = (model.vertices(a.identity, a.expression) * sides)[:, mirror.partner][:, face]
    shape = expected - model.vertices(b.identity, b.expression)[:, face]
    skin = model.albedo(a.albedo)[:, mirror.partner][:, face] - model.albedo(b.albedo)[:, face]
    return {
        "mirror_mm": shape.square().sum(-1).sqrt().mean(1) * MM_PER_DM,
        # Pitch stays; yaw and roll change sign.
        "mirror_deg": rotation_angle_deg(a.angles_rad * -sides, b.angles_rad),
        "mirror_levels": skin.square().mean((1, 2)).sqrt() * LEVELS,
    }
