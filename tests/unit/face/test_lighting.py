"""Spherical-harmonic lighting and normals."""

import pytest
import torch
import torch.nn.functional as F

from leanface.face import rasterize_numba
from leanface.face.lighting import CONSTANT, sh_basis, shade, vertex_normals
from leanface.face.morphable_model import MorphableModel


def test_constant_light_shades_every_normal_alike() -> None:
    normals = F.normalize(torch.randn(1, 100, 3), dim=-1)
    lighting = torch.zeros(1, 27)
    lighting[:, :3] = 0.5
    shaded = shade(torch.full((1, 100, 3), 0.8), normals, lighting)
    torch.testing.assert_close(shaded, torch.full((1, 100, 3), 0.8 * 0.5 * CONSTANT))


def test_channels_are_lit_apart() -> None:
    lighting = torch.zeros(1, 9, 3)
    lighting[:, 0, 1] = 1.0
    shaded = shade(torch.ones(1, 1, 3), torch.tensor([[[0.0, 0.0, 1.0]]]), lighting.flatten(1))
    assert shaded[0, 0].tolist() == pytest.approx([0.0, CONSTANT, 0.0])


def test_bands_are_orthogonal_over_the_sphere() -> None:
    generator = torch.Generator().manual_seed(0)
    normals = F.normalize(torch.randn(200_000, 3, generator=generator), dim=-1)
    basis = sh_basis(normals)
    gram = basis.T @ basis / len(normals)
    scale = gram.diagonal().sqrt()
    correlation = gram / (scale[:, None] * scale) - torch.eye(9)
    assert correlation.abs().max() < 0.02


def test_normals_of_a_flat_triangle_and_both_implementations_agree(model: MorphableModel) -> None:
    flat = torch.tensor([[[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]])
    normals = vertex_normals(flat, torch.tensor([[0, 1, 2]]))
    assert torch.equal(normals[0], torch.tensor([[0.0, 0.0, 1.0]]).expand(3, 3))
    vertices = model.vertices(torch.randn(2, 80), torch.randn(2, 64))
    reference = vertex_normals(vertices, model.triangles)
    fast = rasterize_numba.vertex_normals(vertices, model.triangles)
    torch.testing.assert_close(fast, reference, atol=1e-4, rtol=0)
