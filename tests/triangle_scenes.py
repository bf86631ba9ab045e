"""Triangles that rasterizers must agree on, overlapping, degenerate or behind the camera, and a naive rasterizer."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from leanface.face.camera import image_from_camera
from leanface.face.rasterize import Fragments

SIZE = 24
"""Side of the pictures in pixels."""


def soup(seed: int) -> tuple[Tensor, Tensor]:
    """Two images of twelve overlapping triangles, partly outside, half of them seen from behind."""
    generator = torch.Generator().manual_seed(seed)
    vertices = torch.rand(2, 36, 3, generator=generator) * torch.tensor([SIZE + 8.0, SIZE + 8.0, 0.1])
    vertices[..., :2] -= 4.0
    vertices[..., 2] += 0.05
    return vertices, torch.arange(36).view(12, 3)


def whole_pixels(seed: int) -> tuple[Tensor, Tensor]:
    """Corners on pixel centers: every edge runs through centers, and many triangles have no area."""
    vertices, triangles = soup(seed)
    vertices[..., :2] = vertices[..., :2].div(4).round() * 4
    return vertices, triangles


def degenerate(seed: int) -> tuple[Tensor, Tensor]:
    """Corners that coincide, corners in one line, and slivers, between whole triangles."""
    vertices, triangles = soup(seed)
    vertices[:, 1] = vertices[:, 0]
    vertices[:, 5] = (vertices[:, 3] + vertices[:, 4]) / 2
    vertices[:, 8] = vertices[:, 7] + 1e-4
    return vertices, torch.cat([triangles, torch.tensor([[9, 9, 10], [11, 11, 11]])])


def off_screen(seed: int) -> tuple[Tensor, Tensor]:
    """Far outside on every side, across the whole picture, and larger than it."""
    vertices, triangles = soup(seed)
    vertices[:, :9, :2] += torch.tensor([100.0, 0.0])
    vertices[:, 9:12, :2] -= 1e6
    vertices[:, 12:18, :2] = (vertices[:, 12:18, :2] - SIZE / 2) * 40
    return vertices, triangles


def behind_the_camera(seed: int) -> tuple[Tensor, Tensor]:
    """Projected from around the camera: in front of it, behind it, and across its plane."""
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(2, 36, 3, generator=generator) * torch.tensor([0.5, 0.5, 1.0])
    points[:, :12, 2] += 8.0
    points[:, 12:24, 2] += 12.0
    points[:, 24:, 2] += 10.0
    return image_from_camera(points, SIZE), torch.arange(36).view(12, 3)


SCENES = [soup, whole_pixels, degenerate, off_screen, behind_the_camera]


def naive_rasterize(vertices: Tensor, triangles: Tensor, size: int) -> Fragments:
    """Every pixel against every triangle, by the definition, in float32."""
    row, column = np.mgrid[:size, :size].astype(np.float32)
    one = np.float32(1)
    found = np.full((len(vertices), size, size), -1)
    barycentric = np.zeros((len(vertices), size, size, 3), np.float32)
    for image, points in enumerate(vertices.numpy()):
        nearest = np.zeros((size, size), np.float32)
        for index, (a, b, c) in enumerate(points[triangles.numpy()]):
            with np.errstate(all="ignore"):
                area = (b[0] - a[0]) * (c[1] - a[1]) - (c[0] - a[0]) * (b[1] - a[1])
                if not area < -1e-9:  # from behind, edge-on, or not a number
                    continue
                second = ((column - a[0]) * (c[1] - a[1]) - (c[0] - a[0]) * (row - a[1])) * (one / area)
                third = ((b[0] - a[0]) * (row - a[1]) - (column - a[0]) * (b[1] - a[1])) * (one / area)
                first = one - second - third
                inverse_depth = first * a[2] + second * b[2] + third * c[2]
                seen = (first >= 0) & (second >= 0) & (third >= 0) & (inverse_depth > nearest)
            nearest[seen] = inverse_depth[seen]
            found[image][seen] = index
            barycentric[image][seen] = np.stack([first, second, third], -1)[seen]
    return Fragments(torch.from_numpy(found), torch.from_numpy(barycentric))


def naive_interpolate(fragments: Fragments, attributes: Tensor, triangles: Tensor) -> Tensor:
    """Weigh the attributes of each pixel's three corners; the weights are zero where it sees nothing."""
    image = torch.arange(len(attributes)).view(-1, 1, 1, 1)
    corners = attributes[image, triangles[fragments.triangle.clamp_min(0)]]
    return (fragments.barycentric[..., None] * corners).sum(-2)


def naive_draw(vertices: Tensor, colors: Tensor, triangles: Tensor, size: int, supersample: int) -> Tensor:
    """Rasterize, interpolate, and average the samples."""
    fragments = naive_rasterize(vertices, triangles, size * supersample)
    colors = torch.cat([colors, torch.ones_like(colors[..., :1])], -1)
    return F.avg_pool2d(naive_interpolate(fragments, colors, triangles).permute(0, 3, 1, 2), supersample)
