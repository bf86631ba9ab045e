"""The Triton rasterizer under Triton's interpreter."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from leanface.face.camera import image_from_camera
from leanface.face.morphable_model import MorphableModel
from leanface.face.rasterize import rasterize

SIZE = 24


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


def test_triton_equals_torch_under_its_interpreter(tmp_path: Path, model: MorphableModel) -> None:
    """In a process of its own, because Triton decides at import whether to interpret."""
    if importlib.util.find_spec("triton") is None:
        pytest.skip("Triton comes with PyTorch for CUDA; `pip install triton` (1 GB) brings its interpreter alone")
    scenes = [scene(0) for scene in SCENES]
    scenes.append((image_from_camera(model.mean_vertices[None], SIZE), model.triangles[::16]))
    torch.save([(*scene, *rasterize(*scene, SIZE, "torch")) for scene in scenes], tmp_path / "scenes.pt")
    code = """
import sys, torch
from leanface.face import rasterize_triton as fast
from leanface.face.lighting import irradiance, vertex_normals
from leanface.face.rasterize import Fragments, draw, interpolate, rasterize
for vertices, triangles, *expected in torch.load(sys.argv[1]):
    found = rasterize(vertices, triangles, 24, "triton")
    assert torch.equal(found.triangle, expected[0])
    torch.testing.assert_close(found.barycentric, expected[1], atol=1e-4, rtol=0)
    colors = torch.rand(len(vertices), vertices.shape[1], 3)
    blended = fast.interpolate(*found, colors, triangles)
    torch.testing.assert_close(blended, interpolate(Fragments(*expected), colors, triangles), atol=1e-4, rtol=0)
    drawn = draw(vertices, colors, triangles, 12, 2, "torch")
    torch.testing.assert_close(fast.draw(vertices, colors, triangles, 12, 2), drawn, atol=1e-4, rtol=0)
# The last scene is a face; normals of triangles without area would be those of rounding errors.
normals = fast.vertex_normals(vertices, fast.vertex_ring(triangles, vertices.shape[1]))
torch.testing.assert_close(normals, vertex_normals(vertices, triangles), atol=1e-4, rtol=0)
normals, lighting = normals.repeat(2, 1, 1), torch.randn(2, 27)
torch.testing.assert_close(fast.irradiance(normals, lighting), irradiance(normals, lighting), atol=1e-4, rtol=0)
print("agrees")
"""
    command = [sys.executable, "-c", code, str(tmp_path / "scenes.pt")]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert "agrees" in done.stdout, done.stderr
