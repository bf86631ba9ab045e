"""UV layouts: the surface unwrapped by the model's own texture coordinates, independent of pose and light."""

import functools
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, UInt8

from leanface.face import kernels
from leanface.face.compiled import compiled
from leanface.face.geometry import DISTANCE_DM
from leanface.face.texture_runs import Runs, Spans, triangle_map

SEAM_STRETCH = 4.0
"""A triangle that is larger on the map, relative to its size on the mean head, than so many times the median triangle
lies across a seam."""


class Fragments(NamedTuple):
    """`triangle` is -1 where a pixel sees nothing; `barycentric` weighs the triangle's three corners there."""

    triangle: Int[np.ndarray, "size size"]
    barycentric: Float32[np.ndarray, "size size 3"]


class Painting(NamedTuple):
    """What painting a texture takes that is the same for all faces.

    Attributes:
        runs: of texels, with the triangles that they show.
        spans: the same by triangle.
        triangles: of the model's vertices, those that are shown, from the first row on.
        planes: of each triangle, the first corner's x and y (texels), how the second corner's weight grows with x and
            with y, and how the third one's does.
        areas: of the triangles, in texels.
    """

    runs: Runs
    spans: Spans
    triangles: Int[np.ndarray, "triangles 3"]
    planes: Float32[np.ndarray, "triangles 6"]
    areas: Float[np.ndarray, " triangles"]


class UvLayout:
    """Where a surface's triangles lie on a square UV grid that they fill.

    A vertex at a seam of the texture keeps its place on one side of it. A triangle on the other side would span the
    map: it gets vertices of its own, two in their places, and the one across the seam in the place of one of these.

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
        at_seam = across_seams(uv, triangles, mean_vertices)
        torn = triangles[at_seam]
        whole, renumbered = np.unique(triangles[~at_seam], return_inverse=True)
        self.vertex = np.concatenate([whole, torn.ravel()])
        own = np.arange(len(whole), len(self.vertex)).reshape(-1, 3)
        self.triangles = np.concatenate([renumbered.reshape(-1, 3), own]).astype(np.int32)
        uv = np.concatenate([uv[whole], _folded(uv[torn]).reshape(-1, 2)])
        low, high = uv.min(0), uv.max(0)
        grid = (uv - low) / (high - low) * np.float32(size - 1)
        self.pixel = np.stack([grid[:, 0], size - 1 - grid[:, 1]], -1)  # v points up
        self._depth_dm = DISTANCE_DM - mean_vertices[self.vertex, 2]

    @functools.cached_property
    def painting(self) -> "Painting":
        """How the texture is painted. Only the teeth overlap on the map, front and back: the front wins."""
        order = np.argsort(-self._depth_dm[self.triangles].sum(1), kind="stable")
        triangles = self.triangles[order]
        runs, shown = Runs.of(triangle_map(self.pixel, triangles, self.size)).by_first_row()
        triangles = triangles[shown]
        first, second, third = self.pixel[triangles].transpose(1, 0, 2).astype(np.float64)
        to_second, to_third = second - first, third - first
        area = to_second[:, 0] * to_third[:, 1] - to_third[:, 0] * to_second[:, 1]
        slopes = [to_third[:, 1], -to_third[:, 0], -to_second[:, 1], to_second[:, 0]] / area
        planes = np.concatenate([first.T, slopes]).T.astype(np.float32)
        corners = self.vertex[triangles].astype(np.int32)
        return Painting(runs, runs.spans(), corners, np.ascontiguousarray(planes), np.abs(area) / 2)

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


def across_seams(
    uv: Float32[np.ndarray, "vertices 2"],
    triangles: Int[np.ndarray, "triangles 3"],
    mean_vertices: Float32[np.ndarray, "vertices 3"],
) -> Bool[np.ndarray, " triangles"]:
    """Find the triangles that lie across a seam of the map."""
    stretch = _longest_side(uv[triangles]) / _longest_side(mean_vertices[triangles])
    return stretch > SEAM_STRETCH * np.median(stretch)


def _folded(corners: Float32[np.ndarray, "triangles 3 2"]) -> Float32[np.ndarray, "triangles 3 2"]:
    """Let each triangle's corner that is far from the other two on the map take the place of one of these."""
    sides = np.square(corners - np.roll(corners, -1, axis=1)).sum(-1)
    triangle, near = np.arange(len(corners)), sides.argmin(1)  # which begins the shortest side
    folded = corners.copy()
    # One of the two is the first corner: the area is 0 then, however a rasterizer rounds.
    folded[triangle, (near + 2) % 3] = corners[triangle, near % 2]
    return folded


def _longest_side(corners: Float[np.ndarray, "triangles 3 axes"]) -> Float[np.ndarray, " triangles"]:
    return np.sqrt(np.square(corners - np.roll(corners, 1, axis=1)).sum(-1)).max(-1)


def bilinear(image: UInt8[np.ndarray, "H W 3"], at: Float[np.ndarray, "N 2"]) -> Float32[np.ndarray, "N 3"]:
    """Look up colors (0 to 255) at places (x, y), pixel centers at integers; beyond the image its edge."""
    colors = np.empty((len(at), 3), np.float32)
    _look_up(image, at, colors)
    return colors


@compiled()
def _look_up(image: Any, at: Any, colors: Any) -> None:
    last_x, last_y = np.float32(image.shape[1] - 1), np.float32(image.shape[0] - 1)
    zero, one = np.float32(0), np.float32(1)
    for index in range(at.shape[0]):
        x = min(max(np.float32(at[index, 0]), zero), last_x)
        y = min(max(np.float32(at[index, 1]), zero), last_y)
        left, top = int(x), int(y)
        right, bottom = min(left + 1, image.shape[1] - 1), min(top + 1, image.shape[0] - 1)
        u, v = x - np.float32(left), y - np.float32(top)
        for channel in range(3):
            upper = (one - u) * image[top, left, channel] + u * image[top, right, channel]
            lower = (one - u) * image[bottom, left, channel] + u * image[bottom, right, channel]
            colors[index, channel] = (one - v) * upper + v * lower
