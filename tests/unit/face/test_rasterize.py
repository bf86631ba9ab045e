"""The rasterizer on the CPU against a naive one."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from leanface.face.camera import image_from_camera
from leanface.face.morphable_model import MorphableModel
from leanface.face.rasterize import draw, interpolate, rasterize
from tests.triangle_scenes import SCENES, SIZE, naive_draw, naive_rasterize, soup


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("scene", SCENES)
def test_it_equals_the_naive_one(seed: int, scene: Callable[[int], tuple[Tensor, Tensor]]) -> None:
    vertices, triangles = scene(seed)
    expected, found = naive_rasterize(vertices, triangles, SIZE), rasterize(vertices, triangles, SIZE)
    assert (expected.triangle >= 0).any()
    assert torch.equal(found.triangle, expected.triangle)
    torch.testing.assert_close(found.barycentric, expected.barycentric, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "spoilt", [math.nan, math.inf, -math.inf, 0.0, -0.1], ids=["nan", "inf", "-inf", "at no depth", "behind"]
)
def test_a_triangle_that_cannot_be_seen_hides_nothing(spoilt: float) -> None:
    """What lies in the camera's own plane projects to infinity and what lies behind it has a negative depth."""
    corners = torch.tensor([[2.0, 20.0, 0.1], [20.0, 20.0, 0.1], [2.0, 2.0, 0.1]])
    bad = corners.clone()
    bad[:, 2] = spoilt
    if not math.isfinite(spoilt):
        bad = torch.full((3, 3), spoilt)
    vertices = torch.cat([bad, corners])[None]
    found = rasterize(vertices, torch.tensor([[0, 1, 2], [3, 4, 5]]), SIZE).triangle
    alone = rasterize(corners[None], torch.tensor([[0, 1, 2]]), SIZE).triangle
    assert (alone == 0).sum() > 100
    assert torch.equal(found, torch.where(alone == 0, 1, -1))


def test_a_folded_strip_leaves_no_holes_between_triangles() -> None:
    """Neighbors share edges: whatever rounding does, a pixel of the strip belongs to one of them."""
    generator = torch.Generator().manual_seed(0)
    grid = torch.stack(torch.meshgrid(torch.linspace(1, 22, 9), torch.linspace(1, 22, 9), indexing="xy"), -1)
    grid[1:-1, 1:-1] += torch.rand(7, 7, 2, generator=generator) - 0.5
    vertices = torch.cat([grid.view(-1, 2), torch.full((81, 1), 0.1)], 1)[None]
    corner = torch.arange(72).view(8, 9)[:, :8].flatten()
    upper = torch.stack([corner, corner + 9, corner + 1], -1)
    lower = torch.stack([corner + 1, corner + 9, corner + 10], -1)
    found = rasterize(vertices, torch.cat([upper, lower]), SIZE).triangle[0]
    assert (found[2:22, 2:22] >= 0).all()
    assert (found[0] == -1).all()


def test_it_equals_the_naive_one_on_a_face(model: MorphableModel) -> None:
    vertices, triangles = image_from_camera(model.mean_vertices[None], 2 * SIZE), model.triangles[::4].contiguous()
    expected, found = naive_rasterize(vertices, triangles, 2 * SIZE), rasterize(vertices, triangles, 2 * SIZE)
    differ = (expected.triangle != found.triangle).float().mean()
    assert differ < 1e-3  # an edge through a pixel's center may round either way
    assert (expected.triangle >= 0).float().mean() > 0.1


def test_tensors_need_not_be_contiguous(model: MorphableModel) -> None:
    vertices, triangles = image_from_camera(model.mean_vertices[None], SIZE), model.triangles
    strided = torch.stack([vertices, vertices], -1)[..., 0]
    found = rasterize(strided, triangles[::16], SIZE)
    expected = rasterize(vertices, triangles[::16].contiguous(), SIZE)
    assert torch.equal(found.triangle, expected.triangle)
    assert torch.equal(interpolate(found, strided, triangles[::16]), interpolate(expected, vertices, triangles[::16]))


def test_drawing_is_rasterizing_interpolating_and_pooling(model: MorphableModel) -> None:
    face = image_from_camera(model.mean_vertices[None], SIZE), model.triangles[::4].contiguous()
    for vertices, triangles in (soup(0), face):
        colors = torch.rand(vertices.shape)
        expected = naive_draw(vertices, colors, triangles, SIZE // 2, 2)
        torch.testing.assert_close(draw(vertices, colors, triangles, SIZE // 2, 2), expected, atol=1e-4, rtol=0)
    assert expected[:, 3].max() > 0.5


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
