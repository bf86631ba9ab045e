"""Spherical-harmonic lighting and normals."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from leanface.face import rasterize_numba
from leanface.face.camera import rotation_from_angles
from leanface.face.lighting import CONSTANT, sh_basis, shade, vertex_normals
from leanface.face.morphable_model import MorphableModel

IRRADIANCE = (math.pi, *[2 * math.pi / math.sqrt(3)] * 3, *[2 * math.pi / math.sqrt(8)] * 5)
"""What each band is multiplied by, on top of an orthonormal basis (Deep3DFaceRecon's constants)."""

NORMALS = {"torch": vertex_normals, "numba": rasterize_numba.vertex_normals}


def sphere(detail: int, radius: float = 1.0) -> tuple[Tensor, Tensor]:
    """An icosahedron whose triangles were split `detail` times, pushed out to the sphere, wound from outside."""
    golden = (1 + math.sqrt(5)) / 2
    vertices = [(s, t * golden, 0.0) for s in (-1, 1) for t in (-1, 1)]
    vertices += [(y, z, x) for x, y, z in vertices[:4]] + [(z, x, y) for x, y, z in vertices[:4]]
    points = np.array(vertices)
    edge = 2.0
    near = np.abs(np.linalg.norm(points[:, None] - points, axis=-1) - edge) < 1e-6
    triangles = [
        (a, b, c) for a in range(12) for b in range(a) for c in range(b) if near[a, b] and near[b, c] and near[a, c]
    ]
    corners = points[np.array(triangles)]
    inward = np.einsum(
        "ti,ti->t", np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), corners[:, 0]
    )
    corners[inward < 0] = corners[inward < 0][:, ::-1]
    for _ in range(detail):
        a, b, c = corners.transpose(1, 0, 2)
        ab, bc, ca = (a + b) / 2, (b + c) / 2, (c + a) / 2
        corners = np.concatenate([np.stack(t, 1) for t in ((a, ab, ca), (b, bc, ab), (c, ca, bc), (ab, bc, ca))])
    unit = corners.reshape(-1, 3) / np.linalg.norm(corners.reshape(-1, 3), axis=1, keepdims=True)
    _, first, index = np.unique(unit.round(6), axis=0, return_index=True, return_inverse=True)
    return torch.tensor(unit[first] * radius, dtype=torch.float32)[None], torch.tensor(index.reshape(-1, 3))


def directions(count: int) -> Tensor:
    return F.normalize(torch.randn(count, 3, generator=torch.Generator().manual_seed(0)), dim=-1)


def quadrature() -> tuple[Tensor, Tensor]:
    """Directions and weights that integrate polynomials up to degree 15 over the sphere exactly."""
    z, weight = np.polynomial.legendre.leggauss(8)
    turn = np.arange(16) * 2 * np.pi / 16
    ring = np.sqrt(1 - z**2)
    points = [np.outer(ring, np.cos(turn)), np.outer(ring, np.sin(turn)), np.outer(z, np.ones(16))]
    weights = np.outer(weight, np.full(16, 2 * np.pi / 16))
    return torch.tensor(np.stack(points, -1).reshape(-1, 3)), torch.tensor(weights.ravel())


def test_constant_light_shades_every_normal_alike() -> None:
    lighting = torch.zeros(1, 27)
    lighting[:, :3] = 0.5
    shaded = shade(torch.full((1, 100, 3), 0.8), directions(100)[None], lighting)
    torch.testing.assert_close(shaded, torch.full((1, 100, 3), 0.8 * 0.5 * CONSTANT))


def test_channels_are_lit_apart() -> None:
    lighting = torch.zeros(1, 9, 3)
    lighting[:, 0, 1] = 1.0
    shaded = shade(torch.ones(1, 1, 3), torch.tensor([[[0.0, 0.0, 1.0]]]), lighting.flatten(1))
    assert shaded[0, 0].tolist() == pytest.approx([0.0, CONSTANT, 0.0])


def test_bands_are_orthonormal_over_the_sphere_but_for_their_irradiance() -> None:
    points, weights = quadrature()
    assert weights.sum() == pytest.approx(4 * math.pi)
    basis = sh_basis(points)
    gram = basis.T @ (basis * weights[:, None])
    torch.testing.assert_close(gram, torch.tensor(IRRADIANCE, dtype=torch.float64).square().diag(), atol=1e-12, rtol=0)


def test_a_lamp_lights_the_side_that_faces_it() -> None:
    """Light from one direction, projected on the bands, is brightest there and falls off on every side alike."""
    lamp = torch.tensor([[0.3, 0.5, 0.8]])
    lamp = F.normalize(lamp, dim=-1)
    normals = directions(2000)
    irradiance = (sh_basis(normals) @ (sh_basis(lamp) / torch.tensor(IRRADIANCE)).T)[:, 0]
    cosine = (normals @ lamp.T)[:, 0]
    assert cosine[irradiance.argmax()] > 0.99
    # Bands of one degree sum to a Legendre polynomial of the angle: nothing else is left to depend on.
    legendre = 1 / (4 * math.pi) * torch.stack([cosine**0, 3 * cosine, 5 * (1.5 * cosine**2 - 0.5)], -1)
    expected = legendre @ torch.tensor([IRRADIANCE[0], IRRADIANCE[1], IRRADIANCE[4]])
    torch.testing.assert_close(irradiance, expected, atol=1e-5, rtol=1e-4)


def test_darkness_and_glare_are_clipped() -> None:
    normals = directions(50)[None]
    lighting = torch.zeros(1, 27)
    lighting[:, :3] = -1.0
    assert (shade(torch.ones(1, 50, 3), normals, lighting) == 0).all()
    assert (shade(torch.ones(1, 50, 3), normals, -100 * lighting) == 1).all()


@pytest.mark.parametrize("name", NORMALS)
def test_normals_of_a_sphere_point_away_from_its_center(name: str) -> None:
    vertices, triangles = sphere(3, radius=0.7)
    assert len(triangles) == 20 * 4**3
    normals = NORMALS[name](vertices, triangles)
    torch.testing.assert_close(torch.linalg.vector_norm(normals, dim=-1), torch.ones(vertices.shape[:2]))
    assert (normals * vertices).sum(-1).min() > 0.7 * math.cos(math.radians(1))


@pytest.mark.parametrize("name", NORMALS)
def test_normals_turn_with_the_shape_and_ignore_where_and_how_large_it_is(name: str, model: MorphableModel) -> None:
    rotation = rotation_from_angles(torch.tensor([[0.4, -0.7, 0.2]]))[0]
    vertices = model.mean_vertices[None]
    normals = NORMALS[name](vertices, model.triangles)
    moved = NORMALS[name]((3 * vertices @ rotation.T + 1).contiguous(), model.triangles)
    assert (moved - normals @ rotation.T).abs().max() < 1e-3


@pytest.mark.parametrize("name", NORMALS)
def test_winding_decides_the_side_and_larger_triangles_count_more(name: str) -> None:
    flat = torch.tensor([[[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]])
    up = torch.tensor([[0.0, 0.0, 1.0]]).expand(3, 3)
    assert torch.equal(NORMALS[name](flat, torch.tensor([[0, 1, 2]]))[0], up)
    assert torch.equal(NORMALS[name](flat, torch.tensor([[0, 2, 1]]))[0], -up)
    corner = torch.tensor([[[0.0, 0, 0], [3.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0]]])
    found = NORMALS[name](corner, torch.tensor([[0, 1, 2], [0, 2, 3]]))[0, 0]  # areas 3 (towards z) and 1 (towards x)
    torch.testing.assert_close(found, F.normalize(torch.tensor([1.0, 0.0, 3.0]), dim=0))


@pytest.mark.parametrize("name", NORMALS)
def test_vertices_without_area_have_no_normal_and_no_nan(name: str) -> None:
    vertices = torch.tensor([[[0.0, 0, 0], [1.0, 0, 0], [2.0, 0, 0], [5.0, 5, 5]]])
    normals = NORMALS[name](vertices, torch.tensor([[0, 1, 2]]))
    assert torch.equal(normals, torch.zeros(1, 4, 3))


def test_both_implementations_agree_on_faces(model: MorphableModel) -> None:
    vertices = model.vertices(torch.randn(2, 80), torch.randn(2, 64))
    reference = vertex_normals(vertices, model.triangles)
    fast = rasterize_numba.vertex_normals(vertices, model.triangles)
    torch.testing.assert_close(fast, reference, atol=1e-4, rtol=0)
