"""Batches of rendered faces: one function makes them all, whether they are stored or streamed."""

from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from leanface.config import Data
from leanface.data.synthesis import render_faces, sample_coefficients, seed_of
from leanface.face.render import Renderer
from leanface.paths import SPLITS


class RenderedBatch(NamedTuple):
    """Images as a camera delivers them, in 8 bits, and the coefficients that they show."""

    images: UInt8[Tensor, "batch 3 size size"]
    coefficients: Float[Tensor, "batch 257"]


@torch.no_grad()
def render_batch(renderer: Renderer, data: Data, seed: int, split: str, number: int, count: int) -> RenderedBatch:
    """Batch `number` of a split, on the renderer's device; it depends on the arguments alone.

    Each batch has a generator of its own, so no two splits share an identity, and batches can be rendered in any
    order, by anyone.
    """
    generator = torch.Generator(renderer.model.mean_vertices.device)
    generator.manual_seed(seed_of(seed, SPLITS.index(split), number))
    coefficients = sample_coefficients(
        renderer.model,
        count,
        generator,
        yaw_max_rad=data.yaw_max_rad,
        clip=data.coefficient_clip,
        images_per_identity=data.images_per_identity,
    )
    images = render_faces(renderer, coefficients, generator, data.augment)
    return RenderedBatch((images * 255).round().byte(), coefficients)


def render_in_order(
    renderer: Renderer, data: Data, seed: int, split: str, *, count: int, batch_size: int, workers: int
) -> Generator[RenderedBatch]:
    """The first `count` faces of a split, rendered by `workers` threads that keep a few batches ahead.

    Rendering leaves Python's interpreter lock almost all of the time; threads share the morphable model, need no
    start-up and cannot outlive the process. The last batch is cut to what is asked for.
    """

    def render(start: int) -> RenderedBatch:
        try:
            batch = render_batch(renderer, data, seed, split, start // batch_size, batch_size)
        except Exception as error:
            error.add_note(f"while rendering faces {start} to {start + batch_size - 1} of {split} from seed {seed}")
            raise
        return RenderedBatch(*(part[: count - start] for part in batch))

    ahead: deque[Future[RenderedBatch]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="render") as pool:
        try:
            for start in range(0, count, batch_size):
                ahead.append(pool.submit(render, start))
                if len(ahead) > 2 * workers:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()
