"""Photo in, crops out."""

import numpy as np
import pytest
from PIL import Image

from leanface.errors import ArtifactError
from leanface.face.coefficients import TRANSLATION
from leanface.face.geometry import project
from leanface.photos.alignment import (
    MEAN_FACE_LANDMARKS_DM,
    TEMPLATE_224,
    Alignment,
    cut_out_turned,
    roll_of,
    template_from_landmarks3d,
)
from leanface.photos.crops import FaceCrop, as_in_photo, crop_faces
from leanface.photos.detector import FaceDetection, FaceDetector
from leanface.photos.load import load_photo

NAMES = ("astronaut", "grace_hopper")


@pytest.fixture(scope="module")
def detector() -> FaceDetector:
    return FaceDetector()


def scaled(photo: np.ndarray, factor: float) -> np.ndarray:
    size = (round(photo.shape[1] * factor), round(photo.shape[0] * factor))
    return np.array(Image.fromarray(photo).resize(size, Image.Resampling.LANCZOS))


def crop_largest(photo: np.ndarray, detector: FaceDetector, size: int = 224) -> FaceCrop:
    (face,) = crop_faces(photo, detector, size=size)
    return face


def on_wall(*photos: np.ndarray) -> np.ndarray:
    """The photos side by side on a gray wall."""
    height = max(len(photo) for photo in photos)
    return np.hstack([np.pad(p, ((0, height - len(p)), (0, 0), (0, 0)), constant_values=90) for p in photos])


def difference(a: FaceCrop, b: FaceCrop) -> float:
    """Mean absolute difference in the middle of two crops, in levels."""
    return float(np.abs(a.crop[50:180, 50:180].astype(float) - b.crop[50:180, 50:180]).mean())


def test_all_faces_of_a_group_come_out_the_largest_first(detector: FaceDetector) -> None:
    ann, grace = (load_photo(name) for name in NAMES)
    alone = {"grace": crop_largest(grace, detector), "ann": crop_largest(ann, detector)}
    group = on_wall(ann, grace, scaled(ann, 0.6))
    crops = crop_faces(group, detector, every=True)
    widths = [face.detection.box[2] - face.detection.box[0] for face in crops]
    assert widths == sorted(widths, reverse=True)
    assert len(crops) == 3
    for crop, own, other in zip(crops, ("grace", "ann", "ann"), ("ann", "grace", "grace"), strict=True):
        assert difference(crop, alone[own]) < 12
        assert difference(crop, alone[other]) > 30
    np.testing.assert_array_equal(crop_largest(group, detector).crop, crops[0].crop)


def turned(photo: np.ndarray, angle_deg: float) -> np.ndarray:
    """Counterclockwise about its middle, in a square that holds all of it."""
    side = int(np.hypot(*photo.shape[:2]))
    square = Image.new("RGB", (side, side), (90, 90, 90))
    square.paste(Image.fromarray(photo), ((side - photo.shape[1]) // 2, (side - photo.shape[0]) // 2))
    return np.array(square.rotate(angle_deg, Image.Resampling.BICUBIC, fillcolor=(90, 90, 90)))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("angle_deg", [30, -50, 90, 135, 180, -100])
def test_a_face_that_is_turned_is_cut_out_upright(detector: FaceDetector, name: str, angle_deg: float) -> None:
    photo = load_photo(name)
    upright, picture = turned(photo, 0), turned(photo, angle_deg)
    straight, tilted = crop_largest(upright, detector), crop_largest(picture, detector)
    lean_rad = roll_of(straight.detection.landmarks)
    assert straight.turn_rad == 0  # heads lean a little, and a network reads that
    assert (np.degrees(tilted.turn_rad - lean_rad) + angle_deg + 180) % 360 - 180 == pytest.approx(0, abs=3)
    level, alignment = cut_out_turned(upright, straight.detection.landmarks, TEMPLATE_224, 224, lean_rad)
    assert difference(tilted, straight._replace(crop=level)) < 8
    assert tilted.alignment.scale == pytest.approx(alignment.scale, rel=0.04)
    middle, center = np.full(2, (alignment.size - 1) / 2), (len(upright) - 1) / 2
    x, y = alignment.photo_from_crop(middle) - center
    cos, sin = np.cos(np.radians(angle_deg)), np.sin(np.radians(angle_deg))
    expected = np.array([x * cos + y * sin, y * cos - x * sin]) + center
    assert np.abs(tilted.alignment.photo_from_crop(middle) - expected).max() < 0.03 * alignment.size / alignment.scale


@pytest.mark.parametrize("turn_rad", [0.0, 0.5, -2.0, np.pi])
def test_what_was_read_in_a_turned_crop_lies_in_the_photo_as_it_was_seen(turn_rad: float) -> None:
    """A point that the crop shows at c lies in the photo where the alignment puts c turned about the middle."""
    coefficients = np.zeros((1, 257), np.float32)
    coefficients[0, TRANSLATION] = (0.3, -0.2, 0.1)
    alignment = Alignment(0.5, 10.0, 20.0, 112)
    detection = FaceDetection(np.zeros(4), np.zeros((5, 2)), 1.0)
    crop = FaceCrop(np.zeros((112, 112, 3), np.uint8), alignment, detection, turn_rad)
    (placed,) = as_in_photo(coefficients, [crop])
    seen, meant = (project(row[None, TRANSLATION], 112)[0, :2] - 55.5 for row in (coefficients[0], placed))
    cos, sin = np.cos(turn_rad), np.sin(turn_rad)
    np.testing.assert_allclose(meant, np.array([(cos, -sin), (sin, cos)]) @ seen, atol=1e-3)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [64, 224])
def test_points_go_from_crop_to_photo_and_back(detector: FaceDetector, name: str, size: int) -> None:
    face = crop_largest(load_photo(name), detector, size)
    assert face.crop.shape == (size, size, 3)
    pixels = np.stack(np.meshgrid(np.arange(size), np.arange(size)), -1).astype(float)
    photo = face.alignment.photo_from_crop(pixels)
    np.testing.assert_allclose(face.alignment.crop_from_photo(photo), pixels, atol=1e-9)
    template = face.alignment.photo_from_crop(template_from_landmarks3d(MEAN_FACE_LANDMARKS_DM, size))
    box = face.detection.box
    assert (template > box[:2]).all()
    assert (template < box[2:]).all()


@pytest.mark.parametrize("name", NAMES)
def test_the_crop_pasted_back_lies_on_the_photo(detector: FaceDetector, name: str) -> None:
    """The inverse transform against the pixels themselves, half a pixel amiss would show at every edge."""
    photo = load_photo(name)
    face = crop_largest(photo, detector, 448)  # larger than in the photo: little is lost
    left, top = np.ceil(face.alignment.photo_from_crop(np.array([60.0, 60.0]))).astype(int)
    right, bottom = np.floor(face.alignment.photo_from_crop(np.array([387.0, 387.0]))).astype(int)
    at = np.stack(np.meshgrid(np.arange(left, right), np.arange(top, bottom)), -1).astype(float)
    columns, rows = np.rint(face.alignment.crop_from_photo(at)).astype(int).transpose(2, 0, 1)
    original = photo[top:bottom, left:right].astype(float)
    here = np.abs(face.crop[rows, columns] - original).mean()
    amiss = [np.abs(face.crop[rows + y, columns + x] - original).mean() for x, y in ((4, 0), (-4, 0), (0, 4), (0, -4))]
    assert here < 3
    assert here < 0.6 * min(amiss)


@pytest.mark.parametrize("every", [False, True])
def test_no_face_at_all_is_a_clear_error(detector: FaceDetector, every: bool) -> None:
    wall = np.full((300, 400, 3), 90, np.uint8)
    with pytest.raises(ArtifactError, match=r"no face found in a photo of 400x300 pixels.*at least 40"):
        crop_faces(wall, detector, every=every)


def test_another_template_frames_the_face_its_own_way(detector: FaceDetector) -> None:
    photo = load_photo("astronaut")
    (usual,) = crop_faces(photo, detector)
    (lower,) = crop_faces(photo, detector, TEMPLATE_224 + np.array([0, 20]))
    assert lower.alignment.ty == pytest.approx(usual.alignment.ty + 20)
    assert lower.alignment.scale == pytest.approx(usual.alignment.scale)


@pytest.mark.parametrize("factor", [0.2, 0.3])
def test_a_tiny_face_is_called_tiny(detector: FaceDetector, factor: float) -> None:
    tiny = scaled(load_photo("astronaut"), factor)
    assert detector.detect(tiny) == []
    with pytest.raises(ArtifactError, match=r"largest face in a photo of \d+x\d+ pixels is about [23]\d pixels tall"):
        crop_largest(tiny, detector)
    assert crop_largest(tiny, FaceDetector(min_face_px=20)).crop.shape == (224, 224, 3)
