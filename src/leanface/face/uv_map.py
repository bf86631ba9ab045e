"""UV maps for tensors: batches of heads over a UV layout, for the measures of quality."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from leanface.face.coefficients import split
from leanface.face.morphable_model import MorphableModel
from leanface.face.rasterize import Fragments, interpolate
from leanface.face.uv_layout import UvLayout


class UvMap:
    """Samples per-vertex attributes of the face region, or of the whole head, on a square UV grid that it fills.

    Attributes:
        layout: where the triangles lie; `vertex`, `triangles`, `pixel` and `mask` are its own as tensors.
    """

    vertex: Int[Tensor, " corners"]
    triangles: Int[Tensor, "triangles 3"]
    pixel: Float[Tensor, "corners 2"]
    mask: Bool[Tensor, "size size"]

    def __init__(self, model: MorphableModel, size: int, whole_head: bool = False) -> None:
        """Lay out a model's surface."""
        self.model = model
        self.size = size
        triangles = model.triangles if whole_head else model.triangles[model.face_mask[model.triangles].all(-1)]
        uv, corners, mean_vertices = (each.cpu().numpy() for each in (model.uv, triangles, model.mean_vertices))
        self.layout = UvLayout(uv, corners, mean_vertices, size)
        device = model.uv.device
        self.vertex, self.triangles, self.pixel, self.mask, triangle, barycentric = (
            torch.from_numpy(array).to(device)
            for array in (
                self.layout.vertex,
                self.layout.triangles.astype("int64"),
                self.layout.pixel,
                self.layout.mask,
                *self.layout.fragments,
            )
        )
        self._fragments = Fragments(triangle[None], barycentric[None])

    def sample(self, attributes: Float[Tensor, "batch vertices channels"]) -> Float[Tensor, "batch size size channels"]:
        """Sample attributes of the model's vertices over the grid; zero outside the mask."""
        batch = len(attributes)
        repeated = Fragments(*(part.expand(batch, *part.shape[1:]).contiguous() for part in self._fragments))
        return interpolate(repeated, attributes[:, self.vertex], self.triangles)

    def position(self, coefficients: Float[Tensor, "batch 257"]) -> Float[Tensor, "batch size size 3"]:
        """Sample vertex positions in the model's frame (no pose), in decimeters."""
        parts = split(coefficients)
        return self.sample(self.model.vertices(parts.identity, parts.expression))

    def albedo(self, coefficients: Float[Tensor, "batch 257"]) -> Float[Tensor, "batch size size 3"]:
        """Sample skin color in [0,1], without lighting."""
        return self.sample(self.model.albedo(split(coefficients).albedo))
