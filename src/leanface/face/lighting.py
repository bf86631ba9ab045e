"""Diffuse lighting by nine spherical-harmonic bands, whose factors are in `leanface.face.geometry`; vertex normals."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from leanface.face.geometry import BANDS, CONSTANT, LINEAR, QUADRATIC


def sh_basis(normals: Float[Tensor, "*shape 3"]) -> Float[Tensor, "*shape 9"]:
    """Compute the nine bands at unit normals, irradiance factors included."""
    x, y, z = normals.unbind(-1)
    return torch.stack(
        [
            torch.full_like(x, CONSTANT),
            -LINEAR * y,
            LINEAR * z,
            -LINEAR * x,
            QUADRATIC * x * y,
            -QUADRATIC * y * z,
            0.5 / math.sqrt(3) * QUADRATIC * (3 * z * z - 1),
            -QUADRATIC * x * z,
            0.5 * QUADRATIC * (x * x - y * y),
        ],
        dim=-1,
    )


def shade(
    albedo: Float[Tensor, "batch vertices 3"],
    normals: Float[Tensor, "batch vertices 3"],
    lighting: Float[Tensor, "batch 27"],
) -> Float[Tensor, "batch vertices 3"]:
    """Compute reflected colors in [0,1]. `lighting` is color-minor: 3 * band + channel."""
    return (albedo * irradiance(normals, lighting)).clamp(0.0, 1.0)


def irradiance(
    normals: Float[Tensor, "batch vertices 3"], lighting: Float[Tensor, "batch 27"]
) -> Float[Tensor, "batch vertices 3"]:
    """Compute the light that falls on a surface; negative light counts as none."""
    return (sh_basis(normals) @ lighting.reshape(-1, BANDS, 3)).clamp_min(0.0)


def vertex_normals(
    vertices: Float[Tensor, "batch vertices 3"], triangles: Int[Tensor, "triangles 3"]
) -> Float[Tensor, "batch vertices 3"]:
    """Compute unit normals: the area-weighted mean of the adjacent triangles' normals."""
    a, b, c = (vertices[:, triangles[:, corner]] for corner in range(3))
    face_normals = torch.cross(b - a, c - a, dim=-1)
    normals = torch.zeros_like(vertices)
    for corner in range(3):
        normals.index_add_(1, triangles[:, corner], face_normals)
    return torch.nn.functional.normalize(normals, dim=-1)
