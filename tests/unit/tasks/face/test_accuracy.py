import json

import numpy as np
import pytest
import torch
from torch import nn

from leanface.config import Data, Measure
from leanface.face.coefficients import ANGLES
from leanface.face.render import Renderer
from leanface.metrics.estimate import means
from leanface.synthesis.dataset import FaceDataset
from leanface.synthesis.prepare import prepare_faces
from leanface.tasks.face.accuracy import (
    CONTRASTED,
    HEADLINES,
    accuracy_report,
    angle_r2,
    by_size,
    by_yaw,
    face_errors,
    headline,
    measure_accuracy,
)
from tests.settings import DATA
from tests.unit.tasks.face.conftest import Oracle

MEASURE = Measure(sizes=(64, 80), faces_per_size=3, jitter_count=2, contrast_count=1, picture_count=1)


@pytest.fixture(scope="module")
def renderer(model) -> Renderer:
    return Renderer(model, 64)


@pytest.fixture(scope="module")
def accuracy(model, renderer, sampled, tmp_path_factory):
    data: Data = DATA.model_copy(update={"image_size": 64, "train_count": 1, "val_count": 1, "test_count": 6})
    folder = tmp_path_factory.mktemp("accuracy") / "faces"
    prepare_faces(model, data, 0, folder)
    test = FaceDataset(folder / "test")
    truth = torch.from_numpy(test.coefficients)
    return measure_accuracy(Oracle(sampled[:1]), renderer, test, truth, MEASURE, augment=1.0, seed=0)


def test_the_truth_has_no_error(renderer, sampled):
    for name, value in means(face_errors(renderer, sampled, sampled)).items():
        assert value == pytest.approx(1.0 if "ssim" in name else 0.0, abs=0.05), name
    assert angle_r2(sampled, sampled) == {"pitch_r2": 1.0, "yaw_r2": 1.0, "roll_r2": 1.0}


def test_a_turn_of_the_head_is_an_error_in_that_angle_alone(renderer, sampled):
    turned = sampled.clone()
    turned[:, ANGLES.start + 1] += np.radians(5)
    errors = means(face_errors(renderer, turned, sampled))
    assert errors["truth_yaw_deg"] == pytest.approx(5.0, abs=1e-3)
    assert errors["truth_rotation_deg"] == pytest.approx(5.0, abs=0.01)
    assert errors["truth_pitch_deg"] == errors["truth_roll_deg"] == errors["truth_vertex_mm"] == 0.0
    assert errors["truth_landmark_nme"] > 0
    assert errors["truth_ssim_face"] < 1


def test_answering_the_mean_explains_nothing_and_what_does_not_vary_has_no_r2(sampled):
    mean = sampled.mean(0).expand_as(sampled)
    assert angle_r2(mean, sampled) == pytest.approx({"pitch_r2": 0.0, "yaw_r2": 0.0, "roll_r2": 0.0}, abs=1e-6)
    assert angle_r2(sampled, sampled[:1].expand_as(sampled)) == {}


def test_faces_are_divided_by_yaw_to_either_side():
    yaw_rad = torch.deg2rad(torch.tensor([-50.0, -3.0, 0.0, 14.9, 16.0, 50.0]))
    rows = by_yaw({"vertex_mm": np.arange(6.0)}, yaw_rad)
    assert [(row["yaw_deg"], row["count"]) for row in rows] == [("0-15", 3), ("15-30", 1), ("45-60", 2)]
    assert [row["measures"]["vertex_mm"]["mean"] for row in rows] == [2.0, 4.0, 2.5]


class Sizes(nn.Module):
    """Answers as the oracle does, and remembers the images."""

    def __init__(self, reading: torch.Tensor) -> None:
        super().__init__()
        self.reading = reading
        self.seen: list[torch.Tensor] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.seen.append(images)
        return self.reading[: len(images)]


def test_by_size_shows_the_same_faces_in_each_size_and_repeats(renderer, sampled):
    first, again = Sizes(sampled), Sizes(sampled)
    rows = by_size(first, renderer, sampled[:3], 1.0, (64, 80), 0)
    assert by_size(again, renderer, sampled[:3], 1.0, (64, 80), 0) == rows
    assert [tuple(images.shape) for images in first.seen] == [(3, 3, 64, 64), (3, 3, 80, 80)]
    assert all(torch.equal(*pair) for pair in zip(first.seen, again.seen, strict=True))
    assert [(row["size_px"], row["count"], row["measures"]["truth_vertex_mm"]["mean"]) for row in rows] == [
        (64, 3, 0.0),
        (80, 3, 0.0),
    ]
    small, large = (torch.nn.functional.adaptive_avg_pool2d(images, 8) for images in first.seen)
    assert float((small - large).abs().mean()) < 0.5 * float((small - large.roll(1, 0)).abs().mean())


def test_headlines_are_measured_and_flat_and_all_is_json(accuracy):
    found = headline(accuracy)
    expected = {*HEADLINES, *accuracy.r2, "identity_ratio", *(f"mean_face_{name}" for name in CONTRASTED)}
    assert set(found) == expected
    assert all(np.isfinite(value) for value in found.values())
    json.dumps(accuracy_report(accuracy), allow_nan=False)
    assert [row["size_px"] for row in accuracy.by_size] == list(MEASURE.sizes)
    assert sum(row["count"] for row in accuracy.by_yaw) == len(accuracy.readings) == 6
