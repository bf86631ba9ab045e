"""Measure which tile each layer is fastest in, on the GPU at hand."""

import statistics
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import torch

from leanface.device import usable_cores
from leanface.runtime.int8.call import Call, compile_all
from leanface.runtime.int8.executor import Executor, Weights
from leanface.runtime.int8.plan import Convolution, read_plan
from leanface.runtime.int8.tuning import Gpu, Problem, Tile, TileFile, candidates, default_tile
from leanface.runtime.triton_ import first_gpu, triton_version

Report = Callable[[str], object]
"""Told what was found, layer by layer."""

LAUNCHES, REPLAYS = 20, 5
"""Of a kernel in a graph, whose own start then counts little; and of that graph."""


def tune_here(path: Path, batches: Sequence[int], side: int, on_layer: Report = lambda text: None) -> dict[str, float]:
    """Tune for images of a size (px) on the first GPU, and keep the tiles in the user's cache; see `tune`."""
    gpu = first_gpu()
    return tune(path, gpu, TileFile.open(gpu, triton_version()), batches, side, side, on_layer)


def tune(
    path: Path,
    gpu: Gpu,
    tiles: TileFile,
    batches: Sequence[int],
    height: int,
    width: int,
    on_layer: Report = lambda text: None,
) -> dict[str, float]:
    """Time all candidates of all layers, and keep the best of each in `tiles`.

    Args:
        batches: images that are computed together.

    Returns:
        how many times faster than by rule all layers together are, by batch size: {"8": 1.2}.

    Raises:
        ArtifactError: the file is missing or damaged.
        BackendError: the kernels cannot compute it.
    """
    weights = Weights(read_plan(path), torch.device("cuda", 0))
    gains: dict[str, float] = {}
    # Compiling is most of the work, and Python's lock lets threads do little of it at a time.
    with ProcessPoolExecutor(usable_cores(), mp_context=get_context("spawn")) as workers:
        for images in batches:
            by_rule = partial(default_tile, gpu=gpu)
            executor = Executor(weights, height, width, images, by_rule, chained=gpu.chains)
            _fill(executor, images, height, width)
            layers = _layers(executor, images, gpu)
            calls = [executor.convolution(step, tile, images) for step, _, found in layers for tile in found]
            compile_all(calls, gpu.capability, workers)
            default_ms, best_ms = 0.0, 0.0
            best: dict[str, Tile] = {}
            for step, problem, found in layers:
                times = dict(_times(executor, step, found, images))
                chosen = min(times, key=lambda tile: times[tile])
                best[problem.key] = chosen
                count = sum(executor.problem(other, images) == problem for other in _convolutions(executor))
                default_ms += count * times[default_tile(problem, gpu)]
                best_ms += count * times[chosen]
                on_layer(f"{step.name}, {images} images: {times[chosen]:.4f} ms x{count} in {tuple(chosen)}")
            tiles.add(best)
            gains[str(images)] = default_ms / best_ms
    return gains


def _fill(executor: Executor, images: int, height: int, width: int) -> None:
    """Run once, so that the layers are measured on maps as they are; power, and with it the clock, depends on them."""
    pixels = torch.randint(0, 256, (images, height, width, 3), dtype=torch.uint8, device="cuda")
    executor.run(pixels, torch.empty((images, executor.plan.outputs), device="cuda"))
    torch.cuda.synchronize()


def _convolutions(executor: Executor) -> list[Convolution]:
    return [step for step in executor.plan.steps if isinstance(step, Convolution)]


def _layers(executor: Executor, images: int, gpu: Gpu) -> list[tuple[Convolution, Problem, list[Tile]]]:
    """List one layer for each different problem, and the tiles to try, the default first."""
    layers = {executor.problem(step, images): step for step in reversed(_convolutions(executor))}
    return [(step, problem, list(candidates(problem, gpu))) for problem, step in reversed(layers.items())]


def _times(executor: Executor, step: Convolution, tiles: Sequence[Tile], images: int) -> Iterator[tuple[Tile, float]]:
    for index, tile in enumerate(tiles):
        try:
            yield tile, time_ms(executor.convolution(step, tile, images))
        except Exception:  # needs more of something than there is; Triton's errors have no common base
            if index == 0:  # the default must work
                raise


def time_ms(call: Call) -> float:
    """Time a kernel among others like it, without what its launch costs."""
    call.queue()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(LAUNCHES):
            call.queue()
    graph.replay()
    times: list[float] = []
    for _ in range(REPLAYS):
        before, after = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        before.record()
        graph.replay()
        after.record()
        after.synchronize()
        times.append(before.elapsed_time(after) / LAUNCHES)
    return statistics.median(times)
