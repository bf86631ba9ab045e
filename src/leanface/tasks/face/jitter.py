"""The same face, framed a little differently: how much of a reading is the face, and how much the framing?"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from leanface.face.camera import rotation_from_angles
from leanface.face.coefficients import ANGLES, split
from leanface.face.errors import MM_PER_DM
from leanface.face.morphable_model import MorphableModel

SHIFT = 0.03
"""Largest shift in x and in y, as a share of the crop's side."""

SCALE = 0.035
TURN_RAD = math.radians(10)
"""Ranges are uniform; their deviations are those of the framing of the sampled faces."""

SEED = 0


class Jitter(NamedTuple):
    """Changes of framing: the picture is turned (counter-clockwise) and scaled about its center, then shifted."""

    turn_rad: Float[Tensor, " count"]
    scale: Float[Tensor, " count"]
    shift: Float[Tensor, "count 2"]


def sample_jitter(count: int) -> Jitter:
    """Draw the same `count` changes every time, so that networks and photos compare."""
    draws = 2 * torch.rand(count, 4, generator=torch.Generator().manual_seed(SEED)) - 1
    return Jitter(draws[:, 0] * TURN_RAD, 1 + draws[:, 1] * SCALE, draws[:, 2:] * SHIFT)


def reframe(photo: Float[Tensor, "3 size size"], jitter: Jitter) -> Float[Tensor, "count 3 size size"]:
    """Apply each change to the photo; its edge pixels are repeated beyond it."""
    cos, sin = jitter.turn_rad.cos() / jitter.scale, jitter.turn_rad.sin() / jitter.scale
    # From where the pixels go to where they come from; x right and y down, both in [-1,1].
    turn = torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], 1)
    origin = -(turn @ (2 * jitter.shift)[:, :, None])
    photos = photo.expand(len(jitter.scale), *photo.shape)
    grid = F.affine_grid(torch.cat([turn, origin], -1), list(photos.shape), align_corners=False)
    return F.grid_sample(photos, grid, padding_mode="border", align_corners=False)


def undo_turn(readings: Float[Tensor, "count 257"], jitter: Jitter) -> Float[Tensor, "count 257"]:
    """Undo the picture's turn in readings: exact, since roll is about the camera's axis and acts last."""
    undone = readings.clone()
    undone[:, ANGLES.stop - 1] -= jitter.turn_rad
    return undone


@torch.inference_mode()
def spread(model: MorphableModel, readings: Float[Tensor, "count 257"]) -> dict[str, float]:
    """Measure how much readings of one face differ.

    jitter_mm: standard deviation of the vertices (face region, shape only); jitter_deg: of the pose, from the angles
    between all pairs.
    """
    parts = split(readings)
    vertices = model.vertices(parts.identity, parts.expression)[:, model.face_mask]
    rotations = rotation_from_angles(parts.angles_rad.double())
    traces = torch.einsum("iab,jab->ij", rotations, rotations)
    angles_deg = torch.rad2deg(((traces - 1) / 2).clamp(-1, 1).acos())
    return {
        "jitter_mm": float((vertices - vertices.mean(0)).square().sum(-1).mean().sqrt()) * MM_PER_DM,
        # The mean square of the distances between pairs is twice the variance.
        "jitter_deg": float((angles_deg.square().mean() / 2).sqrt()),
    }
