import numpy as np
import pytest
import torch
from PIL import Image

from leanface.face.morphable_model import load_morphable_model
from leanface.report.pictures import DIFFERENCE_GAIN, FaceRow, save_face_sheet
from leanface.tasks.face.heatmap import save_heatmaps


def face_row(difference: float) -> FaceRow:
    gray = np.full((16, 16, 3), 0.5)
    return FaceRow("a face\nUV SSIM 1.000", gray, gray, gray, np.full((16, 16), difference))


def pixels_of(path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def last_cell(path) -> np.ndarray:
    """Color in the middle of the difference's cell, in the sheet's lower right."""
    pixels = pixels_of(path)
    return pixels[int(pixels.shape[0] * 0.6), int(pixels.shape[1] * 0.92)]


def test_no_difference_is_white_and_a_large_one_dark(tmp_path):
    for name, difference in (("none", 0.0), ("some", 0.3 / DIFFERENCE_GAIN), ("large", 2 / DIFFERENCE_GAIN)):
        save_face_sheet([face_row(difference)], tmp_path / f"{name}.png")
    none, some, large = (last_cell(tmp_path / f"{name}.png").sum() for name in ("none", "some", "large"))
    assert none == 3 * 255 > some > large
    assert large < 255


def test_errors_show_where_they_are(tmp_path):
    model = load_morphable_model()
    nowhere = torch.zeros(model.vertex_count)
    on_the_left = (model.mean_vertices[:, 0] < 0).float()
    save_heatmaps(model, {"right": 1 - on_the_left, "left": on_the_left, "none": nowhere}, tmp_path / "map.png")
    right, left, none = (redness(panel) for panel in np.array_split(pixels_of(tmp_path / "map.png")[:, :-110], 3, 1))
    assert min(right, left) > 10 * max(none, 1)


def redness(pixels: np.ndarray) -> int:
    """How many pixels have the colors of large errors."""
    return int((pixels[..., 0] - pixels[..., 1] > 80).sum())


@pytest.mark.parametrize("count", [1, 3])
def test_a_sheet_has_a_row_per_sample(tmp_path, count):
    save_face_sheet([face_row(0.0)] * count, tmp_path / "sheet.png")
    heights = pixels_of(tmp_path / "sheet.png").shape[0]
    save_face_sheet([face_row(0.0)] * (count + 1), tmp_path / "more.png")
    assert pixels_of(tmp_path / "more.png").shape[0] - heights > 200


def test_the_same_faces_give_the_same_bytes(tmp_path):
    for name in ("first", "second"):
        save_face_sheet([face_row(0.1)], tmp_path / f"{name}.png")
    assert (tmp_path / "first.png").read_bytes() == (tmp_path / "second.png").read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"first.png", "second.png"}
