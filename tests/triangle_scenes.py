"""Triangles that rasterizers must agree on: overlapping, degenerate, off the screen, behind the camera."""

import torch
from torch import Tensor

from leanface.face.camera import image_from_camera

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
