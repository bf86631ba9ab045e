from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from leanface.errors import ArtifactError, ConfigError
from leanface.photos.detector import FaceDetector
from leanface.photos.face_network import FACE_NETWORKS, FaceNetwork
from leanface.photos.load import load_photo
from tools.face_finding.measure import group

MIRRORED = [1, 0, 2, 4, 3]

# Read off enlarged pictures by eye: irises, nose tip, mouth corners, in pixels.
LANDMARKS = {
    "astronaut": [(202.5, 100.5), (246.5, 102.5), (224.1, 128.1), (202.5, 138.5), (243.5, 140.9)],
    "grace_hopper": [(222.4, 190.6), (305.2, 186.3), (266.0, 237.0), (231.3, 277.7), (304.2, 275.9)],
}


@pytest.fixture(scope="module")
def detector() -> FaceDetector:
    return FaceDetector()


@pytest.fixture(scope="module", params=LANDMARKS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def eye_distance(landmarks: np.ndarray) -> float:
    return float(np.linalg.norm(landmarks[1] - landmarks[0]))


def test_finds_the_one_face_of_a_real_photo(detector: FaceDetector, name: str) -> None:
    (face,) = detector.detect(load_photo(name))
    error = np.linalg.norm(face.landmarks - LANDMARKS[name], axis=1)
    assert (error < 0.06 * eye_distance(face.landmarks)).all(), error
    assert face.score > 0.99
    assert (face.landmarks > face.box[:2]).all()
    assert (face.landmarks < face.box[2:]).all()


def test_landmarks_follow_the_mirror_image(detector: FaceDetector, name: str) -> None:
    photo = load_photo(name)
    landmarks = detector.largest(photo).landmarks
    mirrored = detector.largest(photo[:, ::-1]).landmarks[MIRRORED]
    mirrored[:, 0] = photo.shape[1] - 1 - mirrored[:, 0]
    assert np.abs(landmarks - mirrored).max() < 0.05 * eye_distance(landmarks)


@pytest.mark.parametrize("factor", [0.6, 2.5])
def test_landmarks_follow_the_scale(detector: FaceDetector, name: str, factor: float) -> None:
    photo = load_photo(name)
    height, width = (round(side * factor) for side in photo.shape[:2])
    resized = np.array(Image.fromarray(photo).resize((width, height), Image.Resampling.LANCZOS))
    landmarks = detector.largest(photo).landmarks
    back = (detector.largest(resized).landmarks + 0.5) / factor - 0.5
    assert np.abs(landmarks - back).max() < 0.05 * eye_distance(landmarks)


def test_the_same_photo_gives_the_same_faces_and_stays_as_it_was(detector: FaceDetector) -> None:
    photo = load_photo("astronaut")
    photo.setflags(write=False)
    first, second = detector.largest(photo), FaceDetector().largest(photo)
    np.testing.assert_array_equal(first.landmarks, second.landmarks)
    assert first.score == second.score


def test_the_largest_face_comes_first(detector: FaceDetector) -> None:
    small, large = load_photo("astronaut"), load_photo("grace_hopper")[:512]
    for pair in ([small, large], [large, small]):
        faces = detector.detect(np.hstack(pair))
        assert len(faces) == 2
        assert eye_distance(faces[0].landmarks) > 1.5 * eye_distance(faces[1].landmarks)


def test_a_face_cut_by_the_photos_edge_keeps_its_landmarks(detector: FaceDetector) -> None:
    photo = load_photo("grace_hopper")
    whole, cut = detector.largest(photo), detector.largest(photo[150:])
    expected = whole.landmarks - (0, 150)
    assert np.abs(cut.landmarks - expected).max() < 0.08 * eye_distance(expected)


def test_small_faces_of_a_large_group_are_found_beside_a_large_one(detector: FaceDetector) -> None:
    faces = detector.detect(group())
    sides = [float((face.box[2:] - face.box[:2]).max()) for face in faces]
    assert len(faces) == 7
    assert sides[0] > 700
    assert all(90 < side < 180 for side in sides[1:])
    assert all(face.confirmed for face in faces)


def test_a_portraits_bystanders_are_left_out_unless_their_size_is_asked_for(detector: FaceDetector) -> None:
    """A face of 45 pixels beside one of 235 in 600; where the large one fills less of the photo, both are found."""
    photo = Image.fromarray(load_photo("grace_hopper"))
    bystander = Image.fromarray(load_photo("astronaut")).crop((120, 0, 330, 260)).resize((80, 99))
    photo.paste(bystander, (0, 0))
    portrait = np.asarray(photo)
    assert len(detector.detect(portrait)) == 1
    assert len(FaceDetector(min_face_px=40).detect(portrait)) == 2
    wide = np.pad(portrait, ((0, 200), (0, 400), (0, 0)), constant_values=128)
    assert len(detector.detect(wide)) == 2
    np.testing.assert_array_equal(detector.largest(portrait).landmarks, detector.detect(portrait)[0].landmarks)


def test_smaller_faces_than_asked_for_are_left_out() -> None:
    assert FaceDetector(min_face_px=300).detect(load_photo("astronaut")) == []


@pytest.mark.parametrize("shape", [(300, 200, 3), (1, 1, 3), (5, 400, 3)])
@pytest.mark.parametrize("level", [0, 128, 255])
def test_a_blank_image_has_no_face(detector: FaceDetector, shape: tuple[int, int, int], level: int) -> None:
    assert detector.detect(np.full(shape, level, dtype=np.uint8)) == []


def test_largest_says_what_to_do_without_a_face(detector: FaceDetector) -> None:
    with pytest.raises(ArtifactError, match=r"no face found in a photo of 200x300 pixels.*lower --min-face"):
        detector.largest(np.zeros((300, 200, 3), dtype=np.uint8))


def test_a_float_image_is_refused(detector: FaceDetector) -> None:
    with pytest.raises(ValueError, match="uint8"):
        detector.detect(np.zeros((300, 200, 3), dtype=np.float32))


@pytest.mark.parametrize("damage", ["missing", "empty", "truncated", "foreign"])
def test_damaged_networks_are_refused(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "mtcnn_refine.onnx"
    whole = (FACE_NETWORKS / path.name).read_bytes()
    content = {"empty": b"", "truncated": whole[: len(whole) // 2], "foreign": b"version https://git-lfs"}
    if damage in content:
        path.write_bytes(content[damage])
    with pytest.raises(ArtifactError, match=r"missing or damaged.*Restore it"):
        FaceNetwork(path)


def test_a_face_size_out_of_range_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least 12, got 3"):
        FaceDetector(min_face_px=3)
