"""Pictures of what the original reads, and of where it errs."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from leanface.face.coefficients import ANGLES
from leanface.face.render import Renderer
from leanface.report.sheet import LABEL_INCHES
from leanface.synthesis.dataset import FaceDataset
from leanface.synthesis.prepare import prepare_faces
from leanface.synthesis.synthesis import sample_coefficients
from leanface.tasks.face.accuracy import Accuracy, by_yaw
from leanface.tasks.face.breakdown import save_breakdown
from leanface.tasks.face.photos import PhotoReadings
from leanface.tasks.face.reconstructions import Shown, save_reconstructions, shown_faces, shown_photos
from tests.settings import DATA

SIZE = 64
YAWS_RAD = (0.7, -0.1, 0.3, -0.5, 0.0)


@pytest.fixture(scope="module")
def renderer(model) -> Renderer:
    return Renderer(model, SIZE)


@pytest.fixture(scope="module")
def truth(model) -> torch.Tensor:
    truth = sample_coefficients(model, len(YAWS_RAD), torch.Generator().manual_seed(0))
    truth[:, ANGLES.start + 1] = torch.tensor(YAWS_RAD)
    return truth


@pytest.fixture(scope="module")
def test_split(model, tmp_path_factory) -> FaceDataset:
    folder = tmp_path_factory.mktemp("pictures") / "faces"
    counts = {"image_size": SIZE, "train_count": 1, "val_count": 1, "test_count": len(YAWS_RAD)}
    prepare_faces(model, DATA.model_copy(update=counts), 0, folder)
    return FaceDataset(folder / "test")


@pytest.fixture
def accuracy(truth) -> Accuracy:
    samples = {
        "truth_vertex_mm": np.arange(5.0),
        "truth_rotation_deg": np.ones(5),
        "truth_landmark_nme": np.ones(5),
        "truth_ssim_face": np.array([0.9, np.nan, 0.8, 0.7, 0.9]),
    }
    parts = by_yaw(samples, truth[:, ANGLES.start + 1])
    sizes = [{"size_px": 64, "count": part["count"], "measures": part["measures"]} for part in parts]
    return Accuracy(truth, truth, samples, {}, {}, parts, sizes)


def pixels_of(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def test_the_faces_shown_go_from_the_most_frontal_to_the_most_turned(test_split, accuracy):
    labels = [row.label for row in shown_faces(test_split, accuracy, 3)]
    assert [label.split("\n")[0] for label in labels] == ["test face 4", "test face 2", "test face 0"]
    assert "yaw 40°" in labels[2]
    assert "0.00 mm" in labels[2]
    assert len(shown_faces(test_split, accuracy, 100)) == len(YAWS_RAD)


def test_photos_are_labeled_with_what_was_measured_even_where_it_is_undefined(truth):
    samples = {name: np.array([1.25, np.nan]) for name in ("landmark_nme", "jitter_mm", "jitter_deg")}
    photos = {name: torch.zeros(3, SIZE, SIZE) for name in ("grace_hopper", "nobody")}
    first, second = shown_photos(photos, PhotoReadings(truth[:2], samples, {}), 5)
    assert first.label.startswith("grace hopper\nyaw 40°")
    assert "1.25 mm" in first.label
    assert "landmarks nan %" in second.label


def test_a_right_reading_laid_over_its_own_render_leaves_it_as_it_was(renderer, truth, tmp_path):
    """The last column equals the first; the shape alone is gray."""
    image, alpha = renderer(truth[:1])
    backed = (image + 0.3 * (1 - alpha))[0]
    save_reconstructions(renderer, [Shown("a face", backed, truth[0])] * 2, tmp_path / "sheet.png")
    pixels = pixels_of(tmp_path / "sheet.png")
    height, width = pixels.shape[:2]
    # Cells are 1.76 inches apart at 130 dots; the labels are on the left and the header 0.35 above.
    cells = [pixels[60:250, round((LABEL_INCHES + 1.76 * column) * 130) + 8 :][:, :200] for column in range(4)]
    assert width == pytest.approx((LABEL_INCHES + 4 * 1.76) * 130, abs=1)
    assert height == pytest.approx((0.35 + 2 * 1.76) * 130, abs=1)
    assert np.abs(cells[0] - cells[3]).mean() < 1
    assert np.abs(cells[0] - cells[2]).mean() > 5
    assert np.ptp(cells[1], axis=-1).max() <= 1
    assert cells[1].std() > 10


def test_the_breakdown_is_drawn_and_repeats(accuracy, tmp_path):
    for name in ("first.png", "second.png"):
        save_breakdown(accuracy, tmp_path / name)
    assert (tmp_path / "first.png").read_bytes() == (tmp_path / "second.png").read_bytes()
    assert pixels_of(tmp_path / "first.png").std() > 5
