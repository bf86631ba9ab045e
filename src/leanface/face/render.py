"""Coefficients to pixels: shape, pose, lighting, projection, rasterisation."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from leanface.face.camera import camera_from_model, image_from_camera
from leanface.face.coefficients import split
from leanface.face.lighting import shade
from leanface.face.morphable_model import MorphableModel
from leanface.face.rasterize import Fragments, interpolate, rasterize


class Rendering(NamedTuple):
    """`image` holds colours in [0,1], premultiplied by `alpha`, the share of each pixel that the head covers."""

    image: Float[Tensor, "batch 3 size size"]
    alpha: Float[Tensor, "batch 1 size size"]


class Renderer(nn.Module):
    """Renders heads to square images, `supersample` x `supersample` samples to a pixel. No gradients."""

    def __init__(self, model: MorphableModel, size: int, supersample: int = 1, backend: str = "auto") -> None:
        super().__init__()
        self.model = model
        self.size = size
        self.supersample = supersample
        self.backend = backend
        self._ring: Tensor | None = None

    @torch.no_grad()
    def forward(self, coefficients: Float[Tensor, "batch 257"]) -> Rendering:
        parts = split(coefficients.float())
        vertices_camera = self._vertices_camera(coefficients)
        normals = self._normals(vertices_camera)
        colours = shade(self.model.albedo(parts.albedo), normals, parts.lighting)
        fragments = self._rasterize(vertices_camera)
        image = interpolate(fragments, colours, self.model.triangles).permute(0, 3, 1, 2)
        return Rendering(self._reduce(image), self._reduce((fragments.triangle >= 0).float()[:, None]))

    @torch.no_grad()
    def face_alpha(self, coefficients: Float[Tensor, "batch 257"]) -> Bool[Tensor, "batch 1 size size"]:
        """Pixels most of which show the face region (not the neck, the ears or the back of the head)."""
        fragments = self._rasterize(self._vertices_camera(coefficients))
        region = self.model.face_mask.float()[None, :, None].expand(len(coefficients), -1, -1)
        shown = interpolate(fragments, region.contiguous(), self.model.triangles).permute(0, 3, 1, 2)
        return self._reduce(shown) > 0.5

    def _vertices_camera(self, coefficients: Tensor) -> Tensor:
        parts = split(coefficients.float())
        vertices = self.model.vertices(parts.identity, parts.expression)
        return camera_from_model(vertices, parts.angles_rad, parts.translation)

    def _normals(self, vertices: Tensor) -> Tensor:
        if not vertices.is_cuda:
            from leanface.face import rasterize_numba

            return rasterize_numba.vertex_normals(vertices, self.model.triangles)
        from leanface.face import rasterize_triton

        if self._ring is None or self._ring.device != vertices.device:
            self._ring = rasterize_triton.vertex_ring(self.model.triangles, self.model.vertex_count)
        return rasterize_triton.vertex_normals(vertices, self._ring)

    def _rasterize(self, vertices_camera: Tensor) -> Fragments:
        size = self.size * self.supersample
        return rasterize(image_from_camera(vertices_camera, size), self.model.triangles, size, self.backend)

    def _reduce(self, image: Tensor) -> Tensor:
        return image if self.supersample == 1 else F.avg_pool2d(image, self.supersample)
