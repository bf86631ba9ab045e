"""Which triangle each pixel sees, and where in it: a z-buffer rasterizer for batches of meshes that share triangles.

Two implementations of one definition: numba on the CPU and Triton on CUDA. Pixel centers lie at integers; a triangle
covers a center that is inside it or on its edge; only triangles that face the camera (counter-clockwise with y up) are
seen, where they lie in front of it (1 / depth above 0); the nearest wins, and of equally near ones the one that comes
first. Nothing is differentiable: no loss of LeanFace's goes through pixels.
"""

import importlib
from typing import Any, NamedTuple

from jaxtyping import Float, Int
from torch import Tensor


class Fragments(NamedTuple):
    """`triangle` is -1 where a pixel sees nothing; `barycentric` weighs the triangle's three corners there."""

    triangle: Int[Tensor, "batch height width"]
    barycentric: Float[Tensor, "batch height width 3"]


def kernels_for(tensor: Tensor) -> Any:
    """Import the kernels for a tensor's device when they are first needed: numba compiles, Triton may be absent."""
    return importlib.import_module(f"leanface.face.rasterize_{'triton' if tensor.is_cuda else 'numba'}")


def rasterize(
    vertices_image: Float[Tensor, "batch vertices 3"], triangles: Int[Tensor, "triangles 3"], size: int
) -> Fragments:
    """Rasterize to square images.

    Args:
        vertices_image: x and y in pixels and 1 / depth (see `leanface.face.camera.image_from_camera`), float32.
        triangles: vertex indices, int64, on the same device.
        size: image height and width in pixels.
    """
    fast, vertices_image = kernels_for(vertices_image), vertices_image.detach().contiguous()
    triangle = fast.visible_triangles(vertices_image, triangles, size)
    return Fragments(triangle, fast.pixel_barycentric(vertices_image, triangles, triangle))


def interpolate(
    fragments: Fragments,
    attributes: Float[Tensor, "batch vertices channels"],
    triangles: Int[Tensor, "triangles 3"],
) -> Float[Tensor, "batch height width channels"]:
    """Interpolate vertices' attributes, float32, at every pixel, zero where it sees nothing."""
    fast = kernels_for(attributes)
    return fast.interpolate(fragments.triangle, fragments.barycentric, attributes.contiguous(), triangles)


def draw(
    vertices_image: Float[Tensor, "batch vertices 3"],
    attributes: Float[Tensor, "batch vertices 3"],
    triangles: Int[Tensor, "triangles 3"],
    size: int,
    supersample: int = 1,
) -> Float[Tensor, "batch 4 size size"]:
    """Draw anti-aliased images: attributes, zero where nothing is seen, and coverage, as means over a pixel's samples.

    The same as `rasterize`, `interpolate` and pooling, without what lies between them in memory.

    Args:
        vertices_image: as for `rasterize`, in an image of `size` times `supersample` pixels.
        attributes: three for each vertex, float32.
        triangles: vertex indices, int64, on the same device.
        size: image height and width in pixels.
        supersample: samples per pixel and direction.
    """
    fast = kernels_for(vertices_image)
    return fast.draw(vertices_image.detach().contiguous(), attributes.contiguous(), triangles, size, supersample)
