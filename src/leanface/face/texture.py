"""UV maps: the face region unwrapped by the model's own texture coordinates, independent of pose and light."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from leanface.face.coefficients import split
from leanface.face.morphable_model import MorphableModel
from leanface.face.rasterize import Fragments, interpolate, rasterize


class UvMap:
    """Samples per-vertex attributes of the face region on a square UV grid that the region fills."""

    mask: Bool[Tensor, "size size"]

    def __init__(self, model: MorphableModel, size: int) -> None:
        self.model = model
        self.size = size
        inside = model.face_mask[model.triangles].all(-1)
        self._triangles = model.triangles[inside]
        uv = model.uv[self._triangles.unique()]
        low, high = uv.amin(0), uv.amax(0)
        grid = (model.uv - low) / (high - low) * (size - 1)
        # v points up and image rows down; every depth is the same, since nothing overlaps in UV space.
        flat = torch.stack([grid[:, 0], size - 1 - grid[:, 1], torch.ones_like(grid[:, 0])], -1)[None]
        self._fragments = rasterize(flat, self._triangles, size)
        self.mask = self._fragments.triangle[0] >= 0

    def sample(self, attributes: Float[Tensor, "batch vertices channels"]) -> Float[Tensor, "batch size size channels"]:
        """Attributes over the grid; zero outside the mask."""
        batch = len(attributes)
        repeated = Fragments(*(part.expand(batch, *part.shape[1:]).contiguous() for part in self._fragments))
        return interpolate(repeated, attributes, self._triangles)

    def position(self, coefficients: Float[Tensor, "batch 257"]) -> Float[Tensor, "batch size size 3"]:
        """Vertex positions in the model's frame (no pose), in decimetres."""
        parts = split(coefficients)
        return self.sample(self.model.vertices(parts.identity, parts.expression))

    def albedo(self, coefficients: Float[Tensor, "batch 257"]) -> Float[Tensor, "batch size size 3"]:
        """Skin colour in [0,1], without lighting."""
        return self.sample(self.model.albedo(split(coefficients).albedo))
