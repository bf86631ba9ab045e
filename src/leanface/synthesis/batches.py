"""Batches of rendered faces: one function makes them all, whether they are stored or streamed."""

from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from leanface.config import Data
from leanface.face.render import Renderer
from leanface.paths import SPLITS
from leanface.synthesis.synthesis import render_faces, sample_coefficients, seed_of


class RenderedBatch(NamedTuple):
    """Images as a camera delivers them, in 8 bits, and the coefficients that they show."""

    images: UInt8[Tensor, "batch 3 size size"]
    coefficients: Float[Tensor, "batch 257"]


def render_batch(renderer: Renderer, data: Data, seed: int, split: str, number: int, count: int) -> RenderedBatch:
    """Render batch `number` of a split, on the renderer's device; it depends on the arguments alone.

    Each batch has a generator of its own, so no two splits share an identity, and batches can be rendered in any
    order, by anyone.
    """
    generator = torch.Generator(renderer.model.mean_vertices.device)
    return _render(renderer, data, generator.manual_seed(_seed(seed, split, number)), count)


def _seed(seed: int, split: str, number: int) -> int:
    return seed_of(seed, SPLITS.index(split), number)


@torch.no_grad()
def _render(renderer: Renderer, data: Data, generator: torch.Generator, count: int) -> RenderedBatch:
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


class BatchRenderer:
    """`render_batch` for many batches of one split and size: on CUDA as one graph, which a processor launches at once.

    Rendering is some 400 small kernels; launched one by one they take longer than they run, and training waits.
    """

    def __init__(self, renderer: Renderer, data: Data, seed: int, split: str, count: int) -> None:
        self.renderer, self.data, self.seed, self.split, self.count = renderer, data, seed, split, count
        self._generator = torch.Generator(renderer.model.mean_vertices.device)
        self._graph: Any = None  # torch.cuda.CUDAGraph has no type on builds without CUDA
        self._drawn: RenderedBatch | None = None

    def __call__(self, number: int) -> RenderedBatch:
        """Render as `render_batch` does; the caller may keep and change what it gets."""
        if self._generator.device.type != "cuda":
            return render_batch(self.renderer, self.data, self.seed, self.split, number, self.count)
        if self._drawn is None:
            self._drawn = self._capture()
        # A replay draws from the generator as it is then, so one graph renders every batch.
        self._generator.manual_seed(_seed(self.seed, self.split, number))
        self._graph.replay()
        return RenderedBatch(*(part.clone() for part in self._drawn))

    def _capture(self) -> RenderedBatch:
        with torch.cuda.device(self._generator.device):
            # Kernels are compiled, and what is cached per model is measured, at a first run, which no graph can hold.
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                _render(self.renderer, self.data, self._generator, self.count)
            torch.cuda.current_stream().wait_stream(stream)
            self._graph = torch.cuda.CUDAGraph()
            self._graph.register_generator_state(self._generator)
            # Another thread (NCCL's watchdog, say) may go on calling CUDA meanwhile.
            with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
                return _render(self.renderer, self.data, self._generator, self.count)


def render_in_order(
    renderer: Renderer, data: Data, seed: int, split: str, *, count: int, batch_size: int, workers: int
) -> Generator[RenderedBatch]:
    """Yield a split's first `count` faces, rendered by `workers` threads that keep a few batches ahead.

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
