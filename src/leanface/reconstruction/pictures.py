"""Pictures of reconstructions: the head from three sides, and the mesh over its photo."""

import functools
import math
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, UInt8
from PIL import Image, ImageDraw, ImageFont

from leanface.face import kernels
from leanface.face.coefficients import split
from leanface.face.compiled import compiled
from leanface.face.cores import on_all_cores
from leanface.face.geometry import project, rotation_from_angles
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
NUMBER_SIZE, NUMBER_PX_MIN = 12, 14
"""Height of a number in radii of landmarks, and at least in pixels."""


def preview(face: Reconstruction) -> UInt8[np.ndarray, "size 3*size 3"]:
    """Draw the head as in the photo and from both sides, with its texture, or else the model's lit albedo."""
    return np.concatenate(on_all_cores(functools.partial(view, face), VIEWS_RAD), 1)


def view(face: Reconstruction, yaw_rad: float | None, size: int = VIEW_PX) -> UInt8[np.ndarray, "size size 3"]:
    """Draw the head upright and turned by so much, or as in the photo."""
    rotation = face.pose.rotation if yaw_rad is None else rotation_from_angles(np.array([0, yaw_rad, 0], np.float32))
    vertices = (face.vertices - _middle(face.vertices)) @ rotation.T
    image = project(vertices, size * SUPERSAMPLE)
    center = (size * SUPERSAMPLE - 1) / 2
    image[:, :2] = (image[:, :2] - center) * np.float32(ZOOM) + np.float32(center)
    if face.texture is not None:
        return _textured(face, face.texture, image, size)
    drawn = _lit(face, image, size)
    return _to_image(drawn[:3] + BACKING * (1 - drawn[3]))


def overlay(photo: UInt8[np.ndarray, "H W 3"], faces: list[Reconstruction]) -> UInt8[np.ndarray, "h w 3"]:
    """Draw the photo, made smaller if it is large, each mesh as clay over it, landmarks and the person's number."""
    scale = min(1.0, OVERLAY_PX / max(photo.shape[:2]))
    width, height = (max(1, round(side * scale)) for side in photo.shape[1::-1])
    canvas = np.asarray(Image.fromarray(photo).resize((width, height), Image.Resampling.BOX), np.float32) / 255
    side = max(width, height)
    for face in faces:
        clay = _clay(face)
        vertices = face.vertices_photo.astype(np.float32)
        vertices[:, :2] = ((vertices[:, :2] + 0.5) * scale) * SUPERSAMPLE - 0.5
        triangles = face.surface.head.face_triangles
        drawn = kernels.draw(vertices[None], clay[None], triangles, side, SUPERSAMPLE)[0, :, :height, :width]
        color, alpha = np.split(drawn.transpose(1, 2, 0), [3], axis=-1)
        canvas = canvas * (1 - CLAY_OPACITY * alpha) + CLAY_OPACITY * color
    image = Image.fromarray((canvas * 255).round().clip(0, 255).astype(np.uint8))
    pen = ImageDraw.Draw(image)
    for face in faces:
        radius = max(1.5, 0.02 * float(np.ptp(face.landmarks[:, 1])) * scale)
        for x, y in ((face.landmarks + 0.5) * scale - 0.5).tolist():
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=LANDMARK_COLOR)
        if face.detection is not None and face.detection.number is not None:
            left, top = (face.detection.box[:2] * scale).clip(0).tolist()
            font = ImageFont.load_default(max(NUMBER_PX_MIN, NUMBER_SIZE * radius))
            pen.text((left, top), str(face.detection.number), LANDMARK_COLOR, font, stroke_width=2, stroke_fill="black")
    return np.asarray(image)


def _middle(vertices: Float[np.ndarray, "vertices 3"]) -> Float[np.ndarray, "3"]:
    return np.array([(column.min() + column.max()) / 2 for column in vertices.T], vertices.dtype)


def _clay(face: Reconstruction) -> Float32[np.ndarray, "vertices 3"]:
    """Shade gray clay by a lamp at the camera, a little from above left."""
    towards_lamp = np.array([-0.3, 0.45, 0.84], np.float32)
    shade = (face.normals @ face.pose.rotation.T @ towards_lamp).clip(0)
    return np.repeat((0.25 + 0.7 * shade)[:, None], 3, 1).astype(np.float32)


def _lit(
    face: Reconstruction, image: Float32[np.ndarray, "vertices 3"], size: int
) -> Float32[np.ndarray, "4 size size"]:
    """Return the model's lit albedo, and coverage."""
    parts, head = split(face.coefficients), face.surface.head
    normals = np.ascontiguousarray(face.normals @ face.pose.rotation.T)
    colors = (head.albedo(parts.albedo) * kernels.irradiance(normals[None], parts.lighting[None])[0]).clip(0, 1)
    return kernels.draw(image[None], colors[None], head.triangles, size, SUPERSAMPLE)[0]


def _textured(
    face: Reconstruction,
    texture: UInt8[np.ndarray, "side side 3"],
    image: Float32[np.ndarray, "vertices 3"],
    size: int,
) -> UInt8[np.ndarray, "size size 3"]:
    layout = face.surface.layout(len(texture))
    # A texture much finer than the picture would be looked up too sparsely.
    factor = max(1, len(texture) // (2 * size * SUPERSAMPLE))
    reduced = np.asarray(Image.fromarray(texture).reduce(factor)) if factor > 1 else texture
    samples = size * SUPERSAMPLE
    corners = image[layout.vertex]
    nearest, _ = kernels.nearest_triangles(corners, layout.triangles, samples)
    places = (layout.pixel + np.float32(0.5)) / np.float32(factor) - np.float32(0.5)
    out = np.empty((size, size, 3), np.uint8)
    _look_up(nearest, corners, layout.triangles, places, reduced, SUPERSAMPLE, out)
    return out


@compiled(fastmath={"contract"})
def _look_up(
    nearest: Any, vertices: Any, triangles: Any, places: Any, texture: Any, supersample: int, out: Any
) -> None:
    """Fill out (H,W,3) uint8 with the colors of texture (S,S,3) uint8 that its samples (H*s,W*s) see, or gray."""
    last, right_most = np.float32(texture.shape[0] - 1), texture.shape[0] - 1
    one, zero, backing = np.float32(1), np.float32(0), np.float32(255 * BACKING)
    share = np.float32(1.0 / supersample**2)
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            red = green = blue = zero
            for row in range(i * supersample, (i + 1) * supersample):
                for column in range(j * supersample, (j + 1) * supersample):
                    index = nearest[np.uint32(row), np.uint32(column)]
                    if index < 0:
                        red += backing
                        green += backing
                        blue += backing
                        continue
                    at = np.uint32(index)
                    a, b, c = np.uint32(triangles[at, 0]), np.uint32(triangles[at, 1]), np.uint32(triangles[at, 2])
                    second, third = kernels.barycentric(vertices, a, b, c, row, column)
                    first = one - second - third
                    x = first * places[a, 0] + second * places[b, 0] + third * places[c, 0]
                    y = first * places[a, 1] + second * places[b, 1] + third * places[c, 1]
                    x, y = min(max(x, zero), last), min(max(y, zero), last)
                    left, top = np.uint32(x), np.uint32(y)
                    right, bottom = np.uint32(min(left + 1, right_most)), np.uint32(min(top + 1, right_most))
                    u, v = x - np.float32(left), y - np.float32(top)
                    w00, w01, w10, w11 = (one - v) * (one - u), (one - v) * u, v * (one - u), v * u
                    red += w00 * texture[top, left, 0] + w01 * texture[top, right, 0]
                    red += w10 * texture[bottom, left, 0] + w11 * texture[bottom, right, 0]
                    green += w00 * texture[top, left, 1] + w01 * texture[top, right, 1]
                    green += w10 * texture[bottom, left, 1] + w11 * texture[bottom, right, 1]
                    blue += w00 * texture[top, left, 2] + w01 * texture[top, right, 2]
                    blue += w10 * texture[bottom, left, 2] + w11 * texture[bottom, right, 2]
            out[i, j, 0] = np.uint8(red * share + np.float32(0.5))
            out[i, j, 1] = np.uint8(green * share + np.float32(0.5))
            out[i, j, 2] = np.uint8(blue * share + np.float32(0.5))


def _to_image(planes: Float32[np.ndarray, "3 size size"]) -> UInt8[np.ndarray, "size size 3"]:
    return np.ascontiguousarray((planes * 255).round().clip(0, 255).astype(np.uint8).transpose(1, 2, 0))
