"""UV layouts: the surface unwrapped by the model's own texture coordinates, independent of pose and light."""

import functools
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, UInt8

from leanface.face import kernels
from leanface.face.compiled import compiled
from leanface.face.geometry import DISTANCE_DM

SEAM_STRETCH = 4.0
"""A triangle that is larger on the map, relative to its size on the mean head, than so many times the median triangle
lies across a seam."""


class Fragments(NamedTuple):
    """`triangle` is -1 where a pixel sees nothing; `barycentric` weighs the triangle's three corners there."""

    triangle: Int[np.ndarray, "size size"]
    barycentric: Float32[np.ndarray, "size size 3"]


class UvLayout:
    """Where a surface's triangles lie on a square UV grid that they fill.

    A vertex at a seam of the texture keeps its place on one side of it. A triangle on the other side would span the
    map: it gets vertices of its own, all at the place of its first corner, and so has that corner's color.

    Attributes:
        vertex: the model's vertex that each vertex of the map is.
        triangles: of the map's vertices, wound like the model's.
        pixel: where the map's vertices lie on the grid: x right, y down, pixel centers at integers.
    """

    vertex: Int[np.ndarray, " corners"]
    triangles: Int[np.ndarray, "triangles 3"]
    pixel: Float32[np.ndarray, "corners 2"]

    def __init__(
        self,
        uv: Float32[np.ndarray, "vertices 2"],
        triangles: Int[np.ndarray, "triangles 3"],
        mean_vertices: Float32[np.ndarray, "vertices 3"],
        size: int,
    ) -> None:
        """Lay out some or all triangles of a model, whose mean face says how large they are, and what is in front."""
        self.size = size
        stretch = _longest_side(uv[triangles]) / _longest_side(mean_vertices[triangles])
        at_seam = stretch > SEAM_STRETCH * np.median(stretch)
        torn = triangles[at_seam]
        whole, renumbered = np.unique(triangles[~at_seam], return_inverse=True)
        self.vertex = np.concatenate([whole, torn.ravel()])
        own = np.arange(len(whole), len(self.vertex)).reshape(-1, 3)
        self.triangles = np.concatenate([renumbered.reshape(-1, 3), own]).astype(np.int32)
        uv = np.concatenate([uv[whole], uv[torn[:, 0]].repeat(3, axis=0)])
        low, high = uv.min(0), uv.max(0)
        grid = (uv - low) / (high - low) * np.float32(size - 1)
        self.pixel = np.stack([grid[:, 0], size - 1 - grid[:, 1]], -1)  # v points up
        self._depth_dm = DISTANCE_DM - mean_vertices[self.vertex, 2]

    @functools.cached_property
    def back_to_front(self) -> Int[np.ndarray, "triangles 3"]:
        """The triangles in an order in which those in front are painted last: teeth overlap on the map."""
        order = np.argsort(-self._depth_dm[self.triangles].sum(1), kind="stable")
        return self.triangles[order]

    @functools.cached_property
    def fragments(self) -> Fragments:
        """What each pixel shows. Only the teeth overlap on the map, front and back: the front wins."""
        placed = np.concatenate([self.pixel, 1 / self._depth_dm[:, None]], -1)[None]
        triangle = kernels.visible_triangles(placed, self.triangles, self.size)
        return Fragments(triangle[0], kernels.pixel_barycentric(placed, self.triangles, triangle)[0])

    @property
    def mask(self) -> Bool[np.ndarray, "size size"]:
        """Pixels that show the surface."""
        return self.fragments.triangle >= 0

    def sample(self, attributes: Float32[np.ndarray, "vertices channels"]) -> Float32[np.ndarray, "size size channels"]:
        """Spread attributes of the model's vertices over the grid; zero outside the mask."""
        triangle, barycentric = self.fragments
        return kernels.interpolate(triangle[None], barycentric[None], attributes[None, self.vertex], self.triangles)[0]


def _longest_side(corners: Float[np.ndarray, "triangles 3 axes"]) -> Float[np.ndarray, " triangles"]:
    return np.sqrt(np.square(corners - np.roll(corners, 1, axis=1)).sum(-1)).max(-1)


def bilinear(image: UInt8[np.ndarray, "H W 3"], at: Float[np.ndarray, "N 2"]) -> Float32[np.ndarray, "N 3"]:
    """Look up colors (0 to 255) at places (x, y), pixel centers at integers; beyond the image its edge."""
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
    return (upper * (1 - v) + lower * v).astype(np.float32)


def spread(
    texture: UInt8[np.ndarray, "size size 3"], mask: Bool[np.ndarray, "size size"]
) -> UInt8[np.ndarray, "size size 3"]:
    """Return the texture with colors from nearby everywhere outside the mask: viewers filter across the mask's rim.

    Each pixel outside takes the mean color of the smallest square of 2, 4, 8, ... pixels around it that has any.

    Returns:
        A new array; a texture without any mask comes back as it is.
    """
    levels = [(texture.copy(), mask.copy())]
    while not levels[-1][1].all() and len(levels[-1][1]) > 1:
        colors, known = levels[-1]
        side = (len(known) + 1) // 2
        coarse = np.zeros((side, side, 3), np.uint8), np.zeros((side, side), np.bool_)
        _halve(colors, known, *coarse)
        levels.append(coarse)
    for (colors, known), (coarse_colors, coarse_known) in zip(levels[-2::-1], levels[:0:-1], strict=True):
        _fill_from(coarse_colors, coarse_known, colors, known)
    return levels[0][0]


@compiled()
def _halve(colors: Any, known: Any, coarse_colors: Any, coarse_known: Any) -> None:
    """Average the known pixels of each square of four."""
    side = known.shape[0]
    for row in range(coarse_known.shape[0]):
        for column in range(coarse_known.shape[1]):
            count = 0
            red = green = blue = 0
            for i in range(2 * row, min(2 * row + 2, side)):
                for j in range(2 * column, min(2 * column + 2, side)):
                    if known[i, j]:
                        count += 1
                        red += colors[i, j, 0]
                        green += colors[i, j, 1]
                        blue += colors[i, j, 2]
            if count:
                coarse_known[row, column] = True
                coarse_colors[row, column, 0] = (red + count // 2) // count
                coarse_colors[row, column, 1] = (green + count // 2) // count
                coarse_colors[row, column, 2] = (blue + count // 2) // count


@compiled()
def _fill_from(coarse_colors: Any, coarse_known: Any, colors: Any, known: Any) -> None:
    for row in range(known.shape[0]):
        for column in range(known.shape[1]):
            if not known[row, column] and coarse_known[row // 2, column // 2]:
                known[row, column] = True
                for channel in range(3):
                    colors[row, column, channel] = coarse_colors[row // 2, column // 2, channel]
