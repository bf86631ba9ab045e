"""Tiles: good by rule for any layer and GPU, and kept on disk once measured."""

import json
from pathlib import Path

import pytest

from leanface.runtime.int8.tuning import (
    REFERENCE_GPU,
    REPEATED_BLOCKS,
    Gpu,
    Problem,
    Tile,
    TileFile,
    cache_folder,
    candidates,
    default_tile,
    fits,
)

SMALL = Gpu("a GPU for desktops", 86, 82, 101_376)
PROBLEMS = [
    Problem(pixels, outputs, rows, run, residual, False, images, apart, together)
    for images in (1, 8, 128)
    for pixels, outputs, rows, run, residual, apart, together in (
        (images * 112 * 112, 32, 4, 64, False, 16, 4),
        (images * 56 * 56, 128, 1, 32, True, 32, 1),
        (images * 28 * 28, 64, 3, 192, False, 64, 4),
        (images * 14 * 14, 512, 1, 128, True, 128, 1),
        (images * 7 * 7, 16, 1, 48, False, 48, 1),
    )
] + [Problem(49, 1024, 1, 256, True, True, images) for images in (1, 128)]
CONV = PROBLEMS[0]


@pytest.mark.parametrize("gpu", [REFERENCE_GPU, SMALL])
@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem.key)
def test_the_default_fits_and_keeps_the_gpu_busy(problem: Problem, gpu: Gpu) -> None:
    tile = default_tile(problem, gpu)
    assert tile.together <= problem.together
    problem = problem.widened(tile.together)
    blocks = problem.rows * -(-problem.run // tile.k)
    assert fits(tile, gpu, blocks)
    assert tile.repeats == 1 or blocks <= REPEATED_BLOCKS
    assert tile.k == 32 or -(-problem.run // tile.k) * tile.k <= 1.15 * problem.run
    rows = problem.images if problem.mean else -(-problem.pixels // (tile.m * tile.repeats))
    smallest = tile.n == 32 and (tile.m == 32 or problem.mean)
    assert rows * -(-problem.outputs // tile.n) >= 0.7 * gpu.multiprocessors or smallest


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem.key)
def test_what_is_measured_fits_and_includes_the_default(problem: Problem) -> None:
    tiles = list(candidates(problem, SMALL))
    assert tiles[0] == default_tile(problem, SMALL)
    assert 1 < len(set(tiles)) == len(tiles) < 150
    for tile in tiles:
        wide = problem.widened(tile.together)
        assert fits(tile, SMALL, wide.rows * -(-wide.run // tile.k))


def test_measured_tiles_are_kept_for_the_same_gpu_compiler_and_kernels(tmp_path: Path) -> None:
    best = Tile(128, 64, 64, 4, 4)
    TileFile.open(SMALL, "3.6.0", tmp_path).add({CONV.key: best})
    assert TileFile.open(SMALL, "3.6.0", tmp_path).get(CONV) == best
    assert TileFile.open(SMALL, "3.6.0", tmp_path).get(PROBLEMS[1]) is None
    assert TileFile.open(SMALL, "3.7.0", tmp_path).get(CONV) is None
    assert TileFile.open(SMALL._replace(multiprocessors=16), "3.6.0", tmp_path).get(CONV) is None
    assert TileFile.open(REFERENCE_GPU, "3.6.0", tmp_path).get(CONV) is None
    (file,) = tmp_path.iterdir()
    content = json.loads(file.read_text())
    content["made_for"]["kernels"] = "others"
    file.write_text(json.dumps(content))
    assert TileFile.open(SMALL, "3.6.0", tmp_path).get(CONV) is None


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "",
        lambda text: "[]",
        lambda text: text.replace('"tiles"', '"tails"'),
        lambda text: text.replace("128", "100"),
        lambda text: text.replace("128", "512"),
        lambda text: text.replace("128", '"128"'),
    ],
)
def test_a_damaged_file_is_ignored_and_written_anew(damage, tmp_path: Path) -> None:
    TileFile.open(SMALL, "3.6.0", tmp_path).add({CONV.key: Tile(128, 64, 64, 4, 4)})
    (file,) = tmp_path.iterdir()
    file.write_text(damage(file.read_text()))
    tiles = TileFile.open(SMALL, "3.6.0", tmp_path)
    assert tiles.get(CONV) is None
    tiles.add({CONV.key: Tile(64, 64, 64)})
    assert TileFile.open(SMALL, "3.6.0", tmp_path).get(CONV) == Tile(64, 64, 64)


def test_where_nothing_can_be_written_they_serve_this_process(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    tiles = TileFile.open(SMALL, "3.6.0", tmp_path / "file")
    tiles.add({CONV.key: Tile(64, 64, 64)})
    assert tiles.get(CONV) == Tile(64, 64, 64)


def test_the_cache_is_the_users_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "leanface" / "int8_tiles"
