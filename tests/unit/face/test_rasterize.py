"""Every rasteriser against a naive one."""

import os
import subprocess
import sys

import pytest
import torch
from torch import Tensor

from leanface.errors import BackendError
from leanface.face.camera import image_from_camera
from leanface.face.morphable_model import MorphableModel
from leanface.face.rasterize import Fragments, draw, interpolate, rasterize

SIZE = 24
CPU_BACKENDS = ["torch", "numba"]


def naive(vertices: Tensor, triangles: Tensor, size: int) -> Fragments:
    """Every pixel against every triangle, in float64, one image at a time."""
    triangle = torch.full((len(vertices), size, size), -1)
    barycentric = torch.zeros(len(vertices), size, size, 3)
    for image, points in enumerate(vertices.double()):
        for row in range(size):
            for column in range(size):
                nearest = 0.0
                for index, (a, b, c) in enumerate(points[triangles]):
                    area = (b[0] - a[0]) * (c[1] - a[1]) - (c[0] - a[0]) * (b[1] - a[1])
                    if area >= -1e-9:
                        continue
                    second = ((column - a[0]) * (c[1] - a[1]) - (c[0] - a[0]) * (row - a[1])) / area
                    third = ((b[0] - a[0]) * (row - a[1]) - (column - a[0]) * (b[1] - a[1])) / area
                    weights = torch.stack([1 - second - third, second, third])
                    depth = float(weights @ torch.stack([a[2], b[2], c[2]]))
                    if bool((weights >= 0).all()) and depth > nearest:
                        nearest = depth
                        triangle[image, row, column] = index
                        barycentric[image, row, column] = weights.float()
    return Fragments(triangle, barycentric)


def soup(seed: int) -> tuple[Tensor, Tensor]:
    """Two images of twelve overlapping triangles, partly outside, half of them seen from behind."""
    generator = torch.Generator().manual_seed(seed)
    vertices = torch.rand(2, 36, 3, generator=generator) * torch.tensor([SIZE + 8.0, SIZE + 8.0, 0.1])
    vertices[..., :2] -= 4.0
    vertices[..., 2] += 0.05
    return vertices, torch.arange(36).view(12, 3)


@pytest.mark.parametrize("backend", CPU_BACKENDS)
@pytest.mark.parametrize("seed", [0, 1])
def test_backend_equals_the_naive_one(backend: str, seed: int) -> None:
    vertices, triangles = soup(seed)
    expected, found = naive(vertices, triangles, SIZE), rasterize(vertices, triangles, SIZE, backend)
    assert torch.equal(found.triangle, expected.triangle)
    torch.testing.assert_close(found.barycentric, expected.barycentric, atol=1e-4, rtol=0)


def test_backends_agree_on_a_face(model: MorphableModel) -> None:
    vertices = image_from_camera(model.vertices(torch.randn(2, 80), torch.randn(2, 64)), 96)
    reference = rasterize(vertices, model.triangles, 96, "torch")
    fast = rasterize(vertices, model.triangles, 96, "numba")
    differ = (reference.triangle != fast.triangle).float().mean()
    assert differ < 1e-3  # an edge through a pixel's centre may round either way
    assert (reference.triangle >= 0).float().mean() > 0.3


def test_triton_equals_torch_under_its_interpreter() -> None:
    """In a process of its own, because Triton decides at import whether to interpret."""
    pytest.importorskip("triton")
    code = """
import torch
from leanface.face import rasterize, rasterize_triton as fast
from leanface.face.lighting import vertex_normals
generator = torch.Generator().manual_seed(0)
vertices = torch.rand(1, 36, 3, generator=generator) * torch.tensor([24.0, 24.0, 0.1]) + 0.05
triangles = torch.arange(36).view(12, 3)
expected = rasterize.rasterize(vertices, triangles, 24, "torch")
triangle = fast.visible_triangles(vertices, triangles, 24)
assert torch.equal(triangle, expected.triangle)
weights = fast.pixel_barycentric(vertices, triangles, triangle)
torch.testing.assert_close(weights, expected.barycentric, atol=1e-5, rtol=0)
colours = torch.rand(1, 36, 3)
blended = fast.interpolate(triangle, weights, colours, triangles)
torch.testing.assert_close(blended, rasterize.interpolate(expected, colours, triangles), atol=1e-5, rtol=0)
drawn = rasterize.draw(vertices, colours, triangles, 12, 2, "torch")
torch.testing.assert_close(fast.draw(vertices, colours, triangles, 12, 2), drawn, atol=1e-5, rtol=0)
shared = torch.tensor([[0, 1, 2], [0, 2, 3], [0, 3, 1]])
normals = fast.vertex_normals(vertices[:, :4], fast.vertex_ring(shared, 4))
torch.testing.assert_close(normals, vertex_normals(vertices[:, :4], shared), atol=1e-5, rtol=0)
print("agrees")
"""
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert "agrees" in done.stdout, done.stderr


def test_drawing_is_rasterising_interpolating_and_pooling(model: MorphableModel) -> None:
    for vertices, triangles in (soup(0), (image_from_camera(model.mean_vertices[None], SIZE), model.triangles)):
        colours = torch.rand(vertices.shape)
        expected = draw(vertices, colours, triangles, SIZE // 2, 2, "torch")
        torch.testing.assert_close(
            draw(vertices, colours, triangles, SIZE // 2, 2, "numba"), expected, atol=1e-4, rtol=0
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
    colours = torch.rand(2, 36, 3, dtype=torch.float64, requires_grad=True)
    fragments = rasterize(vertices, triangles, 8)
    fragments = fragments._replace(barycentric=fragments.barycentric.double())
    assert torch.autograd.gradcheck(lambda x: interpolate(fragments, x, triangles), (colours,))


def test_unknown_backend_lists_the_valid_ones() -> None:
    vertices, triangles = soup(0)
    with pytest.raises(BackendError, match="auto, torch, numba, triton"):
        rasterize(vertices, triangles, SIZE, "opengl")
