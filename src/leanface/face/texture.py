"""UV maps: the surface unwrapped by the model's own texture coordinates, independent of pose and light."""

from typing import cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from leanface.face.camera import DISTANCE_DM
from leanface.face.coefficients import split
from leanface.face.morphable_model import MorphableModel
from leanface.face.rasterize import Fragments, interpolate, rasterize

SEAM_STRETCH = 4.0
"""A triangle that is larger on the map, relative to its size on the mean head, than so many times the median triangle
lies across a seam."""


class UvMap:
    """Samples per-vertex attributes of the face region, or of the whole head, on a square UV grid that it fills.

    A vertex at a seam of the texture keeps its place on one side of it. A triangle on the other side would span the
    map: it gets vertices of its own, all at the place of its first corner, and so has that corner's colour.

    Attributes:
        vertex: the model's vertex that each vertex of the map is.
        triangles: of the map's vertices, wound like the model's.
        pixel: where the map's vertices lie on the grid: x right, y down, pixel centres at integers.
        mask: pixels that show the surface.
    """

    vertex: Int[Tensor, " corners"]
    triangles: Int[Tensor, "triangles 3"]
    pixel: Float[Tensor, "corners 2"]
    mask: Bool[Tensor, "size size"]

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
        # Only the teeth overlap in UV space, front and back: the front wins.
        nearness = 1 / (DISTANCE_DM - model.mean_vertices[self.vertex, 2:])
        self._fragments = rasterize(torch.cat([self.pixel, nearness], -1)[None], self.triangles, size)
        self.mask = self._fragments.triangle[0] >= 0

    def sample(self, attributes: Float[Tensor, "batch vertices channels"]) -> Float[Tensor, "batch size size channels"]:
        """Attributes of the model's vertices over the grid; zero outside the mask."""
        batch = len(attributes)
        repeated = Fragments(*(part.expand(batch, *part.shape[1:]).contiguous() for part in self._fragments))
        return interpolate(repeated, attributes[:, self.vertex], self.triangles)

    def position(self, coefficients: Float[Tensor, "batch 257"]) -> Float[Tensor, "batch size size 3"]:
        """Vertex positions in the model's frame (no pose), in decimetres."""
        parts = split(coefficients)
        return self.sample(self.model.vertices(parts.identity, parts.expression))

    def albedo(self, coefficients: Float[Tensor, "batch 257"]) -> Float[Tensor, "batch size size 3"]:
        """Skin colour in [0,1], without lighting."""
        return self.sample(self.model.albedo(split(coefficients).albedo))


def _longest_side(corners: Float[Tensor, "triangles 3 axes"]) -> Float[Tensor, " triangles"]:
    return (corners - corners.roll(1, 1)).square().sum(-1).sqrt().amax(-1)
