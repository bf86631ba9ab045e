"""The latency model, on times that are known; and what a search keeps."""

import time
from pathlib import Path

import numpy as np
import pytest

from leanface.search.latency import LatencyModel, Row
from leanface.search.record import Journal
from leanface.search.space import LayerShape


def law(shapes: tuple[LayerShape, ...]) -> float:
    """Time of a machine that computes 16 channels at once, and needs a while for each layer."""
    work = sum(s.kernel * s.positions * -(-s.inputs // 16) * -(-s.outputs // 16) * 256 for s in shapes)
    return 0.1 + 0.01 * len(shapes) + 3e-9 * work


def drawn(seed: int) -> tuple[LayerShape, ...]:
    chance = np.random.default_rng(seed)
    depth = int(chance.integers(5, 30))
    return tuple(
        LayerShape(
            int(chance.choice([1, 9])), int(chance.choice([16, 49, 196])), *map(int, chance.integers(16, 256, 2))
        )
        for _ in range(depth)
    )


@pytest.fixture(scope="module")
def model() -> LatencyModel:
    rows = [
        Row(
            shapes=shapes,
            ratio=law(shapes),
            reference_ms=2.0,
            size_bytes=1000 + sum(s.inputs * s.outputs * s.kernel for s in shapes),
            seconds=0.5,
        )
        for shapes in map(drawn, range(40))
    ]
    return LatencyModel(rows)


def test_a_sum_over_layers_is_found(model: LatencyModel) -> None:
    assert model.error < 0.01
    assert model.seconds == 40 * 0.5
    for seed in range(100, 110):
        assert model.latency_ms(drawn(seed)) == pytest.approx(2.0 * law(drawn(seed)), rel=0.02)


def test_channels_cost_what_their_blocks_cost(model: LatencyModel) -> None:
    def time_ms(channels: int) -> float:
        return model.latency_ms([LayerShape(9, 196, channels, channels)])

    assert time_ms(65) == pytest.approx(time_ms(80))
    assert time_ms(80) < time_ms(81)


def test_the_size_of_a_file_is_predicted(model: LatencyModel) -> None:
    shapes = drawn(200)
    expected = 1000 + sum(s.inputs * s.outputs * s.kernel for s in shapes)
    assert 1e6 * model.size_mb(shapes) == pytest.approx(expected, rel=1e-3)


def test_what_was_measured_is_kept_for_the_same_conditions_alone(tmp_path: Path) -> None:
    file, asked = tmp_path / "cases.json", list[str]()

    def measure() -> float:
        asked.append("asked")
        return 1.5

    assert Journal(file, {"faces": 8}).get("case", measure) == 1.5
    assert Journal(file, {"faces": 8}).get("case", measure) == 1.5
    assert len(asked) == 1
    Journal(file, {"faces": 9}).get("case", measure)
    assert len(asked) == 2


def test_time_that_an_earlier_run_spent_is_counted_once(tmp_path: Path) -> None:
    first = Journal(tmp_path / "cases.json", {})
    for _ in range(2):
        first.get("case", lambda: time.sleep(0.01))
    assert first.replayed == 0
    second = Journal(tmp_path / "cases.json", {})
    second.get("another", lambda: time.sleep(0.01))
    assert second.replayed == 0
    for _ in range(2):
        second.get("case", lambda: None)
    spent = second.replayed
    assert spent >= 0.01
    second.get("another", lambda: None)
    assert second.replayed == spent


@pytest.mark.parametrize("content", ["", "{", "[]", "{}"])
def test_a_damaged_journal_is_begun_again(tmp_path: Path, content: str) -> None:
    file = tmp_path / "cases.json"
    file.write_text(content)
    assert Journal(file, {}).get("case", lambda: 2.0) == 2.0
    assert Journal(file, {}).get("case", lambda: 3.0) == 2.0
