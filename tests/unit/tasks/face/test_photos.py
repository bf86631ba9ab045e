import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from leanface.face.coefficients import ANGLES, TRANSLATION
from leanface.face.landmarks import landmarks_image
from leanface.face.render import Renderer
from leanface.photos.alignment import align
from leanface.photos.detector import FaceDetector
from leanface.photos.load import load_photo
from leanface.synthesis.synthesis import population
from leanface.tasks.face.photos import HEADLINES, detect_landmarks, fit_errors, headline, photo_report, read_photos
from tests.unit.tasks.face.conftest import Oracle

SIZE = 112


@pytest.fixture(scope="module")
def renderer(model) -> Renderer:
    return Renderer(model, SIZE)


@pytest.fixture(scope="module")
def photo() -> torch.Tensor:
    """The astronaut's crop, (1,3,112,112)."""
    image = load_photo("astronaut")
    crop, _ = align(image, FaceDetector().largest(image).landmarks, size=SIZE)
    return torch.from_numpy(crop).permute(2, 0, 1)[None].float() / 255


@pytest.fixture(scope="module")
def mean_face(model) -> torch.Tensor:
    return population(model)[0][None]


@pytest.fixture(scope="module")
def readings(renderer, photo, mean_face):
    """Of the photo and of a plain gray picture, by a network that answers the mean face to everything."""
    return read_photos(Oracle(mean_face), renderer, torch.cat([photo, torch.full_like(photo, 0.5)]), 3)


def test_landmarks_are_found_where_the_alignment_put_them_and_nan_where_there_is_no_face(model, photo):
    found = detect_landmarks(torch.cat([photo, torch.full_like(photo, 0.5)]))
    template = landmarks_image(model, torch.zeros(1, 257), SIZE)[0]
    assert float((found[0] - template).norm(dim=1).mean()) < 5
    assert found[1].isnan().all()


def test_a_render_fits_itself(model, renderer, mean_face):
    picture, points = renderer(mean_face).image, landmarks_image(model, mean_face, SIZE)
    assert {name: float(value[0]) for name, value in fit_errors(renderer, mean_face, picture, points).items()} == {
        "landmark_px": 0.0,
        "landmark_nme": 0.0,
        "photometric_levels": 0.0,
    }
    brighter = fit_errors(renderer, mean_face, picture + 10 / 255, points)
    assert brighter["photometric_levels"] == pytest.approx([10.0], rel=1e-3)


def test_a_reading_out_of_sight_has_no_photometric_error(renderer, photo, mean_face):
    gone = mean_face.clone()
    gone[:, TRANSLATION] = torch.tensor([50.0, 0.0, 0.0])
    errors = fit_errors(renderer, gone, photo, torch.zeros(1, 5, 2))
    assert np.isnan(errors["photometric_levels"]).all()
    assert errors["landmark_nme"][0] > 100


def test_a_network_that_always_answers_the_same_holds_still_but_is_not_far_from_the_mean(readings):
    samples = readings.samples
    assert samples["jitter_mm"] == pytest.approx([0, 0], abs=1e-3)
    assert samples["from_mean_mm"] == pytest.approx([0, 0], abs=0.1)
    assert samples["mirror_mm"] == pytest.approx([0, 0], abs=0.3)  # the mean mesh is symmetric to 0.24 mm
    # Its pose does not follow the framing's turn, which is undone for it.
    assert (samples["jitter_deg"] > 1).all()
    for name, values in readings.mean_face.items():
        assert np.array_equal(values, samples[name], equal_nan=True), name


class Compass(Oracle):
    """Reads the roll: the direction from the red spot to the green one."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        line = torch.linspace(-1, 1, images.shape[-1])
        weights = images / images.sum((2, 3), keepdim=True)
        x, y = (weights * line).sum((2, 3)), (weights * -line[:, None]).sum((2, 3))
        answer = self.reading.repeat(len(images), 1)
        answer[:, ANGLES.stop - 1] = torch.atan2(y[:, 1] - y[:, 0], x[:, 1] - x[:, 0])
        return answer


def test_a_network_whose_roll_follows_the_picture_is_consistent(renderer, mean_face):
    spots = torch.zeros(1, 3, 16, 16)
    spots[:, 0, 7:9, 4:6] = spots[:, 1, 7:9, 10:12] = spots[:, 2, 7:9, 7:9] = 1.0
    picture = F.interpolate(spots, size=SIZE, mode="bilinear")
    constant, follows = (
        read_photos(network, renderer, picture, 6).samples["jitter_deg"][0]
        for network in (Oracle(mean_face), Compass(mean_face))
    )
    assert follows < 0.1 * constant


def test_the_report_is_json_and_says_what_is_undefined(model, readings):
    report = json.loads(
        json.dumps(photo_report(model, ["astronaut", "gray"], readings, same=readings), allow_nan=False)
    )
    assert list(report["photos"]) == ["astronaut", "gray"]
    assert report["photos"]["gray"]["landmark_nme"] is None
    assert report["measures"]["landmark_nme"]["count"] == 1
    assert report["contrasts"]["same"] == report["measures"]
    assert set(headline(readings)) == {f"photo_{name}" for name in HEADLINES}
