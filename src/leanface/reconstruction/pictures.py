"""Pictures of reconstructions: the head from three sides, and the mesh over its photo."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw

from leanface.face.camera import image_from_camera, rotation_from_angles
from leanface.face.coefficients import split
from leanface.face.lighting import irradiance
from leanface.face.rasterize import draw, interpolate, rasterize
from leanface.reconstruction.result import Reconstruction

VIEW_PX = 384
VIEWS_RAD = (None, math.radians(40), math.radians(-40))
"""As in the photo, then turned to either side, by yaw."""

ZOOM = 0.78
"""The whole head, where the network's camera shows the face."""

BACKING = 0.88
"""Gray behind heads, as in the report."""

SUPERSAMPLE = 2
OVERLAY_PX = 1280
"""Longer side of the overlay at most."""

CLAY_OPACITY = 0.75
LANDMARK_COLOR = (255, 200, 0)


@torch.inference_mode()
def preview(face: Reconstruction) -> UInt8[np.ndarray, "size 3*size 3"]:
    """The head as in the photo and from both sides, with its texture, or else the model's lit albedo."""
    return np.concatenate([view(face, yaw) for yaw in VIEWS_RAD], 1)


@torch.inference_mode()
def view(face: Reconstruction, yaw_rad: float | None, size: int = VIEW_PX) -> UInt8[np.ndarray, "size size 3"]:
    """The head upright and turned by so much, or as in the photo."""
    if yaw_rad is None:
        rotation = face.pose.rotation
    else:
        rotation = rotation_from_angles(torch.tensor([[0.0, yaw_rad, 0.0]]))[0].numpy()
    vertices = (face.vertices - _middle(face.vertices)) @ rotation.T.astype(np.float32)
    samples = size * SUPERSAMPLE
    image = image_from_camera(torch.from_numpy(np.ascontiguousarray(vertices))[None], samples)
    center = (samples - 1) / 2
    image[..., :2] = (image[..., :2] - center) * ZOOM + center
    drawn = _lit(face, image, samples) if face.texture is None else _textured(face, face.texture, image, samples)
    pooled = F.avg_pool2d(drawn, SUPERSAMPLE)[0]
    return _to_image(pooled[:3] + BACKING * (1 - pooled[3:]))


@torch.inference_mode()
def overlay(photo: UInt8[np.ndarray, "H W 3"], faces: list[Reconstruction]) -> UInt8[np.ndarray, "h w 3"]:
    """The photo, made smaller if it is large, with each mesh as clay over it, and its landmarks."""
    scale = min(1.0, OVERLAY_PX / max(photo.shape[:2]))
    width, height = (max(1, round(side * scale)) for side in photo.shape[1::-1])
    canvas = np.asarray(Image.fromarray(photo).resize((width, height), Image.Resampling.BOX), np.float32) / 255
    side = max(width, height)
    for face in faces:
        clay = _clay(face)
        vertices = face.vertices_photo.astype(np.float32)
        vertices[:, :2] = ((vertices[:, :2] + 0.5) * scale) * SUPERSAMPLE - 0.5
        model = face.surface.model
        inner = model.triangles[model.face_mask[model.triangles].all(1)]
        drawn = draw(torch.from_numpy(vertices)[None], clay[None], inner, side, SUPERSAMPLE)[0, :, :height, :width]
        color, alpha = drawn[:3].permute(1, 2, 0).numpy(), drawn[3:].permute(1, 2, 0).numpy()
        canvas = canvas * (1 - CLAY_OPACITY * alpha) + CLAY_OPACITY * color
    image = Image.fromarray((canvas * 255).round().clip(0, 255).astype(np.uint8))
    pen = ImageDraw.Draw(image)
    for face in faces:
        radius = max(1.5, 0.02 * float(np.ptp(face.landmarks[:, 1])) * scale)
        for x, y in ((face.landmarks + 0.5) * scale - 0.5).tolist():
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=LANDMARK_COLOR)
    return np.asarray(image)


def _middle(vertices: Float[np.ndarray, "vertices 3"]) -> Float[np.ndarray, "3"]:
    return (vertices.min(0) + vertices.max(0)) / 2


def _clay(face: Reconstruction) -> torch.Tensor:
    """Gray of a lamp at the camera, a little from above left."""
    towards_lamp = np.array([-0.3, 0.45, 0.84], np.float32)
    shade = (face.normals @ face.pose.rotation.T @ towards_lamp).clip(0)
    return torch.from_numpy(np.repeat((0.25 + 0.7 * shade)[:, None], 3, 1).astype(np.float32))


def _lit(face: Reconstruction, image: torch.Tensor, size: int) -> torch.Tensor:
    parts, model = split(torch.from_numpy(face.coefficients)[None]), face.surface.model
    normals = torch.from_numpy(face.normals @ face.pose.rotation.T)[None]
    colors = (model.albedo(parts.albedo) * irradiance(normals, parts.lighting)).clamp(0, 1)
    return draw(image, colors, model.triangles, size)


def _textured(face: Reconstruction, texture: np.ndarray, image: torch.Tensor, size: int) -> torch.Tensor:
    """Colors and coverage (1,4,size,size)."""
    uv_map = face.surface.uv_map(len(texture))
    fragments = rasterize(image[:, uv_map.vertex], uv_map.triangles, size)
    place = (interpolate(fragments, uv_map.pixel[None].contiguous(), uv_map.triangles) + 0.5) / len(texture) * 2 - 1
    # Only the texels around the places looked up are converted, not the whole texture.
    reduced = Image.fromarray(texture).reduce(max(1, len(texture) // (2 * size)))
    source = torch.from_numpy(np.array(reduced)).permute(2, 0, 1)[None].float() / 255
    colors = F.grid_sample(source, place, align_corners=False, padding_mode="border")
    seen = (fragments.triangle >= 0)[:, None].float()
    return torch.cat([colors * seen, seen], 1)


def _to_image(planes: torch.Tensor) -> UInt8[np.ndarray, "size size 3"]:
    return (planes * 255).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
