"""Coefficients to pixels: shape, pose, lighting, projection, rasterization."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from leanface.face.camera import camera_from_model, image_from_camera
from leanface.face.coefficients import split
from leanface.face.morphable_model import MorphableModel
from leanface.face.rasterize import draw, kernels_for


class Rendering(NamedTuple):
    """`image` holds colors in [0,1], premultiplied by `alpha`, the share of each pixel that the head covers."""

    image: Float[Tensor, "batch 3 size size"]
    alpha: Float[Tensor, "batch 1 size size"]


class Renderer(nn.Module):
    """Renders heads to square images, `supersample` x `supersample` samples to a pixel. No gradients."""

    def __init__(self, model: MorphableModel, size: int, supersample: int = 1) -> None:
        super().__init__()
        self.model = model
        self.size = size
        self.supersample = supersample
        self._ring: tuple[Tensor, Tensor] | None = None

    @torch.no_grad()
    def forward(self, coefficients: Float[Tensor, "batch 257"]) -> Rendering:
        parts = split(coefficients.float())
        vertices_camera = self._vertices_camera(coefficients)
        light = self.irradiance(self.normals(vertices_camera, self.model.triangles), parts.lighting)
        colors = (self.model.albedo(parts.albedo) * light).clamp(0.0, 1.0)
        return self.draw(vertices_camera, colors, self.model.triangles)

    @torch.no_grad()
    def face_alpha(self, coefficients: Float[Tensor, "batch 257"]) -> Bool[Tensor, "batch 1 size size"]:
        """Return the pixels most of which show the face region (not the neck, the ears or the back of the head)."""
        region = self.model.face_mask.float()[None, :, None].expand(len(coefficients), -1, 3)
        return self.draw(self._vertices_camera(coefficients), region, self.model.triangles).image[:, :1] > 0.5

    def draw(
        self,
        vertices_camera: Float[Tensor, "batch vertices 3"],
        colors: Float[Tensor, "batch vertices 3"],
        triangles: Int[Tensor, "triangles 3"],
    ) -> Rendering:
        """Draw any meshes that share their triangles, with a color per vertex."""
        vertices_image = image_from_camera(vertices_camera, self.size * self.supersample)
        drawn = draw(vertices_image, colors, triangles, self.size, self.supersample)
        return Rendering(drawn[:, :3], drawn[:, 3:])

    def normals(
        self, vertices: Float[Tensor, "batch vertices 3"], triangles: Int[Tensor, "triangles 3"]
    ) -> Float[Tensor, "batch vertices 3"]:
        """Compute unit normals, by the device's fast path (see `leanface.face.lighting.vertex_normals`)."""
        fast = kernels_for(vertices)
        if not vertices.is_cuda:
            return fast.vertex_normals(vertices, triangles)
        if self._ring is None or self._ring[0] is not triangles:
            self._ring = triangles, fast.vertex_ring(triangles, vertices.shape[1])
        return fast.vertex_normals(vertices, self._ring[1])

    def irradiance(
        self, normals: Float[Tensor, "batch vertices 3"], lighting: Float[Tensor, "batch 27"]
    ) -> Float[Tensor, "batch vertices 3"]:
        """Compute the light on each vertex, by the device's fast path (see `leanface.face.lighting.irradiance`)."""
        return kernels_for(normals).irradiance(normals, lighting)

    def _vertices_camera(self, coefficients: Tensor) -> Tensor:
        parts = split(coefficients.float())
        vertices = self.model.vertices(parts.identity, parts.expression)
        return camera_from_model(vertices, parts.angles_rad, parts.translation)
