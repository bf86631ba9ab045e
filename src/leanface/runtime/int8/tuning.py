"""Which tiles each layer is computed in: good ones by rule, the best ones by measuring, kept in a file per GPU."""

import hashlib
import itertools
import json
import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

logger = logging.getLogger(__name__)


class Tile(NamedTuple):
    """A kernel's block: pixels, outputs and bytes of the sum at a time; warps, and loads that are under way.

    Attributes:
        together: neighboring pixels that are taken as one with as many more outputs. What they read overlaps, and is
            read once.
        repeats: blocks of pixels that a program computes, one after the other.
    """

    m: int
    n: int
    k: int
    warps: int = 4
    stages: int = 3
    together: int = 1
    repeats: int = 1

    @property
    def shared_bytes(self) -> int:
        """Shared memory that the loads under way take."""
        return (self.m + self.n) * self.k * self.stages


class Problem(NamedTuple):
    """A convolution as a matrix product: what a tile is chosen for.

    Attributes:
        pixels: rows, all images of a group together; with `mean` of one image, one program for each of `images`.
        outputs: columns.
        rows: of the kernel; `run` bytes are read for each.
        residual: whether a map is added.
        mean: whether the result is the mean over an image's pixels.
        apart: by how many bytes the runs of neighboring pixels differ.
        together: how many neighbors at most can be taken as one pixel.
    """

    pixels: int
    outputs: int
    rows: int
    run: int
    residual: bool
    mean: bool
    images: int
    apart: int = 0
    together: int = 1

    @property
    def key(self) -> str:
        """For a file."""
        kind = "mean" if self.mean else "add" if self.residual else "plain"
        return f"{kind} {self.images}x{self.pixels} {self.rows}x{self.run}->{self.outputs}x{self.together}"

    def widened(self, together: int) -> Self:
        """Return the problem with so many neighbors taken as one pixel."""
        return self._replace(
            pixels=self.pixels // together,
            outputs=self.outputs * together,
            run=self.run + (together - 1) * self.apart,
            together=1,
        )


class Gpu(NamedTuple):
    """What the choice of tiles depends on.

    Attributes:
        capability: compute capability, 90 for 9.0.
        shared_bytes: of memory that one block may have.
    """

    name: str
    capability: int
    multiprocessors: int
    shared_bytes: int

    @property
    def chains(self) -> bool:
        """Whether a kernel can begin while the one before it finishes: Hopper's programmatic dependent launch."""
        return self.capability >= 90


REFERENCE_GPU = Gpu("NVIDIA H200", 90, 132, 232448)
"""Where the rules below were measured."""

RESERVED_BYTES = 8192
"""Of shared memory, for what the compiler itself puts there."""

SIZES = (32, 64, 128, 256)

REPEATED_BLOCKS = 4
"""Of the sum, at most, for `Tile.repeats`: `kernels.convolution` keeps no more."""


def fits(tile: Tile, gpu: Gpu, blocks: int = 1) -> bool:
    """Tell whether a multiprocessor has room for a tile, which with `repeats` keeps the weights of all `blocks`."""
    shared_bytes = tile.shared_bytes if tile.repeats == 1 else (2 * tile.m + tile.n) * tile.k * blocks
    return shared_bytes + RESERVED_BYTES <= gpu.shared_bytes


def default_tile(problem: Problem, gpu: Gpu) -> Tile:
    """A good tile without measuring: large enough to reuse what it loads, small enough to keep the GPU busy."""
    together = 1
    while together < problem.together and problem.widened(together).run < 100:  # until a block of 128 bytes is full
        together *= 2
    return _default_tile(problem.widened(together), gpu)._replace(together=together)


def _default_tile(problem: Problem, gpu: Gpu) -> Tile:
    k = _depths(problem)[0]
    blocks = _blocks(problem, k)
    m, n = (64, 128) if problem.rows * problem.run >= 1024 and problem.outputs > 64 else (128, 64)
    if problem.outputs <= 48:
        m, n = (256, 32) if k == 32 else (128, 32)
    elif problem.mean or (problem.residual and blocks == 1):
        m, n = 32, 128
    while _programs(problem, m, n) < 0.7 * gpu.multiprocessors and (n > 32 or (m > 32 and not problem.mean)):
        m, n = (m // 2, n) if m > 32 and m >= n and not problem.mean else (m, n // 2)
    repeating = Tile(m, n, k, stages=2, repeats=4)
    if blocks == 1 and problem.outputs > 48 and _repeats(problem, repeating, gpu):
        return repeating
    if problem.mean and n == 32:  # few images: fewer steps for each
        m = 64
    tile = _tile(m, n, k, 2 if blocks == 1 or (problem.mean and n > 32) else 4 if blocks >= 6 else 3)
    while not fits(tile, gpu) and tile.stages > 2:
        tile = tile._replace(stages=tile.stages - 1)
    return tile


def candidates(problem: Problem, gpu: Gpu) -> Iterator[Tile]:
    """Tiles that are worth measuring, the default first."""
    seen = {default_tile(problem, gpu)}
    yield from seen
    for together in (1, 2, 4):
        if together > problem.together:
            break
        for tile in _candidates(problem.widened(together), gpu):
            tile = tile._replace(together=together)
            if tile not in seen:
                seen.add(tile)
                yield tile


def _candidates(problem: Problem, gpu: Gpu) -> Iterator[Tile]:
    rows = (16, 32, 64) if problem.mean else SIZES
    for m, n, k in itertools.product(rows, SIZES, _depths(problem)):
        blocks = _blocks(problem, k)
        wasteful = n >= 2 * max(problem.outputs, 17) or m >= 2 * max(problem.pixels, 9)
        too_large, too_small = m * n > 256 * 128, m * n < 32 * 32 and not problem.mean
        idle = _programs(problem, m, n) < gpu.multiprocessors // 8 and m * n > 32 * 32
        if wasteful or too_large or too_small or idle:
            continue
        for stages in range(min(3, max(2, blocks)), min(4, max(2, blocks)) + 1):
            if fits(tile := _tile(m, n, k, stages), gpu):
                yield tile
        for repeats in (4, 8):
            if _repeats(problem, tile := _tile(m, n, k, 2)._replace(repeats=repeats), gpu):
                yield tile


def _repeats(problem: Problem, tile: Tile, gpu: Gpu) -> bool:
    """Tell whether a program can keep its weights, and there are enough programs that each may do more."""
    blocks = _blocks(problem, tile.k)
    enough = _programs(problem, tile.m, tile.n) >= 4 * tile.repeats * gpu.multiprocessors
    return not problem.mean and blocks <= REPEATED_BLOCKS and enough and fits(tile, gpu, blocks)


def _blocks(problem: Problem, k: int) -> int:
    """Return how many blocks the sum has."""
    return problem.rows * -(-problem.run // k)


def _tile(m: int, n: int, k: int, stages: int) -> Tile:
    return Tile(m, n, k, 8 if m * n >= 128 * 128 else 4, stages)


def _depths(problem: Problem) -> tuple[int, ...]:
    """Bytes of a run at a time, the largest first: 128 at most, and little beyond its end is read."""
    exact = [k for k in (128, 64, 32) if -(-problem.run // k) * k <= 1.15 * problem.run]
    return tuple(exact[:2]) or (32,)


def _programs(problem: Problem, m: int, n: int) -> int:
    return -(-problem.outputs // n) * (problem.images if problem.mean else -(-problem.pixels // m))


class TileFile:
    """The tiles that were measured to be the fastest on one GPU, by `Problem.key`.

    A file that is damaged, or was written for another GPU, compiler or version of the kernels, counts as empty.
    """

    def __init__(self, path: Path, made_for: Mapping[str, Any], tiles: Mapping[str, Tile]) -> None:
        """See `open`."""
        self._path, self._made_for, self._tiles = path, dict(made_for), dict(tiles)

    @classmethod
    def open(cls, gpu: Gpu, compiler: str, folder: Path | None = None) -> Self:
        """Read what is known of a GPU.

        Args:
            compiler: its version.
            folder: where the file lies; by default the user's cache.
        """
        made_for = {"gpu": list(gpu), "compiler": compiler, "kernels": _kernels_digest()}
        name = "".join(letter if letter.isalnum() else "_" for letter in gpu.name)
        path = (cache_folder() if folder is None else folder) / f"{name}.json"
        return cls(path, made_for, _read_tiles(path, made_for, gpu))

    def get(self, problem: Problem) -> Tile | None:
        """Return the best known tile; None: not measured."""
        return self._tiles.get(problem.key)

    def add(self, tiles: Mapping[str, Tile]) -> None:
        """Keep newly measured tiles, on disk too; where that cannot be written they serve this process alone."""
        self._tiles |= tiles
        content = {"made_for": self._made_for, "tiles": self._tiles}
        staging = self._path.with_name(f".{self._path.name}.{os.getpid()}.partial")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            staging.write_text(json.dumps(content, indent=1) + "\n")
            os.replace(staging, self._path)
        except OSError as error:
            logger.warning("the measured tiles are not kept: %s", error)


def cache_folder() -> Path:
    """Return $XDG_CACHE_HOME/leanface/int8_tiles, by default in ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "leanface" / "int8_tiles"


def _kernels_digest() -> str:
    """Hash the kernels' source: other kernels have other best tiles."""
    return hashlib.sha256(Path(__file__).with_name("kernels.py").read_bytes()).hexdigest()[:16]


def _read_tiles(path: Path, made_for: Mapping[str, Any], gpu: Gpu) -> dict[str, Tile]:
    try:
        content = json.loads(path.read_bytes())
        if content["made_for"] != made_for:
            return {}
        tiles = {str(key): Tile(*values) for key, values in content["tiles"].items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        logger.warning("%s is damaged and will be written anew: %s", path, error)
        return {}
    return {key: tile for key, tile in tiles.items() if _is_valid(tile) and fits(tile, gpu)}


def _is_valid(tile: Tile) -> bool:
    whole = all(type(value) is int and 0 < value <= 512 for value in tile)
    return whole and all(value & (value - 1) == 0 for value in tile[:4]) and min(tile.m, tile.n) >= 16 and tile.k >= 32
