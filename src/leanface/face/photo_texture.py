"""A texture of the whole head from one photo: what the photo shows, and the model's own colors where it does not.

Each texel takes the photo's color at the place where its point of the surface is seen. A weight per vertex says how
well the photo shows it: 0 where something hides it, where it turns away or leaves the photo, and rising smoothly from
there, so that there is no seam. The rest takes the model's albedo under the estimated light, multiplied by the ratio of
photo to model, which is carried on over the surface from where it is known (a screened Poisson equation on the mesh).
"""

import itertools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as sla
import torch
from jaxtyping import Float, UInt8
from PIL import Image

from leanface.device import usable_cores
from leanface.errors import ConfigError
from leanface.face.camera import DISTANCE_DM
from leanface.face.compiled import compiled
from leanface.face.morphable_model import MorphableModel
from leanface.face.rasterize import interpolate, rasterize
from leanface.face.texture import UvMap, spread

SIZE_MAX_PX = 4096
DEPTH_MAP_PX = 512
"""Side of the depth map over the whole head by which hidden vertices are found."""

DEPTH_TOLERANCE_DM = 0.04
"""How much deeper than the depth map a vertex may lie and still count as seen."""

TURNED_AWAY, FACING = 0.2, 0.55
"""Cosine between normal and line of sight at which the photo counts for nothing, and for all."""

FEATHER_STEPS = 4
"""Rings of vertices over which the photo fades out where it ends."""

RIM = 0.03
"""Share of the head's size over which the photo fades out towards its own edges."""

SMOOTHNESS, DECAY = 2.0, 0.004
"""Of the ratio of photo to model: how far it is averaged, and how fast it goes to its mean where nothing is known."""

RATIO_LOG_MAX = 0.7
"""The photo may be twice as bright as the model, or half: beyond that it shows something that is not the head."""

DARK = 0.05
"""Added to both colors before their ratio is taken: dark ones say little."""

LIGHT_STEPS = 12
"""Rings of vertices over which the light is averaged before it is taken out."""

LIGHT_MIN = 0.4
"""Taking the light out multiplies a color by at most the inverse of this."""


@dataclass(frozen=True)
class Lighting:
    """Colors (V,3) of the model at each vertex: albedo in [0,1], and the light that falls on it."""

    albedo: Float[np.ndarray, "vertices 3"]
    irradiance: Float[np.ndarray, "vertices 3"]


class PhotoTexture:
    """Takes textures from photos of one model's heads. Any threads may share it."""

    def __init__(self, model: MorphableModel) -> None:
        self._triangles = model.triangles
        count = model.vertex_count
        pairs = model.triangles.numpy()
        rows = np.concatenate([pairs, pairs.take([1, 2, 0], 1)], 1).ravel()
        columns = np.concatenate([pairs.take([1, 2, 0], 1), pairs], 1).ravel()
        adjacency: Any = sp.csr_matrix((np.ones(len(rows), np.float32), (rows, columns)), (count, count))
        adjacency.data[:] = 1
        degree = np.asarray(adjacency.sum(1)).ravel()
        self._mean_of_neighbors: Any = sp.diags(1 / np.maximum(degree, 1)).astype(np.float32) @ adjacency
        self._laplacian: Any = sp.diags(degree).astype(np.float32) - adjacency

    def paint(
        self,
        uv_map: UvMap,
        photo: UInt8[np.ndarray, "H W 3"],
        vertices_photo: Float[np.ndarray, "vertices 3"],
        vertices_camera: Float[np.ndarray, "vertices 3"],
        normals_camera: Float[np.ndarray, "vertices 3"],
        lighting: Lighting,
        *,
        delight: bool = False,
    ) -> UInt8[np.ndarray, "size size 3"]:
        """The texture, filled everywhere.

        Args:
            uv_map: its layout and size.
            vertices_photo: x and y (px) in the photo, and 1 / depth.
            lighting: the model's colors, for what the photo does not show.
            delight: divide the light out.

        Raises:
            ConfigError: the size is above SIZE_MAX_PX.
        """
        if uv_map.size > SIZE_MAX_PX:
            raise ConfigError(f"a texture has at most {SIZE_MAX_PX} x {SIZE_MAX_PX} pixels, got {uv_map.size}.")
        weights = self.weights(photo.shape[:2], vertices_photo, vertices_camera, normals_camera)
        factor = self._reduction(uv_map, vertices_photo, weights)
        if factor > 1:
            photo = np.asarray(Image.fromarray(photo).reduce(factor))
        at = (vertices_photo[:, :2] + 0.5) / factor - 0.5
        fill = self._fill(_bilinear(photo, at), weights, lighting)
        gain = 1 / np.maximum(self._smooth(lighting.irradiance), LIGHT_MIN) if delight else np.ones_like(fill)
        attributes = np.concatenate([at, weights[:, None], 255 * fill, gain], 1, dtype=np.float32)
        vertex = uv_map.vertex.numpy()
        # Only the teeth overlap on the map, front and back: the front comes last, and so stays.
        triangles = uv_map.triangles.numpy()
        order = np.argsort(vertices_camera[vertex[triangles], 2].sum(1), kind="stable")
        triangles = np.ascontiguousarray(triangles[order], np.int32)
        texture = np.zeros((uv_map.size, uv_map.size, 3), np.uint8)
        covered = np.zeros((uv_map.size, uv_map.size), np.bool_)
        pixel = np.ascontiguousarray(uv_map.pixel.numpy(), np.float32)
        corner_attributes = np.ascontiguousarray(attributes[vertex])
        photo = np.ascontiguousarray(photo)

        def band(rows: tuple[int, int]) -> None:
            _paint(pixel, triangles, corner_attributes, photo, rows[0], rows[1], texture, covered)

        workers = usable_cores()
        edges = np.linspace(0, uv_map.size, 4 * workers + 1).astype(int).tolist()
        with ThreadPoolExecutor(workers) as threads:
            list(threads.map(band, itertools.pairwise(edges)))
        return spread(texture, covered)

    def weights(
        self,
        photo_shape: tuple[int, ...],
        vertices_photo: Float[np.ndarray, "vertices 3"],
        vertices_camera: Float[np.ndarray, "vertices 3"],
        normals_camera: Float[np.ndarray, "vertices 3"],
    ) -> Float[np.ndarray, " vertices"]:
        """How well the photo shows each vertex, in [0,1]."""
        sight = np.array([0, 0, DISTANCE_DM], np.float32) - vertices_camera
        cosine = (sight * normals_camera).sum(1) / np.linalg.norm(sight, axis=1)
        weights = _smoothstep((cosine - TURNED_AWAY) / (FACING - TURNED_AWAY))
        height, width = photo_shape[:2]
        xy = vertices_photo[:, :2]
        inside = np.minimum(xy + 0.5, (width, height) - xy - 0.5).min(1)
        weights *= _smoothstep(inside / (RIM * np.ptp(xy, axis=0).max()))
        weights *= self._seen(vertices_photo)
        for _ in range(FEATHER_STEPS):
            weights = np.minimum(weights, self._mean_of_neighbors @ weights)
        return weights.astype(np.float32)

    def _smooth(self, values: Float[np.ndarray, "vertices 3"]) -> Float[np.ndarray, "vertices 3"]:
        """Without what folds of the mesh add: they never lie just where the photo's do."""
        for _ in range(LIGHT_STEPS):
            values = self._mean_of_neighbors @ values
        return values

    def _seen(self, vertices_photo: Float[np.ndarray, "vertices 3"]) -> np.ndarray:
        """Which vertices nothing lies in front of."""
        low = vertices_photo[:, :2].min(0)
        scale = (DEPTH_MAP_PX - 1) / np.ptp(vertices_photo[:, :2], axis=0).max()
        fitted = np.concatenate([(vertices_photo[:, :2] - low) * scale, vertices_photo[:, 2:]], 1, dtype=np.float32)
        vertices = torch.from_numpy(fitted)[None]
        fragments = rasterize(vertices, self._triangles, DEPTH_MAP_PX)
        nearness = interpolate(fragments, vertices[..., 2:].contiguous(), self._triangles)[0, ..., 0].numpy()
        column, row = np.rint(fitted[:, :2]).astype(int).clip(0, DEPTH_MAP_PX - 1).T
        nearest = np.maximum(nearness[row, column], 1e-6)
        return 1 / fitted[:, 2] <= 1 / nearest + DEPTH_TOLERANCE_DM

    def _reduction(
        self, uv_map: UvMap, vertices_photo: Float[np.ndarray, "vertices 3"], weights: Float[np.ndarray, " vertices"]
    ) -> int:
        """Photo pixels per texel, in each direction, where the photo is finer than the texture."""
        triangles, vertex = uv_map.triangles.numpy(), uv_map.vertex.numpy()
        shown = weights[vertex[triangles]].min(1) > 0
        if not shown.any():
            return 1
        photo_area = _areas(vertices_photo[vertex[triangles[shown]], :2])
        texture_area = np.maximum(_areas(uv_map.pixel.numpy()[triangles[shown]]), 1e-6)
        return max(1, round(float(np.sqrt(np.median(photo_area / texture_area)))))

    def _fill(
        self, seen: Float[np.ndarray, "vertices 3"], weights: Float[np.ndarray, " vertices"], lighting: Lighting
    ) -> Float[np.ndarray, "vertices 3"]:
        """The model's lit colors, in [0,1], as they would continue the photo's `seen` ones."""
        lit = np.clip(lighting.albedo * lighting.irradiance, 0, 1)
        if weights.max() == 0:
            return lit
        ratio = np.log((seen + DARK) / (lit + DARK)).clip(-RATIO_LOG_MAX, RATIO_LOG_MAX)
        mean = np.average(ratio, axis=0, weights=weights)
        matrix = (sp.diags(weights + np.float32(DECAY)) + SMOOTHNESS * self._laplacian).tocsr()
        inverse_diagonal: Any = sp.diags(1 / matrix.diagonal())
        carried = np.empty_like(lit)
        for channel in range(3):
            right = weights * (ratio[:, channel] - mean[channel])
            # A thousandth is a quarter of a gray level; the equation is well conditioned.
            solution, _ = cast(Any, sla).cg(matrix, right, rtol=1e-3, maxiter=300, M=inverse_diagonal)
            carried[:, channel] = solution + mean[channel]
        return np.clip(lit * np.exp(carried), 0, 1)


def _smoothstep(x: np.ndarray) -> np.ndarray:
    x = np.clip(x, 0, 1)
    return x * x * (3 - 2 * x)


def _areas(corners: Float[np.ndarray, "triangles 3 2"]) -> Float[np.ndarray, " triangles"]:
    first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    return np.abs(first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]) / 2


def _bilinear(image: UInt8[np.ndarray, "H W 3"], at: Float[np.ndarray, "N 2"]) -> Float[np.ndarray, "N 3"]:
    """Colors in [0,1] at places (x, y); beyond the image its edge."""
    height, width = image.shape[:2]
    x, y = at[:, 0].clip(0, width - 1), at[:, 1].clip(0, height - 1)
    left, top = (
        np.floor(x).astype(int).clip(max=max(width - 2, 0)),
        np.floor(y).astype(int).clip(max=max(height - 2, 0)),
    )
    right, bottom = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    u, v = (x - left)[:, None], (y - top)[:, None]
    upper = image[top, left] * (1 - u) + image[top, right] * u
    lower = image[bottom, left] * (1 - u) + image[bottom, right] * u
    return ((upper * (1 - v) + lower * v) / 255).astype(np.float32)


@compiled(fastmath={"contract"})
def _paint(
    pixel: Any, triangles: Any, attributes: Any, photo: Any, first_row: int, end_row: int, texture: Any, covered: Any
) -> None:
    """Rows first_row to end_row of texture (S,S,3) uint8, and which of them the surface covers.

    pixel (C,2) says where the map's vertices lie; attributes (C,9) are the photo's x and y, the photo's weight, the
    color to fill with (0 to 255), and the gain that the result is multiplied by. All are linear within a triangle:
    triangles are too small for perspective to show.
    """
    size = texture.shape[1]
    last_x, last_y = np.float32(photo.shape[1] - 1), np.float32(photo.shape[0] - 1)
    zero, one = np.float32(0), np.float32(1)
    gradient_x = np.empty(9, np.float32)
    gradient_y = np.empty(9, np.float32)
    start = np.empty(9, np.float32)
    value = np.empty(9, np.float32)
    for index in range(triangles.shape[0]):
        a, b, c = triangles[index, 0], triangles[index, 1], triangles[index, 2]
        x0, y0, x1, y1, x2, y2 = pixel[a, 0], pixel[a, 1], pixel[b, 0], pixel[b, 1], pixel[c, 0], pixel[c, 1]
        top = max(int(np.ceil(min(y0, y1, y2))), first_row)
        bottom = min(int(np.floor(max(y0, y1, y2))), end_row - 1)
        if top > bottom:
            continue
        left = max(int(np.ceil(min(x0, x1, x2))), 0)
        right = min(int(np.floor(max(x0, x1, x2))), size - 1)
        area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
        if left > right or area >= -np.float32(1e-9):
            continue
        inverse = one / area
        second_x, second_y = (y2 - y0) * inverse, -(x2 - x0) * inverse
        third_x, third_y = -(y1 - y0) * inverse, (x1 - x0) * inverse
        for k in range(9):
            to_b, to_c = attributes[b, k] - attributes[a, k], attributes[c, k] - attributes[a, k]
            gradient_x[k] = to_b * second_x + to_c * third_x
            gradient_y[k] = to_b * second_y + to_c * third_y
            start[k] = attributes[a, k]
        for row in range(top, bottom + 1):
            y = np.float32(row) - y0
            for column in range(left, right + 1):
                x = np.float32(column) - x0
                second = x * second_x + y * second_y
                third = x * third_x + y * third_y
                if second < zero or third < zero or second + third > one:
                    continue
                for k in range(9):
                    value[k] = start[k] + x * gradient_x[k] + y * gradient_y[k]
                weight = min(max(value[2], zero), one)
                px, py = min(max(value[0], zero), last_x), min(max(value[1], zero), last_y)
                i, j = int(py), int(px)
                i2, j2 = min(i + 1, photo.shape[0] - 1), min(j + 1, photo.shape[1] - 1)
                v, u = py - np.float32(i), px - np.float32(j)
                for channel in range(3):
                    color = value[3 + channel]
                    if weight > zero:
                        upper = (one - u) * photo[i, j, channel] + u * photo[i, j2, channel]
                        lower = (one - u) * photo[i2, j, channel] + u * photo[i2, j2, channel]
                        color += weight * ((one - v) * upper + v * lower - color)
                    color = color * value[6 + channel] + np.float32(0.5)
                    texture[row, column, channel] = np.uint8(min(max(color, zero), np.float32(255)))
                covered[row, column] = True
