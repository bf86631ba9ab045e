"""Faces rendered by a CUDA graph are those rendered kernel by kernel."""

import torch

from leanface.face.morphable_model import load_morphable_model
from leanface.face.render import Renderer
from leanface.synthesis.batches import BatchRenderer, render_batch
from tests import settings

DATA = settings.DATA.model_copy(
    update={"image_size": 112, "images_per_identity": 1, "supersample": 2, "yaw_max_rad": 1.05}
)


def test_a_graph_renders_what_its_kernels_render() -> None:
    renderer = Renderer(load_morphable_model().to("cuda"), DATA.image_size, DATA.supersample)
    graph = BatchRenderer(renderer, DATA, 0, "train", 8)
    third, second, again = (graph(number) for number in (3, 2, 3))
    assert torch.equal(third.images, again.images)
    assert not torch.equal(third.images, second.images)
    for number, batch in ((3, third), (2, second)):
        plain = render_batch(renderer, DATA, 0, "train", number, 8)
        assert torch.equal(batch.coefficients, plain.coefficients)
        # Sums of float32 may come in another order: a level at most, and hardly ever.
        difference = (batch.images.int() - plain.images.int()).abs()
        assert float((difference > 1).float().mean()) < 1e-4
