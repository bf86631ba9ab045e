"""UV maps: the surface unwrapped by the model's own texture coordinates, independent of pose and light."""

import functools
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from leanface.face.camera import DISTANCE_DM
from leanface.face.coefficients import split
from leanface.face.compiled import compiled
from leanface.face.morphable_model import MorphableModel
from leanface.face.rasterize import Fragments, interpolate, rasterize

SEAM_STRETCH = 4.0
"""A triangle that is larger on the map, relative to its size on the mean head, than so many times the median triangle
lies across a seam."""


class UvMap:
    """Samples per-vertex attributes of the face region, or of the whole head, on a square UV grid that it fills.

    A vertex at a seam of the texture keeps its place on one side of it. A triangle on the other side would span the
    map: it gets vertices of its own, all at the place of its first corner, and so has that corner's color.

    Attributes:
        vertex: the model's vertex that each vertex of the map is.
        triangles: of the map's vertices, wound like the model's.
        pixel: where the map's vertices lie on the grid: x right, y down, pixel centers at integers.
    """

    vertex: Int[Tensor, " corners"]
    triangles: Int[Tensor, "triangles 3"]
    pixel: Float[Tensor, "corners 2"]

    def __init__(self, model: MorphableModel, size: int, whole_head: bool = False) -> None:
        self.model = model
        self.size = size
        triangles = model.triangles if whole_head else model.triangles[model.face_mask[model.triangles].all(-1)]
        stretch = _longest_side(model.uv[triangles]) / _longest_side(model.mean_vertices[triangles])
        at_seam = stretch > SEAM_STRETCH * stretch.median()
        torn = triangles[at_seam]
        whole, renumbered = cast(tuple[Tensor, Tensor], triangles[~at_seam].unique(return_inverse=True))
        self.vertex = torch.cat([whole, torn.flatten()])
        own = torch.arange(len(whole), len(self.vertex), device=whole.device).view(-1, 3)
        self.triangles = torch.cat([renumbered, own])
        uv = torch.cat([model.uv[whole], model.uv[torn[:, :1]].expand(-1, 3, 2).flatten(0, 1)])
        low, high = uv.amin(0), uv.amax(0)
        grid = (uv - low) / (high - low) * (size - 1)
        self.pixel = torch.stack([grid[:, 0], size - 1 - grid[:, 1]], -1)  # v points up

    @functools.cached_property
    def _fragments(self) -> Fragments:
        # Only the teeth overlap in UV space, front and back: the front wins.
        nearness = 1 / (DISTANCE_DM - self.model.mean_vertices[self.vertex, 2:])
        return rasterize(torch.cat([self.pixel, nearness], -1)[None], self.triangles, self.size)

    @functools.cached_property
    def mask(self) -> Bool[Tensor, "size size"]:
        """Pixels that show the surface."""
        return self._fragments.triangle[0] >= 0

    def sample(self, attributes: Float[Tensor, "batch vertices channels"]) -> Float[Tensor, "batch size size channels"]:
        """Attributes of the model's vertices over the grid; zero outside the mask."""
        batch = len(attributes)
        repeated = Fragments(*(part.expand(batch, *part.shape[1:]).contiguous() for part in self._fragments))
        return interpolate(repeated, attributes[:, self.vertex], self.triangles)

    def position(self, coefficients: Float[Tensor, "batch 257"]) -> Float[Tensor, "batch size size 3"]:
        """Vertex positions in the model's frame (no pose), in decimeters."""
        parts = split(coefficients)
        return self.sample(self.model.vertices(parts.identity, parts.expression))

    def albedo(self, coefficients: Float[Tensor, "batch 257"]) -> Float[Tensor, "batch size size 3"]:
        """Skin color in [0,1], without lighting."""
        return self.sample(self.model.albedo(split(coefficients).albedo))


def _longest_side(corners: Float[Tensor, "triangles 3 axes"]) -> Float[Tensor, " triangles"]:
    return (corners - corners.roll(1, 1)).square().sum(-1).sqrt().amax(-1)


def spread(
    texture: UInt8[np.ndarray, "size size 3"], mask: Bool[np.ndarray, "size size"]
) -> UInt8[np.ndarray, "size size 3"]:
    """The texture with colors from nearby everywhere outside the mask: viewers filter across the mask's rim.

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
    """Means of the known pixels of each square of four."""
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
