"""A texture of the whole head from one photo: what the photo shows, and the model's own colors where it does not.

Each texel takes the photo's color at the place where its point of the surface is seen, as far as the photo shows it
well (see `leanface.face.visibility`). The rest takes the model's albedo under even light, multiplied by the ratio of
photo to model, which is carried on over the surface from where it is known, or from the other side of the head.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Int, UInt8
from PIL import Image

from leanface.errors import ConfigError
from leanface.face.compiled import compiled
from leanface.face.continuation import Continuation, Graph
from leanface.face.cores import bands, on_all_cores
from leanface.face.symmetry import mirror_images
from leanface.face.texture_runs import spread_rows
from leanface.face.uv_layout import Painting, UvLayout, across_seams, bilinear
from leanface.face.visibility import Visibility

SIZE_MAX_PX = 4096
SMOOTHNESS, DECAY = 2.0, 0.004
"""Of the ratio of photo to model: how far it is averaged, and how fast it goes to its mean where nothing is known."""

MIRRORED = 0.2
"""How much the other side of the head counts where the photo does not show this one."""

RATIO_LOG_MAX = 0.7
"""The photo may be twice as bright as the model, or half: beyond that it shows something that is not the head."""

DARK = 0.05
"""Added to both colors before their ratio is taken: dark ones say little."""

SAMPLED = 16
"""Of the triangles, one in so many is enough to tell how much finer the photo is than the texture."""

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
    """Takes textures from photos of one model's heads. Any threads may share it.

    Attributes:
        graph: of the mesh.
        mirror: the vertex on the head's other side that corresponds to each.
    """

    def __init__(
        self,
        uv: Float32[np.ndarray, "vertices 2"],
        triangles: Int[np.ndarray, "triangles 3"],
        mean_vertices: Float32[np.ndarray, "vertices 3"],
    ) -> None:
        """Prepare for a model, whose mean face is symmetric."""
        without_seams = triangles[~across_seams(uv, triangles, mean_vertices)]
        self.graph = Graph.of_triangles(triangles, len(mean_vertices))
        self.visibility = Visibility(triangles, self.graph, without_seams, mean_vertices)
        self.continuation = Continuation(self.graph, SMOOTHNESS)
        self.mirror = mirror_images(mean_vertices)

    def paint(
        self,
        layout: UvLayout,
        photo: UInt8[np.ndarray, "H W 3"],
        vertices_photo: Float[np.ndarray, "vertices 3"],
        vertices_camera: Float[np.ndarray, "vertices 3"],
        normals_camera: Float[np.ndarray, "vertices 3"],
        lighting: Lighting,
        *,
        delight: bool = False,
    ) -> UInt8[np.ndarray, "size size 3"]:
        """Paint the texture, filled everywhere.

        Args:
            layout: the texture's.
            vertices_photo: x and y (px) in the photo, and 1 / depth (1/m).
            vertices_camera: in the camera's frame (m).
            normals_camera: unit normals in the camera's frame.
            lighting: the model's colors, for what the photo does not show.
            delight: divide the light out.

        Raises:
            ConfigError: the size is above SIZE_MAX_PX.
        """
        require_size(layout.size)
        weights = self.visibility.weights(photo.shape[:2], vertices_photo, vertices_camera, normals_camera)
        painting = layout.painting
        factor = reduction(painting, vertices_photo, weights)
        photo = reduced(photo, factor)
        at = (vertices_photo[:, :2] + 0.5) / factor - 0.5
        if not delight:
            lighting = _even(lighting, weights)
        colors = self._fill(bilinear(photo, at) / 255, weights, lighting)
        parts = [at, weights[:, None], 255 * colors]
        if delight:
            parts.append(1 / np.maximum(self._smooth(lighting.irradiance), LIGHT_MIN))
        attributes = np.concatenate(parts, 1, dtype=np.float32)
        photo = np.ascontiguousarray(photo)
        texture = np.empty((layout.size, layout.size, 3), np.uint8)

        def paint(band: tuple[int, int]) -> None:
            _paint_triangles(*painting.spans, painting.triangles, painting.planes, attributes, photo, texture, *band)

        def spread(band: tuple[int, int]) -> None:
            spread_rows(*painting.runs, texture, *band)

        on_all_cores(paint, bands(len(painting.triangles)))
        on_all_cores(spread, bands(layout.size))
        return texture

    def _smooth(self, values: Float[np.ndarray, "vertices 3"]) -> Float[np.ndarray, "vertices 3"]:
        """Average out what folds of the mesh add: they never lie just where the photo's do."""
        for _ in range(LIGHT_STEPS):
            values = self.graph.means(values)
        return values

    def _fill(
        self, seen: Float[np.ndarray, "vertices 3"], weights: Float[np.ndarray, " vertices"], lighting: Lighting
    ) -> Float[np.ndarray, "vertices 3"]:
        """Adapt the model's lit colors, in [0,1], so that they continue the photo's `seen` ones."""
        lit = np.clip(lighting.albedo * lighting.irradiance, 0, 1)
        if weights.max() == 0:
            return lit
        ratio = np.log((seen + DARK) / (lit + DARK)).clip(-RATIO_LOG_MAX, RATIO_LOG_MAX)
        mean = _mean(ratio, weights)
        known, both = np.empty_like(weights), np.empty_like(ratio)
        _add_mirrored(ratio - mean, weights, self.mirror, known, both)
        carried = self.continuation.solve(both, known, DECAY)
        return np.clip(lit * np.exp(carried + mean), 0, 1)


def _mean(values: Float[np.ndarray, "vertices 3"], weights: Float[np.ndarray, " vertices"]) -> Float[np.ndarray, "3"]:
    """Average values by weight, in a tenth of the time of `np.average`."""
    return np.einsum("v,vc->c", weights, values) / weights.sum()


def _even(lighting: Lighting, weights: Float[np.ndarray, " vertices"]) -> Lighting:
    """Replace the light by its mean over what is seen: behind the head, the estimate is a mere guess."""
    if weights.max() == 0:
        return lighting
    mean = _mean(lighting.irradiance, weights)
    return Lighting(lighting.albedo, np.broadcast_to(mean, lighting.irradiance.shape))


def require_size(size: int) -> None:
    """Raise ConfigError for a texture above SIZE_MAX_PX."""
    if size > SIZE_MAX_PX:
        raise ConfigError(f"a texture has at most {SIZE_MAX_PX} x {SIZE_MAX_PX} pixels, got {size}.")


def reduced(photo: UInt8[np.ndarray, "H W 3"], factor: int) -> UInt8[np.ndarray, "h w 3"]:
    """Average squares of so many pixels in each direction."""
    return photo if factor == 1 else np.asarray(Image.fromarray(photo).reduce(factor))


def reduction(
    painting: Painting, vertices_photo: Float[np.ndarray, "vertices 3"], weights: Float[np.ndarray, " vertices"]
) -> int:
    """Estimate the photo's pixels per texel, in each direction, where the photo is finer than the texture; else 1."""
    some = painting.triangles[::SAMPLED]
    shown = weights[some].min(1) > 0
    if not shown.any():
        return 1
    first, second, third = vertices_photo[some[shown], :2].transpose(1, 2, 0)
    (across_x, across_y), (down_x, down_y) = second - first, third - first
    photo_area = np.abs(across_x * down_y - across_y * down_x) / 2
    texture_area = np.maximum(painting.areas[::SAMPLED][shown], 1e-6)
    return max(1, round(float(np.sqrt(np.median(photo_area / texture_area)))))


@compiled(fastmath={"contract"})
def _add_mirrored(ratio: Any, weights: Any, mirror: Any, known: Any, both: Any) -> None:
    """Fill both (V,3) with means of ratio (V,3) here and on the head's other side, known (V,) with their weights."""
    for vertex in range(weights.shape[0]):
        other, weight = mirror[vertex], weights[vertex]
        mirrored = np.float32(MIRRORED) * (np.float32(1) - weight) * weights[other]
        known[vertex] = weight + mirrored
        share = np.float32(1) / max(known[vertex], np.float32(1e-6))
        for k in range(3):
            both[vertex, k] = share * (weight * ratio[vertex, k] + mirrored * ratio[other, k])


@compiled(fastmath={"contract"})
def _paint_triangles(
    starts: Any,
    places: Any,
    triangles: Any,
    planes: Any,
    attributes: Any,
    photo: Any,
    texture: Any,
    first_triangle: int,
    end_triangle: int,
) -> None:
    """Paint some triangles on texture (S,S,3) uint8, by their spans; see `leanface.face.uv_layout.Painting`.

    attributes (V,6 or 9) are the photo's x and y, the photo's weight, the color to fill with (0 to 255), and perhaps a
    gain that the result is multiplied by. All are linear within a triangle: triangles are too small for perspective to
    show.
    """
    count = attributes.shape[1]
    last_x, last_y = np.float32(photo.shape[1] - 1), np.float32(photo.shape[0] - 1)
    right_most, bottom_most = photo.shape[1] - 1, photo.shape[0] - 1
    zero, one = np.float32(0), np.float32(1)
    first, to_second, to_third = np.zeros(9, np.float32), np.zeros(9, np.float32), np.zeros(9, np.float32)
    value, growth = np.zeros(9, np.float32), np.zeros(9, np.float32)
    for index in range(first_triangle, end_triangle):
        a, b, c = np.uint32(triangles[index, 0]), np.uint32(triangles[index, 1]), np.uint32(triangles[index, 2])
        left, top = planes[index, 0], planes[index, 1]
        second_x, second_y, third_x, third_y = planes[index, 2], planes[index, 3], planes[index, 4], planes[index, 5]
        for k in range(count):
            first[k] = attributes[a, k]
            to_second[k], to_third[k] = attributes[b, k] - first[k], attributes[c, k] - first[k]
            growth[k] = second_x * to_second[k] + third_x * to_third[k]
        more_x, more_y, more_weight = growth[0], growth[1], growth[2]
        more_red, more_green, more_blue = growth[3], growth[4], growth[5]
        seen = max(attributes[a, 2], attributes[b, 2], attributes[c, 2]) > zero
        for span in range(starts[index], starts[index + 1]):
            row, start, end = places[span, 0], places[span, 1], places[span, 2]
            x, y = np.float32(start) - left, np.float32(row) - top
            second, third = x * second_x + y * second_y, x * third_x + y * third_y
            for k in range(count):
                value[k] = first[k] + second * to_second[k] + third * to_third[k]
            # Local copies stay in registers: a texel's bytes could lie in `value`, as far as the compiler knows.
            x0, y0, weight0, red0, green0, blue0 = value[0], value[1], value[2], value[3], value[4], value[5]
            i = np.uint32(row)
            for column in range(start, end):
                step = np.float32(column - start)
                red, green, blue = red0 + step * more_red, green0 + step * more_green, blue0 + step * more_blue
                if seen:
                    weight = _clamped(weight0 + step * more_weight, one)
                    px = _clamped(x0 + step * more_x, last_x)
                    py = _clamped(y0 + step * more_y, last_y)
                    above, near = np.uint32(py), np.uint32(px)
                    below, far = np.uint32(min(above + 1, bottom_most)), np.uint32(min(near + 1, right_most))
                    v, u = py - np.float32(above), px - np.float32(near)
                    w00, w01 = (one - v) * (one - u) * weight, (one - v) * u * weight
                    w10, w11 = v * (one - u) * weight, v * u * weight
                    rest = one - weight
                    red = rest * red + (
                        w00 * photo[above, near, 0]
                        + w01 * photo[above, far, 0]
                        + w10 * photo[below, near, 0]
                        + w11 * photo[below, far, 0]
                    )
                    green = rest * green + (
                        w00 * photo[above, near, 1]
                        + w01 * photo[above, far, 1]
                        + w10 * photo[below, near, 1]
                        + w11 * photo[below, far, 1]
                    )
                    blue = rest * blue + (
                        w00 * photo[above, near, 2]
                        + w01 * photo[above, far, 2]
                        + w10 * photo[below, near, 2]
                        + w11 * photo[below, far, 2]
                    )
                if count == 9:
                    red *= value[6] + step * growth[6]
                    green *= value[7] + step * growth[7]
                    blue *= value[8] + step * growth[8]
                j = np.uint32(column)
                texture[i, j, 0] = _level(red)
                texture[i, j, 1] = _level(green)
                texture[i, j, 2] = _level(blue)


@compiled(inline="always")
def _clamped(value: Any, most: Any) -> Any:
    """Clamp to [0, most], faster than min() and max(), which look for NaN."""
    value = value if value > np.float32(0) else np.float32(0)
    return value if value < most else most


@compiled(inline="always")
def _level(value: Any) -> Any:
    return np.uint8(np.int32(_clamped(value, np.float32(255)) + np.float32(0.5)))
