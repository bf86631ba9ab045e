"""Pose and the perspective camera of Deep3DFaceRecon: focal 1015 px, center 112 px, distance 10 dm, at 224 px.

Frames: model and camera frames have x to the image's right, y up, z towards the camera; the image frame has x to the
right and y down, with pixel centers at integers. Everything in pixels scales with the image size.
Source: Deng et al., CVPRW 2019 (arXiv:1903.08527).
"""

import torch
from jaxtyping import Float
from torch import Tensor

from leanface.face.geometry import DISTANCE_DM, FOCAL_PX, REFERENCE_SIZE_PX, rotation_rows


def rotation_from_angles(angles_rad: Float[Tensor, "batch 3"]) -> Float[Tensor, "batch 3 3"]:
    """Return roll @ yaw @ pitch, from (pitch about x, yaw about y, roll about z); acts on column vectors."""
    rows = rotation_rows(angles_rad.cos().unbind(-1), angles_rad.sin().unbind(-1))
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def camera_from_model(
    vertices: Float[Tensor, "batch vertices 3"],
    angles_rad: Float[Tensor, "batch 3"],
    translation: Float[Tensor, "batch 3"],
) -> Float[Tensor, "batch vertices 3"]:
    """Rotate and move a shape into the camera's frame (decimeters; the camera itself is at z = 10)."""
    rotation = rotation_from_angles(angles_rad)
    return torch.baddbmm(translation[:, None], vertices, rotation.transpose(1, 2))


def image_from_camera(
    vertices_camera: Float[Tensor, "batch vertices 3"], size: int
) -> Float[Tensor, "batch vertices 3"]:
    """Project to a square image of `size` pixels: x and y in pixels, and 1 / depth in 1/dm (larger is nearer).

    1 / depth, unlike depth, is linear in image space, so that it can be interpolated there.
    """
    inverse_depth = 1.0 / (DISTANCE_DM - vertices_camera[..., 2:])
    focal = FOCAL_PX * size / REFERENCE_SIZE_PX
    center = (size - 1) / 2
    x = vertices_camera[..., :1] * inverse_depth * focal + center
    y = vertices_camera[..., 1:2] * inverse_depth * -focal + center
    return torch.cat([x, y, inverse_depth], dim=-1)
