import math

import numpy as np
import pytest
import torch

from leanface.errors import ArtifactError
from leanface.face.camera import rotation_from_angles
from leanface.face.morphable_model import load_morphable_model
from leanface.photos.alignment import (
    MEAN_FACE_LANDMARKS_DM,
    TEMPLATE_224,
    Alignment,
    align,
    fit,
    resample,
    roll_of,
    template_from_landmarks3d,
    to_input,
)
from leanface.photos.detector import FaceDetector
from leanface.photos.load import load_photo

SEEDS = range(20)


def smooth_picture(height: int, width: int) -> np.ndarray:
    """Color ramps: resampling them is exact wherever the crop lies inside."""
    y, x = np.mgrid[:height, :width]
    return np.stack([255 * x / width, 255 * y / height, 127 + 0 * x], axis=2).round().astype(np.uint8)


@pytest.mark.parametrize("name", ["astronaut", "grace_hopper"])
@pytest.mark.parametrize("size", [64, 112, 224])
def test_a_real_face_is_framed_like_the_mean_face(name: str, size: int) -> None:
    photo = load_photo(name)
    landmarks = FaceDetector().largest(photo).landmarks
    crop, alignment = align(photo, landmarks, size=size)
    assert crop.shape == (size, size, 3)
    assert crop.dtype == np.uint8
    residual = alignment.crop_from_photo(landmarks) - template_from_landmarks3d(MEAN_FACE_LANDMARKS_DM, size)
    # A smile and a tilted head move landmarks by up to a twelfth of the crop; the whole fits better.
    assert np.linalg.norm(residual, axis=1).max() < size / 12
    assert np.linalg.norm(residual.mean(axis=0)) < size / 24


@pytest.mark.parametrize("seed", SEEDS)
def test_the_mappings_are_inverse(seed: int) -> None:
    random = np.random.default_rng(seed)
    alignment = Alignment(random.uniform(0.01, 10), *random.uniform(-1000, 1000, 2), size=224)
    points = random.uniform(-5000, 5000, (50, 2))
    np.testing.assert_allclose(alignment.photo_from_crop(alignment.crop_from_photo(points)), points, atol=1e-6)
    np.testing.assert_allclose(alignment.crop_from_photo(alignment.photo_from_crop(points)), points, atol=1e-6)


@pytest.mark.parametrize("seed", SEEDS)
def test_moving_and_scaling_the_photo_leaves_the_framing(seed: int) -> None:
    random = np.random.default_rng(seed)
    landmarks = TEMPLATE_224 + random.normal(0, 2, (5, 2))
    moved = landmarks * random.uniform(0.1, 20) + random.uniform(-3000, 3000, 2)
    first, second = fit(landmarks), fit(moved)
    np.testing.assert_allclose(second.crop_from_photo(moved), first.crop_from_photo(landmarks), atol=1e-6)


@pytest.mark.parametrize("seed", SEEDS)
def test_no_other_scale_or_shift_fits_better(seed: int) -> None:
    random = np.random.default_rng(seed)
    landmarks = TEMPLATE_224 + random.normal(0, 8, (5, 2))
    best = fit(landmarks)

    def cost(alignment: Alignment) -> float:
        return float(((alignment.crop_from_photo(landmarks) - TEMPLATE_224) ** 2).sum())

    for change in random.normal(0, 1, (20, 3)) * (0.01, 0.5, 0.5):
        other = Alignment(best.scale + change[0], best.tx + change[1], best.ty + change[2], best.size)
        assert cost(other) > cost(best)


@pytest.mark.parametrize("yaw_deg", [-60, -30, 0, 30, 60])
@pytest.mark.parametrize("roll_deg", [-40, 0, 40])
def test_turned_heads_are_accepted(yaw_deg: float, roll_deg: float) -> None:
    angles = torch.tensor([[0.2, np.radians(yaw_deg), np.radians(roll_deg)]])
    turn = rotation_from_angles(angles)[0].double().numpy()
    seen = template_from_landmarks3d(MEAN_FACE_LANDMARKS_DM @ turn.T)
    residual = fit(seen).crop_from_photo(seen) - TEMPLATE_224
    np.testing.assert_allclose(residual.mean(axis=0), 0, atol=1e-9)


@pytest.mark.parametrize("size", [32, 112, 448])
def test_everything_scales_with_the_size(size: int) -> None:
    landmarks = TEMPLATE_224 * 2 + 50
    small, reference = fit(landmarks, size=size), fit(landmarks)
    factor = size / 224
    expected = (reference.crop_from_photo(landmarks) + 0.5) * factor - 0.5
    np.testing.assert_allclose(small.crop_from_photo(landmarks), expected, atol=1e-9)
    expected = (template_from_landmarks3d(MEAN_FACE_LANDMARKS_DM) + 0.5) * factor - 0.5
    np.testing.assert_allclose(template_from_landmarks3d(MEAN_FACE_LANDMARKS_DM, size), expected, atol=1e-9)


def test_the_mean_face_as_rendered_is_left_alone() -> None:
    photo = smooth_picture(224, 224)
    crop, alignment = align(photo, TEMPLATE_224)
    assert alignment.scale == pytest.approx(1)
    np.testing.assert_array_equal(crop, photo)


def test_the_template_is_the_packaged_models_mean_face() -> None:
    model = load_morphable_model()
    landmarks = model.mean_vertices[model.landmarks].double().numpy()
    np.testing.assert_allclose(template_from_landmarks3d(landmarks), TEMPLATE_224, atol=0.1)


@pytest.mark.parametrize("zoom", [0.4, 1.07, 3.0, 9.0])
def test_crop_pixels_show_the_photo_where_the_alignment_says(zoom: float) -> None:
    landmarks = TEMPLATE_224 * zoom + 0.3 + 20 * zoom
    side = round(270 * zoom)
    photo = smooth_picture(side, side)
    crop, alignment = align(photo, landmarks)
    v, u = np.mgrid[:224, :224]
    x, y = alignment.photo_from_crop(np.stack([u, v], axis=2).astype(float)).transpose(2, 0, 1)
    assert x.min() > 1
    assert x.max() < side - 2
    expected = np.stack([255 * x / side, 255 * y / side, 127 + 0 * x], axis=2)
    np.testing.assert_allclose(crop, expected, atol=1.01)  # two roundings to whole levels
    # Half a pixel amiss would be a mean difference of 0.4. (No zoom is 1: there every pixel has the same
    # fraction, and rounding to whole levels does not average out.)
    np.testing.assert_allclose((crop - expected).mean(axis=(0, 1)), 0, atol=0.1)


def test_a_large_photo_is_averaged_not_sampled() -> None:
    random = np.random.default_rng(0)
    noise = random.integers(0, 2, (2000, 2000, 1), dtype=np.uint8).repeat(3, axis=2) * 255
    crop, alignment = align(noise, TEMPLATE_224 * 8 + 50)
    assert alignment.scale < 0.2
    assert crop.std() < 2.5 * 127 * alignment.scale


def test_beyond_the_photo_its_edges_are_repeated() -> None:
    photo = np.zeros((224, 224, 3), dtype=np.uint8)
    photo[:, :100] = (250, 20, 60)
    crop, alignment = align(photo, TEMPLATE_224 - (112, 0))
    left, right = np.rint(alignment.crop_from_photo(np.array([(0, 0), (99, 0)]))[:, 0]).astype(int)
    assert left > 50
    assert (crop[:, : right - 4] == (250, 20, 60)).all()


@pytest.mark.parametrize("shift", [(0, 0), (150, -90), (-150, 90), (400, 0), (-400, 400)])
def test_a_crop_beyond_the_photo_is_that_of_the_photo_with_wide_edges(shift: tuple[int, int]) -> None:
    photo, wide = smooth_picture(224, 200), 600
    crop = resample(photo, Alignment(0.9, *shift, 224))
    padded = np.pad(photo, [(wide, wide), (wide, wide), (0, 0)], "edge")
    expected = resample(padded, Alignment(0.9, shift[0] - 0.9 * wide, shift[1] - 0.9 * wide, 224))
    np.testing.assert_allclose(crop, expected, atol=1)  # the filter's weights are rounded after the shift


def test_the_photo_stays_as_it_was() -> None:
    photo = smooth_picture(224, 224)
    photo.setflags(write=False)
    first, _ = align(photo, TEMPLATE_224)
    second, _ = align(photo, TEMPLATE_224)
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(photo, smooth_picture(224, 224))


def test_to_input_keeps_every_value_and_its_place() -> None:
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    image[0, 0] = (0, 128, 255)
    planes = to_input(image)
    assert planes.shape == (3, 5, 7)
    assert planes.dtype == np.float32
    assert planes.flags.c_contiguous
    np.testing.assert_array_equal(planes[:, 0, 0], np.float32([0, 128, 255]) / np.float32(255))
    np.testing.assert_array_equal(np.rint(planes * 255).transpose(1, 2, 0), image)


@pytest.mark.parametrize(
    "landmarks",
    [
        np.full((5, 2), 30.0),
        np.column_stack([np.full(5, 30.0), np.arange(5.0)]),
        np.column_stack([np.arange(5.0), np.arange(5.0)]),
        np.full((5, 2), np.nan),
        TEMPLATE_224[[1, 0, 2, 4, 3]],
        TEMPLATE_224[:, ::-1],
        223 - TEMPLATE_224,
        TEMPLATE_224 + 5000,
    ],
    ids=[
        "one point",
        "a line",
        "a diagonal",
        "nan",
        "sides swapped",
        "rows first",
        "upside down",
        "elsewhere",
    ],
)
def test_landmarks_of_no_upright_face_are_refused(landmarks: np.ndarray) -> None:
    with pytest.raises(ArtifactError, match="landmarks"):
        align(np.zeros((224, 224, 3), dtype=np.uint8), landmarks)


def test_wrong_arguments_are_refused() -> None:
    photo = np.zeros((224, 224, 3), dtype=np.uint8)
    with pytest.raises(ValueError, match="uint8"):
        align(photo / 255, TEMPLATE_224)
    with pytest.raises(ValueError, match="expected landmarks"):
        align(photo, TEMPLATE_224[:4])
    with pytest.raises(ValueError, match="template_from_landmarks3d"):
        align(photo, TEMPLATE_224, MEAN_FACE_LANDMARKS_DM)
    with pytest.raises(ValueError, match="size"):
        align(photo, TEMPLATE_224, size=0)


@pytest.mark.parametrize("size", [32, 112, 448])
def test_an_alignment_of_another_size_shows_the_same_square(size: int) -> None:
    alignment = fit(TEMPLATE_224 * 1.7 + 30, size=224)
    other = alignment.resized(size)
    corners = [np.array([(-0.5, -0.5), (crop.size - 0.5, crop.size - 0.5)]) for crop in (alignment, other)]
    np.testing.assert_allclose(other.photo_from_crop(corners[1]), alignment.photo_from_crop(corners[0]), atol=1e-9)
    expected = fit(TEMPLATE_224 * 1.7 + 30, size=size)
    np.testing.assert_allclose((other.scale, other.tx, other.ty), (expected.scale, expected.tx, expected.ty), atol=1e-9)


@pytest.mark.parametrize("angle_deg", [0, 12, -40, 90, 179])
def test_roll_is_the_angle_by_which_landmarks_are_turned(angle_deg: float) -> None:
    cos, sin = math.cos(math.radians(angle_deg)), math.sin(math.radians(angle_deg))
    turned = (TEMPLATE_224 * 2.5) @ np.array([(cos, sin), (-sin, cos)])
    assert math.degrees(roll_of(turned)) == pytest.approx(angle_deg)
