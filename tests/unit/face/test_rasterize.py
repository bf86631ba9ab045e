"""Every rasterizer against a naive one."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from leanface.errors import BackendError
from leanface.face.camera import image_from_camera
from leanface.face.morphable_model import MorphableModel
from leanface.face.rasterize import Fragments, draw, interpolate, rasterize
from tests.triangle_scenes import SCENES, SIZE, soup

CPU_BACKENDS = ["torch", "numba"]


def naive(vertices: Tensor, triangles: Tensor, size: int) -> Fragments:
    """Every pixel against every triangle, by the definition, one at a time in float32."""
    one, zero = np.float32(1), np.float32(0)
    found = np.full((len(vertices), size, size), -1)
    barycentric = np.zeros((len(vertices), size, size, 3), np.float32)
    for image, points in enumerate(vertices.numpy()):
        nearest = np.zeros((size, size), np.float32)
        for index, (a, b, c) in enumerate(points[triangles.numpy()]):
            area = (b[0] - a[0]) * (c[1] - a[1]) - (c[0] - a[0]) * (b[1] - a[1])
            if not area < -1e-9:  # from behind, edge-on, or not a number
                continue
            for row in np.arange(size, dtype=np.float32):
                for column in np.arange(size, dtype=np.float32):
                    second = ((column - a[0]) * (c[1] - a[1]) - (c[0] - a[0]) * (row - a[1])) * (one / area)
                    third = ((b[0] - a[0]) * (row - a[1]) - (column - a[0]) * (b[1] - a[1])) * (one / area)
                    first = one - second - third
                    at = int(row), int(column)
                    if min(first, second, third) < zero:
                        continue
                    inverse_depth = first * a[2] + second * b[2] + third * c[2]
                    if inverse_depth > nearest[at]:
                        nearest[at] = inverse_depth
                        found[(image, *at)] = index
                        barycentric[(image, *at)] = first, second, third
    return Fragments(torch.from_numpy(found), torch.from_numpy(barycentric))


@pytest.mark.parametrize("backend", CPU_BACKENDS)
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("scene", SCENES)
def test_backend_equals_the_naive_one(backend: str, seed: int, scene: Callable[[int], tuple[Tensor, Tensor]]) -> None:
    vertices, triangles = scene(seed)
    expected, found = naive(vertices, triangles, SIZE), rasterize(vertices, triangles, SIZE, backend)
    assert (expected.triangle >= 0).any()
    assert torch.equal(found.triangle, expected.triangle)
    torch.testing.assert_close(found.barycentric, expected.barycentric, atol=1e-4, rtol=0)


@pytest.mark.parametrize("backend", CPU_BACKENDS)
@pytest.mark.parametrize(
    "spoilt", [math.nan, math.inf, -math.inf, 0.0, -0.1], ids=["nan", "inf", "-inf", "at no depth", "behind"]
)
def test_a_triangle_that_cannot_be_seen_hides_nothing(backend: str, spoilt: float) -> None:
    """What lies in the camera's own plane projects to infinity and what lies behind it has a negative depth."""
    corners = torch.tensor([[2.0, 20.0, 0.1], [20.0, 20.0, 0.1], [2.0, 2.0, 0.1]])
    bad = corners.clone()
    bad[:, 2] = spoilt
    if not math.isfinite(spoilt):
        bad = torch.full((3, 3), spoilt)
    vertices = torch.cat([bad, corners])[None]
    found = rasterize(vertices, torch.tensor([[0, 1, 2], [3, 4, 5]]), SIZE, backend).triangle
    alone = rasterize(corners[None], torch.tensor([[0, 1, 2]]), SIZE, backend).triangle
    assert (alone == 0).sum() > 100
    assert torch.equal(found, torch.where(alone == 0, 1, -1))


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_a_folded_strip_leaves_no_holes_between_triangles(backend: str) -> None:
    """Neighbors share edges: whatever rounding does, a pixel of the strip belongs to one of them."""
    generator = torch.Generator().manual_seed(0)
    grid = torch.stack(torch.meshgrid(torch.linspace(1, 22, 9), torch.linspace(1, 22, 9), indexing="xy"), -1)
    grid[1:-1, 1:-1] += torch.rand(7, 7, 2, generator=generator) - 0.5
    vertices = torch.cat([grid.view(-1, 2), torch.full((81, 1), 0.1)], 1)[None]
    corner = torch.arange(72).view(8, 9)[:, :8].flatten()
    upper = torch.stack([corner, corner + 9, corner + 1], -1)
    lower = torch.stack([corner + 1, corner + 9, corner + 10], -1)
    found = rasterize(vertices, torch.cat([upper, lower]), SIZE, backend).triangle[0]
    assert (found[2:22, 2:22] >= 0).all()
    assert (found[0] == -1).all()


def test_backends_agree_on_a_face(model: MorphableModel) -> None:
    vertices = image_from_camera(model.vertices(torch.randn(2, 80), torch.randn(2, 64)), 96)
    reference = rasterize(vertices, model.triangles, 96, "torch")
    fast = rasterize(vertices, model.triangles, 96, "numba")
    differ = (reference.triangle != fast.triangle).float().mean()
    assert differ < 1e-3  # an edge through a pixel's center may round either way
    assert (reference.triangle >= 0).float().mean() > 0.3


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_tensors_need_not_be_contiguous(backend: str, model: MorphableModel) -> None:
    vertices, triangles = image_from_camera(model.mean_vertices[None], SIZE), model.triangles
    strided = torch.stack([vertices, vertices], -1)[..., 0]
    found = rasterize(strided, triangles[::16], SIZE, backend)
    expected = rasterize(vertices, triangles[::16].contiguous(), SIZE, backend)
    assert torch.equal(found.triangle, expected.triangle)
    assert torch.equal(interpolate(found, strided, triangles[::16]), interpolate(expected, vertices, triangles[::16]))


def test_drawing_is_rasterizing_interpolating_and_pooling(model: MorphableModel) -> None:
    for vertices, triangles in (soup(0), (image_from_camera(model.mean_vertices[None], SIZE), model.triangles)):
        colors = torch.rand(vertices.shape)
        expected = draw(vertices, colors, triangles, SIZE // 2, 2, "torch")
        torch.testing.assert_close(
            draw(vertices, colors, triangles, SIZE // 2, 2, "numba"), expected, atol=1e-4, rtol=0
        )
    assert expected[:, 3].max() == 1.0


def test_the_nearer_triangle_is_seen_and_the_back_of_one_is_not() -> None:
    corners = torch.tensor([[2.0, 20.0], [20.0, 20.0], [2.0, 2.0]])  # counter-clockwise with y up
    far = torch.cat([corners, torch.full((3, 1), 0.1)], 1)
    near = torch.cat([corners, torch.full((3, 1), 0.2)], 1)
    vertices = torch.cat([far, near])[None]
    for order in ([[0, 1, 2], [3, 4, 5]], [[3, 4, 5], [0, 1, 2]]):
        triangle = rasterize(vertices, torch.tensor(order), SIZE).triangle
        seen = triangle[triangle >= 0].unique()
        assert seen.tolist() == [order.index([3, 4, 5])]
    assert (rasterize(vertices, torch.tensor([[0, 2, 1]]), SIZE).triangle == -1).all()


def test_interpolating_positions_gives_the_pixels_back(model: MorphableModel) -> None:
    vertices = image_from_camera(model.mean_vertices[None], 64)
    fragments = rasterize(vertices, model.triangles, 64)
    positions = interpolate(fragments, vertices, model.triangles)
    rows, columns = (fragments.triangle[0] >= 0).nonzero(as_tuple=True)
    found = positions[0, rows, columns, :2]
    torch.testing.assert_close(found, torch.stack([columns, rows], -1).float(), atol=1e-3, rtol=0)


def test_gradients_reach_the_attributes() -> None:
    vertices, triangles = soup(0)
    colors = torch.rand(2, 36, 3, dtype=torch.float64, requires_grad=True)
    fragments = rasterize(vertices, triangles, 8)
    fragments = fragments._replace(barycentric=fragments.barycentric.double())
    assert torch.autograd.gradcheck(lambda x: interpolate(fragments, x, triangles), (colors,))


def test_unknown_backend_lists_the_valid_ones() -> None:
    vertices, triangles = soup(0)
    with pytest.raises(BackendError, match="auto, torch, numba, triton"):
        rasterize(vertices, triangles, SIZE, "opengl")
