"""Tiles: good by rule for any layer and GPU, and kept on disk once measured."""

import json
from pathlib import Path

import pytest

from leanface.runtime.int8.tuning import (
    REFERENCE_GPU,
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
    Problem(pixels, outputs, rows, run, residual, False, images)
    for images in (1, 8, 128)
    for pixels, outputs, rows, run, residual in (
        (images * 112 * 112, 32, 4, 64, False),
        (images * 56 * 56, 128, 1, 32, True),
        (images * 28 * 28, 64, 3, 192, False),
        (images * 14 * 14, 512, 1, 128, True),
        (images * 7 * 7, 16, 1, 48, False),
    )
] + [Problem(49, 1024, 1, 256, True, True, images) for images in (1, 128)]
CONV = PROBLEMS[0]


@pytest.mark.parametrize("gpu", [REFERENCE_GPU, SMALL])
@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem.key)
def test_the_default_fits_and_keeps_the_gpu_busy(problem: Problem, gpu: Gpu) -> None:
    tile = default_tile(problem, gpu)
    assert fits(tile, gpu)
    assert tile.k == 32 or -(-problem.run // tile.k) * tile.k <= 1.1 * problem.run
    programs = -(-problem.outputs // tile.n) * (problem.images if problem.mean else -(-problem.pixels // tile.m))
    smallest = tile.n == 32 and (tile.m == 32 or problem.mean)
    assert programs >= 2 * gpu.multiprocessors or smallest


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem.key)
def test_what_is_measured_fits_and_includes_the_default(problem: Problem) -> None:
    tiles = list(candidates(problem, SMALL))
    assert tiles[0] == default_tile(problem, SMALL)
    assert 1 < len(set(tiles)) == len(tiles) < 60
    assert all(fits(tile, SMALL) for tile in tiles)


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
