import csv

import numpy as np
import pytest
import torch

from leanface.face.morphable_model import load_morphable_model
from leanface.metrics.estimate import means, summarize, undefined, write_samples
from leanface.synthesis.synthesis import population
from leanface.tasks.face.evaluation import Evaluator


@pytest.fixture(scope="module")
def evaluator() -> Evaluator:
    return Evaluator(load_morphable_model(), image_size=64, supersample=1, uv_size=64)


@pytest.fixture(scope="module")
def answers(evaluator) -> np.ndarray:
    """Coefficients for 40 images: two of the batches in which they are asked for, the second not full."""
    mean, _ = population(evaluator.model)
    noise = torch.randn(40, 224, generator=torch.Generator().manual_seed(0))
    faces = mean.expand(40, -1).clone()
    faces[:, :224] += 0.3 * noise
    return faces.numpy()


class Oracle:
    """Answers from a list, in the order in which it is asked."""

    def __init__(self, answers: np.ndarray) -> None:
        self.answers = answers
        self.asked = 0

    def __call__(self, images: np.ndarray) -> np.ndarray:
        start, self.asked = self.asked, self.asked + len(images)
        return self.answers[start : self.asked]


def test_a_network_compared_with_itself_is_equal(evaluator, answers):
    images = torch.zeros(len(answers), 3, 64, 64)
    compared = evaluator.compare(Oracle(answers), Oracle(answers), images)
    assert torch.equal(compared.teacher, torch.from_numpy(answers))
    for name, values in compared.similarity.items():
        assert values.shape == (len(answers),)
        assert values == pytest.approx(1.0 if name.startswith("ssim") else 0.0, abs=0.05), name


def test_images_are_read_in_batches_of_the_size_asked_for(evaluator, answers):
    sizes: list[int] = []

    def network(images: np.ndarray) -> np.ndarray:
        sizes.append(len(images))
        return answers[: len(images)]

    evaluator.compare(Oracle(answers), network, torch.zeros(5, 3, 64, 64), 2)
    assert sizes == [2, 2, 1]


def test_a_better_network_scores_better(evaluator, answers):
    images = torch.zeros(4, 3, 64, 64)
    noise = np.random.default_rng(0).normal(size=answers[:4].shape).astype(np.float32)
    near, far = (
        means(evaluator.compare(Oracle(answers), Oracle(answers[:4] + scale * noise), images).similarity)
        for scale in (0.01, 0.1)
    )
    for name in near:
        assert near[name] > far[name] if name.startswith("ssim") else near[name] < far[name], name


def test_the_mean_face_is_scored_by_what_needs_no_rendering(evaluator, answers):
    truth = torch.from_numpy(answers[:4])
    scores = evaluator.mean_face(truth, truth)
    assert scores["truth_identity_mm"] > 0
    assert scores["ssim"] < 1
    assert "ssim_render" not in scores


def test_samples_and_summary_agree(tmp_path):
    samples = {"ssim": np.array([0.5, 1.0, 0.75]), "ssim_face": np.array([np.nan, 0.5, np.nan])}
    write_samples(samples, tmp_path / "new" / "samples.csv")
    with (tmp_path / "new" / "samples.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["ssim"] for row in rows] == ["0.5", "1", "0.75"]
    assert [row["ssim_face"] for row in rows] == ["", "0.5", ""]
    summary = summarize(samples)
    assert means(samples) == {"ssim": 0.75, "ssim_face": 0.5}
    assert undefined(samples) == {"ssim_face": 2}
    assert {name: found and found["mean"] for name, found in summary.items()} == means(samples)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["samples.csv"]


def test_a_measure_defined_for_no_sample_has_no_mean():
    samples = {"ssim_face": np.array([np.nan])}
    assert summarize(samples) == {"ssim_face": None}
    assert means(samples) == {}
