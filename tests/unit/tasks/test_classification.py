"""A classifier's task: labels as logits, temperature, measures and the checks of its samples."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from leanface import paths
from leanface.catalog import CLASSIFICATION_MEASURES
from leanface.config import Samples
from leanface.errors import ArtifactError, ConfigError
from leanface.tasks.classification.data import ImageSplit, Labeled, write_splits
from leanface.tasks.classification.evaluation import calibration_gaps, scores
from leanface.tasks.classification.task import ClassificationTask, kl_divergence
from leanface.tasks.digits.prepare import prepare
from leanface.tasks.digits.task import DigitsTask

DATA = Samples(image_size=8)


def logits(count: int, seed: int) -> torch.Tensor:
    return 3 * torch.randn(count, 10, generator=torch.Generator().manual_seed(seed))


def splits(**changes: Labeled) -> dict[str, Labeled]:
    images = np.random.default_rng(0).random((4, 3, 8, 8))
    return {name: Labeled(images, np.arange(4) % 2) for name in paths.SPLITS} | changes


@pytest.fixture
def task() -> ClassificationTask:
    return DigitsTask()


def test_the_divergence_from_a_label_is_the_cross_entropy(task: ClassificationTask, tmp_path: Path) -> None:
    write_splits(splits(), 10, DATA, 0, tmp_path)
    truth = ImageSplit(tmp_path / "val", 10).truth()["truth"]
    answers = logits(4, 1)
    expected = F.cross_entropy(answers, torch.arange(4) % 2, reduction="none")
    torch.testing.assert_close(task.errors(answers, truth)["kl"], expected)
    torch.testing.assert_close(task.terms(["kl"], 4.0).labels["kl"].per_sample(answers, truth), expected)


def test_temperature_softens_what_is_learned_from_the_teacher_alone(task: ClassificationTask) -> None:
    answers, teacher = logits(5, 1), logits(5, 2)
    terms = task.terms(["kl"], 4.0)
    soft = F.kl_div(F.log_softmax(answers / 4, 1), F.softmax(teacher / 4, 1), reduction="none").sum(1) * 16
    torch.testing.assert_close(terms.teacher["kl"].per_sample(answers, teacher), soft)
    torch.testing.assert_close(terms.labels["kl"].per_sample(answers, teacher), kl_divergence(answers, teacher))
    with pytest.raises(ConfigError, match="there is no vertices; use kl"):
        task.terms(["vertices"], 1.0)


def test_every_measure_of_the_catalog_is_taken_and_a_perfect_network_has_the_best(task: ClassificationTask) -> None:
    truth = torch.full((20, 10), -1e4)
    truth[torch.arange(20), torch.arange(20) % 10] = 0.0
    found = scores(task, truth, truth, truth)
    assert set(found) == set(CLASSIFICATION_MEASURES)
    for name, values in found.items():
        best = 1.0 if CLASSIFICATION_MEASURES[name].better == "higher" else 0.0
        np.testing.assert_allclose(values, best, atol=1e-9, err_msg=name)


def test_the_mean_gap_is_the_calibration_error() -> None:
    confidence = np.array([0.95, 0.93, 0.91, 0.91, 0.55, 0.57])
    right = np.array([1.0, 1.0, 1.0, 0.0, 1.0, 0.0])
    expected = (4 * abs(0.925 - 0.75) + 2 * abs(0.56 - 0.5)) / 6
    assert calibration_gaps(confidence, right).mean() == pytest.approx(expected)


IMAGES = np.zeros((4, 3, 8, 8))


@pytest.mark.parametrize(
    ("split", "says"),
    [
        (Labeled(np.full((4, 3, 8, 8), np.nan), np.zeros(4, int)), "train have NaN or infinity"),
        (Labeled(2 * np.ones((4, 3, 8, 8)), np.zeros(4, int)), "train go from 2 to 2; expected float images"),
        (Labeled(np.zeros((4, 1, 8, 8)), np.zeros(4, int)), r"train have shape \(4, 1, 8, 8\)"),
        (Labeled(IMAGES[:0], np.zeros(0, int)), r"train have shape \(0, 3, 8, 8\)"),
        (Labeled(IMAGES, np.zeros(3, int)), r"labels of split train are int64 \(3,\); expected integers \(4,\)"),
        (Labeled(IMAGES, np.zeros(4)), r"labels of split train are float64 \(4,\)"),
        (Labeled(IMAGES, np.full(4, 10)), "labels of split train go from 10 to 10; expected 0 to 9"),
    ],
)
def test_samples_that_cannot_be_are_named_and_nothing_is_written(split: Labeled, says: str, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=says):
        write_splits(splits(train=split), 10, DATA, 0, tmp_path / "samples")
    assert not (tmp_path / "samples").exists()


def test_digits_are_split_by_the_seed_without_overlap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    data = Samples(image_size=32)
    assert prepare(data, 0) == {"train_count": 997, "val_count": 200, "test_count": 600}
    first = {name: ImageSplit(paths.SAMPLES / name, 10).images.copy() for name in paths.SPLITS}
    assert len(np.unique(np.concatenate(list(first.values())), axis=0)) == 1797
    prepare(data, 1)
    assert (ImageSplit(paths.SAMPLES / "test", 10).images != first["test"]).any()
