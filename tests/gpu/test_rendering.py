"""The Triton rasterizer draws what the numba one does."""

import pytest
import torch

from leanface.face.morphable_model import MorphableModel, load_morphable_model
from leanface.face.render import Renderer
from leanface.synthesis.synthesis import population


@pytest.mark.parametrize(("size", "supersample"), [(64, 2), (224, 1)])
def test_triton_equals_numba(model: MorphableModel, size: int, supersample: int) -> None:
    mean, deviation = population(model)
    noise = torch.randn(4, 257, generator=torch.Generator().manual_seed(0))
    coefficients = mean + deviation * noise
    on_cpu = Renderer(model, size, supersample)(coefficients)
    on_gpu = Renderer(load_morphable_model().cuda(), size, supersample)(coefficients.cuda())
    assert on_cpu.alpha.mean() > 0.1, "the heads are in the picture"
    for name in ("image", "alpha"):
        difference = (getattr(on_gpu, name).cpu() - getattr(on_cpu, name)).abs()
        # A pixel whose center lies on an edge may go either way: the vertices were summed up in another order.
        assert difference.mean() < 1e-4, name
        assert (difference > 1e-2).float().mean() < 1e-3, name
