"""Pictures of prepared faces, and the numbers behind them."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from leanface.face.coefficients import Coefficients
from leanface.face.landmarks import landmarks_image
from leanface.face.lighting import CONSTANT, sh_basis
from leanface.face.morphable_model import MorphableModel
from leanface.paths import SPLITS
from leanface.synthesis.contact_sheet import prepared_sheet
from leanface.synthesis.dataset import COEFFICIENTS, IMAGES, LANDMARKS, FaceDataset
from leanface.synthesis.distributions import describe, plot_distributions

DIRECTIONS = [(0.0, 0.0, 1.0), (0.6, 0.0, 0.8), (0.0, 0.6, 0.8), (-0.6, -0.48, 0.64)]


@pytest.fixture(scope="module")
def splits(faces: Path) -> dict[str, FaceDataset]:
    """Of the test split one face."""
    found = {name: FaceDataset(faces / name) for name in SPLITS}
    test = found["test"]
    test.images, test.coefficients, test.landmarks = test.images[:1], test.coefficients[:1], test.landmarks[:1]
    return found


def described(model: MorphableModel, folder: Path, parts: Coefficients[Tensor]) -> dict[str, np.ndarray]:
    coefficients = torch.cat(parts, -1)
    np.save(folder / IMAGES, np.zeros((len(coefficients), 64, 64, 3), np.uint8))
    np.save(folder / COEFFICIENTS, coefficients.numpy())
    np.save(folder / LANDMARKS, landmarks_image(model, coefficients, 64).numpy())
    return describe(FaceDataset(folder))


def mean_faces(count: int) -> Coefficients[Tensor]:
    sizes = (80, 64, 80, 3, 27, 3)
    parts = Coefficients(*(torch.zeros(count, size) for size in sizes))
    white = torch.zeros(count, 9, 3)
    white[:, 0] = 1 / CONSTANT
    return parts._replace(lighting=white.flatten(1))


def test_a_mean_face_under_white_light_has_no_deviation(model: MorphableModel, tmp_path: Path) -> None:
    values = described(model, tmp_path, mean_faces(1))
    for name in ("yaw_deg", "pitch_deg", "roll_deg", "lamp", "identity", "expression", "albedo"):
        assert values[name] == pytest.approx(0), name
    for name in ("irradiance", "warmth", "scale"):
        assert values[name] == pytest.approx(1, abs=1e-3), name
    assert np.abs(values["shift_px"]).max() < 0.1


def test_a_lamp_is_found_where_it_is(model: MorphableModel, tmp_path: Path) -> None:
    direction = F.normalize(torch.tensor(DIRECTIONS), dim=-1)
    lamp = sh_basis(direction)[:, :, None].expand(-1, -1, 3) * 0.1
    faces = mean_faces(len(DIRECTIONS))
    values = described(model, tmp_path, faces._replace(lighting=faces.lighting + lamp.flatten(1)))
    right, up = np.radians(values["lamp_direction_deg"]).T
    found = np.stack([np.sin(right) * np.cos(up), np.sin(up), np.cos(right) * np.cos(up)], 1)
    np.testing.assert_allclose(found, direction, atol=1e-5)
    np.testing.assert_allclose(values["lamp"], values["lamp"][0], rtol=1e-5)


def test_motion_is_seen_as_shift_and_size(model: MorphableModel, tmp_path: Path) -> None:
    translation = torch.tensor([(0.1, 0.0, 0.0), (0.0, 0.1, 0.0), (0.0, 0.0, 1.0)])
    values = described(model, tmp_path, mean_faces(3)._replace(translation=translation))
    np.testing.assert_allclose(values["shift_px"][:2], [(10.15, 0), (0, -10.15)], atol=0.15)
    np.testing.assert_allclose(values["scale"], [1, 1, 10 / 9], atol=0.01)


def test_the_plot_is_the_same_bytes_again_also_with_a_split_of_a_single_face(
    splits: dict[str, FaceDataset], tmp_path: Path
) -> None:
    for name in ("a.png", "b.png"):
        plot_distributions(splits, tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    picture = np.asarray(Image.open(tmp_path / "a.png"))
    assert picture.shape[1] > 1000
    assert picture.std() > 5


def test_the_sheet_shows_every_split_and_every_photo(splits: dict[str, FaceDataset], tmp_path: Path) -> None:
    photo = np.full((64, 64, 3), (10, 200, 30), np.uint8)
    Image.fromarray(photo).save(tmp_path / "someone.png")
    prepared_sheet(splits, {"someone": tmp_path / "someone.png"}, tmp_path / "sheet.png")
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    shown = np.lib.stride_tricks.sliding_window_view(sheet, (64, 64, 3))[:, :, 0]
    for image in (splits["train"].images[0], splits["train"].images[23], splits["test"].images[0], photo):
        corners = np.argwhere((sheet[: len(shown), : shown.shape[1]] == image[0, 0]).all(-1))
        assert any(np.array_equal(shown[row, column], image) for row, column in corners)
