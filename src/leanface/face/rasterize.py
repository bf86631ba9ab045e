"""Which triangle each pixel sees, and where in it: a z-buffer rasterizer for batches of meshes that share triangles.

Three implementations of one definition: PyTorch (any device, the reference), numba (fast on the CPU) and Triton (fast
on CUDA). Pixel centers lie at integers; a triangle covers a center that is inside it or on its edge; only triangles
that face the camera (counter-clockwise with y up) are seen, where they lie in front of it (1 / depth above 0); the
nearest wins, and of equally near ones the one that comes first. Not differentiable: no loss of LeanFace's goes through
pixels.
"""

import importlib
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from leanface.errors import BackendError
from leanface.face.geometry import MIN_AREA_PX2


class Fragments(NamedTuple):
    """`triangle` is -1 where a pixel sees nothing; `barycentric` weighs the triangle's three corners there."""

    triangle: Int[Tensor, "batch height width"]
    barycentric: Float[Tensor, "batch height width 3"]


def visible_triangles(
    vertices_image: Float[Tensor, "batch vertices 3"], triangles: Int[Tensor, "triangles 3"], size: int
) -> Int[Tensor, "batch size size"]:
    """The PyTorch implementation: lists every pixel of every triangle's bounding box, then one scatter-maximum.

    The maximum is over 64-bit keys: the bits of 1/depth (positive floats sort like their bits) above the inverted
    triangle index.
    """
    batch, count = len(vertices_image), len(triangles)
    corners = vertices_image[:, triangles].reshape(-1, 3, 3)
    area = _edge(corners[:, 0], corners[:, 1], corners[:, 2])
    low = corners[..., :2].amin(1).ceil().clamp_min(0)
    high = corners[..., :2].amax(1).floor().clamp_max(size - 1)
    extent = (high - low + 1).clamp_min(0).long()
    pixels = extent[:, 0] * extent[:, 1] * (area < -MIN_AREA_PX2)
    seen = pixels.nonzero()[:, 0]

    owner = torch.repeat_interleave(seen, pixels[seen])
    first = torch.cumsum(pixels[seen], 0) - pixels[seen]
    offset = torch.arange(len(owner), device=owner.device) - torch.repeat_interleave(first, pixels[seen])
    row = torch.div(offset, extent[owner, 0], rounding_mode="floor")
    x = low[owner, 0] + (offset - row * extent[owner, 0])
    y = low[owner, 1] + row

    weights = _barycentric(corners[owner], x, y)
    inverse_depth = (weights * corners[owner, :, 2]).sum(-1)
    inside = (weights >= 0).all(-1) & (inverse_depth > 0)
    key = (inverse_depth.view(torch.int32).long() << 32) | (0x7FFFFFFF - owner % count)
    pixel = torch.div(owner, count, rounding_mode="floor") * size * size + (y * size + x).long()
    buffer = torch.zeros(batch * size * size, dtype=torch.int64, device=vertices_image.device)
    buffer.scatter_reduce_(0, pixel[inside], key[inside], "amax")
    nearest = torch.where(buffer > 0, 0x7FFFFFFF - (buffer & 0xFFFFFFFF), -1)
    return nearest.view(batch, size, size)


def _edge(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """Compute twice the signed area of the triangles (a, b, c) in image space."""
    return (b[..., 0] - a[..., 0]) * (c[..., 1] - a[..., 1]) - (c[..., 0] - a[..., 0]) * (b[..., 1] - a[..., 1])


def _barycentric(corners: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Compute the weights (...,3) of the corners (...,3,2 or more) at (x, y)."""
    a, b, c = corners.unbind(-2)
    inverse = 1.0 / _edge(a, b, c)
    second = ((x - a[..., 0]) * (c[..., 1] - a[..., 1]) - (c[..., 0] - a[..., 0]) * (y - a[..., 1])) * inverse
    third = ((b[..., 0] - a[..., 0]) * (y - a[..., 1]) - (x - a[..., 0]) * (b[..., 1] - a[..., 1])) * inverse
    return torch.stack([1.0 - second - third, second, third], dim=-1)


def _gather_corners(attributes: Tensor, triangles: Tensor, triangle: Tensor) -> Tensor:
    """Attributes (B,V,C) of each pixel's three corners: (B,H,W,3,C); index -1 reads triangle 0."""
    corner_index = triangles[triangle.clamp_min(0)]
    batch = torch.arange(len(attributes), device=attributes.device).view(-1, 1, 1, 1)
    return attributes[batch, corner_index]


def _pixel_barycentric(vertices_image: Tensor, triangles: Tensor, triangle: Tensor) -> Tensor:
    size = triangle.shape[-1]
    at = torch.arange(size, device=vertices_image.device, dtype=vertices_image.dtype)
    weights = _barycentric(_gather_corners(vertices_image, triangles, triangle), at.view(1, 1, -1), at.view(1, -1, 1))
    return torch.where((triangle >= 0)[..., None], weights, 0.0)


def _fast(name: str) -> Any:
    """A fast backend's module, imported when first needed: numba compiles, and Triton is absent without CUDA."""
    return importlib.import_module(f"leanface.face.rasterize_{name}")


BACKENDS = ("torch", "numba", "triton")


def rasterize(
    vertices_image: Float[Tensor, "batch vertices 3"],
    triangles: Int[Tensor, "triangles 3"],
    size: int,
    backend: str = "auto",
) -> Fragments:
    """Rasterize to square images.

    Args:
        vertices_image: x and y in pixels and 1 / depth (see `leanface.face.camera.image_from_camera`), float32.
        triangles: vertex indices, int64, on the same device.
        size: image height and width in pixels.
        backend: one of BACKENDS, or "auto": Triton on CUDA, numba on the CPU.

    Raises:
        BackendError: there is no backend of that name.
    """
    if backend not in ("auto", *BACKENDS):
        raise _unknown(backend)
    vertices_image = vertices_image.detach().contiguous()
    if backend == "torch":
        triangle = visible_triangles(vertices_image, triangles, size)
        return Fragments(triangle, _pixel_barycentric(vertices_image, triangles, triangle))
    fast = _fast(fast_backend(vertices_image) if backend == "auto" else backend)
    triangle = fast.visible_triangles(vertices_image, triangles, size)
    return Fragments(triangle, fast.pixel_barycentric(vertices_image, triangles, triangle))


def fast_backend(tensor: Tensor) -> str:
    """Return the fast backend for tensors on this device."""
    return "triton" if tensor.is_cuda else "numba"


def interpolate(
    fragments: Fragments,
    attributes: Float[Tensor, "batch vertices channels"],
    triangles: Int[Tensor, "triangles 3"],
) -> Float[Tensor, "batch height width channels"]:
    """Per-vertex attributes at every pixel; zero where a pixel sees nothing. Differentiable in the attributes."""
    if attributes.requires_grad or attributes.dtype != torch.float32:
        corners = _gather_corners(attributes, triangles, fragments.triangle)
        return (fragments.barycentric[..., None] * corners).sum(-2)
    fast = _fast(fast_backend(attributes))
    return fast.interpolate(fragments.triangle, fragments.barycentric, attributes.contiguous(), triangles)


def draw(
    vertices_image: Float[Tensor, "batch vertices 3"],
    attributes: Float[Tensor, "batch vertices 3"],
    triangles: Int[Tensor, "triangles 3"],
    size: int,
    supersample: int = 1,
    backend: str = "auto",
) -> Float[Tensor, "batch 4 size size"]:
    """Anti-aliased images: attributes, zero where nothing is seen, then coverage, each a mean over a pixel's samples.

    The same as `rasterize`, `interpolate` and pooling, without what lies between them in memory.

    Args:
        vertices_image: as for `rasterize`, in an image of `size` times `supersample` pixels.
        attributes: three for each vertex.
        triangles: vertex indices, int64, on the same device.
        size: image height and width in pixels.
        supersample: samples per pixel and direction.
        backend: as for `rasterize`.
    """
    if backend == "torch":
        fragments = rasterize(vertices_image, triangles, size * supersample, backend)
        attributes = torch.cat([attributes, torch.ones_like(attributes[..., :1])], -1)
        return F.avg_pool2d(interpolate(fragments, attributes, triangles).permute(0, 3, 1, 2), supersample)
    if backend not in ("auto", *BACKENDS):
        raise _unknown(backend)
    fast = _fast(fast_backend(vertices_image) if backend == "auto" else backend)
    return fast.draw(vertices_image.detach().contiguous(), attributes.contiguous(), triangles, size, supersample)


def _unknown(backend: str) -> BackendError:
    return BackendError(f"no rasterizer is called {backend!r}; choose from auto, {', '.join(BACKENDS)}.")
