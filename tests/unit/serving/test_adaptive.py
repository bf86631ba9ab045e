"""Reading strange faces again: which, how many, and never beyond the budget."""

import json
from pathlib import Path

import numpy as np
import pytest

from leanface.errors import ArtifactError
from leanface.monitoring.population import Population
from leanface.serving.adaptive import SAVED_FACES, Adaptive, Policy
from leanface.synthesis.dataset import COEFFICIENTS, IMAGES, LANDMARKS
from tools.studies.__main__ import main as studies
from tools.studies.adaptive_precision import markdown, measure


@pytest.fixture(scope="module")
def population() -> Population:
    return Population(np.zeros(257), np.eye(257))


def test_a_calibrated_policy_reads_the_strangest_as_often_as_it_may() -> None:
    distances = np.random.default_rng(0).normal(1.0, 0.1, 4000)
    policy = Policy.calibrated(distances, budget_ms=2.0, cost_ms=10.0)
    chosen = [len(policy.choose(distances[index : index + 1])) for index in range(4000)]
    assert np.mean(chosen) == pytest.approx(0.2, abs=0.02)
    assert distances[np.array(chosen, bool)].min() >= policy.threshold


def test_the_budget_holds_when_every_face_is_strange() -> None:
    policy = Policy(threshold=1.0, budget_ms=1.0, cost_ms=10.0)
    for size in (1, 7, 32, 200):
        read = sum(len(policy.choose(np.full(size, 9.0))) for _ in range(100))
        assert read * policy.cost_ms <= (100 * size + SAVED_FACES) * policy.budget_ms


def test_the_strangest_come_first_and_usual_ones_never() -> None:
    policy = Policy(threshold=1.0, budget_ms=5.0, cost_ms=10.0)
    assert policy.choose(np.array([0.5, 3.0, 1.5, 2.0])).tolist() == [1, 3]
    assert policy.choose(np.full(100, 0.5)).tolist() == []


def test_only_so_much_is_saved_up() -> None:
    policy = Policy(threshold=1.0, budget_ms=1.0, cost_ms=4.0)
    policy.choose(np.zeros(10_000))
    assert len(policy.choose(np.full(100, 2.0))) == SAVED_FACES // 4


def test_a_network_that_became_slower_is_asked_less_often() -> None:
    policy = Policy(threshold=0.0, budget_ms=5.0, cost_ms=5.0)
    assert len(policy.choose(np.ones(10))) == 10
    for _ in range(100):
        policy.paid(1, 50.0)
    assert policy.cost_ms == pytest.approx(50.0, rel=0.01)
    assert len(policy.choose(np.ones(10))) == 1


def test_a_budget_beyond_the_price_reads_all_again() -> None:
    policy = Policy.calibrated(np.array([1.0, 2.0]), budget_ms=50.0, cost_ms=10.0)
    assert sorted(policy.choose(np.array([1.0, 2.0, 1.5])).tolist()) == [0, 1, 2]


def test_unusual_faces_have_the_larger_networks_coefficients(population: Population) -> None:
    crops = np.zeros((3, 8, 8, 3), np.uint8)
    crops[1] = 200

    def small(images: np.ndarray) -> np.ndarray:
        return np.repeat(images[:, 0, 0, :1].astype(np.float32), 257, 1)

    def large(images: np.ndarray) -> np.ndarray:
        return np.full((len(images), 257), -1.0, np.float32)

    prediction = Adaptive(small, large, population, Policy(threshold=1.0, budget_ms=9.0, cost_ms=9.0)).read(crops)
    assert prediction.reread.tolist() == [False, True, False]
    assert prediction.coefficients[:, 0].tolist() == [0.0, -1.0, 0.0]


@pytest.fixture
def faces(project: Path) -> Path:
    """Two splits of a few random pictures with random labels."""
    random = np.random.default_rng(0)
    for split, count in (("val", 12), ("test", 6)):
        folder = project / "data" / "faces" / split
        folder.mkdir(parents=True)
        np.save(folder / IMAGES, random.integers(0, 256, (count, 64, 64, 3), np.uint8))
        np.save(folder / COEFFICIENTS, random.normal(size=(count, 257)).astype(np.float32))
        np.save(folder / LANDMARKS, np.zeros((count, 5, 2), np.float32))
    return project


def test_the_comparison_measures_every_way(exported, faces: Path) -> None:
    options = ["--small", str(exported.int8), "--large", str(exported.fp32), "--runtime", "openvino", "--threads", "1"]
    assert studies(["adaptive", *options]) == 0
    content = json.loads((faces / "reports/adaptive/adaptive.json").read_text())
    small, large, *adaptive = content["rows"]
    assert (small["reread"], large["reread"]) == (0.0, 1.0)
    for row in adaptive:
        assert 0 <= row["reread"] <= 1
        assert min(small["error_mm"], large["error_mm"]) - 0.5 < row["error_mm"]
        assert row["mean_ms"] > 0
    assert (faces / "reports/adaptive/adaptive.md").read_text().count("| adaptive ") == 3


def test_faces_without_labels_cannot_be_compared(exported, faces: Path) -> None:
    for split in ("val", "test"):
        (faces / "data/faces" / split / COEFFICIENTS).unlink()
        (faces / "data/faces" / split / LANDMARKS).unlink()
    with pytest.raises(ArtifactError, match="have no labels"):
        measure(exported.int8, exported.fp32, "openvino", 1)
    assert markdown([]).startswith("| Way |")
