"""The Triton rasterizer under Triton's interpreter."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from leanface.face.camera import image_from_camera
from leanface.face.morphable_model import MorphableModel
from tests.triangle_scenes import SCENES, SIZE, naive_rasterize


def test_triton_equals_the_naive_one_under_its_interpreter(tmp_path: Path, model: MorphableModel, root: Path) -> None:
    """In a process of its own, because Triton decides at import whether to interpret."""
    if importlib.util.find_spec("triton") is None:
        pytest.skip("Triton comes with PyTorch for CUDA; `pip install triton` (1 GB) brings its interpreter alone")
    scenes = [scene(0) for scene in SCENES]
    scenes.append((image_from_camera(model.mean_vertices[None], SIZE), model.triangles[::16]))
    torch.save([(*scene, *naive_rasterize(*scene, SIZE)) for scene in scenes], tmp_path / "scenes.pt")
    code = """
import sys, torch
from leanface.face import rasterize_triton as fast
from leanface.face.lighting import irradiance, vertex_normals
from leanface.face.rasterize import Fragments
from tests.triangle_scenes import naive_draw, naive_interpolate
for vertices, triangles, *expected in torch.load(sys.argv[1]):
    triangle = fast.visible_triangles(vertices.contiguous(), triangles, 24)
    assert torch.equal(triangle, expected[0])
    barycentric = fast.pixel_barycentric(vertices.contiguous(), triangles, triangle)
    torch.testing.assert_close(barycentric, expected[1], atol=1e-4, rtol=0)
    colors = torch.rand(len(vertices), vertices.shape[1], 3)
    blended = fast.interpolate(triangle, barycentric, colors, triangles)
    torch.testing.assert_close(blended, naive_interpolate(Fragments(*expected), colors, triangles), atol=1e-4, rtol=0)
    drawn = naive_draw(vertices, colors, triangles, 12, 2)
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
    done = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True, check=False)
    assert "agrees" in done.stdout, done.stderr
