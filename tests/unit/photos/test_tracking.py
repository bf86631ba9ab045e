"""Faces are followed like the detector would find them, keep their numbers, and the detector seldom looks."""

import numpy as np
import pytest
from PIL import Image

from leanface.errors import NoFaceError
from leanface.photos.detector import FaceDetection, FaceDetector
from leanface.photos.load import load_photo
from leanface.photos.tracking import LOOK_SECONDS, PATIENCE_SECONDS, FaceTracker

RATE_HZ = 25
HEIGHT, WIDTH, HEAD = 360, 640, 200


class Watched(FaceDetector):
    """A detector that counts how often it looks at a whole picture."""

    looks = 0

    def require(self, image: np.ndarray, *, every: bool = True) -> list[FaceDetection]:
        self.looks += 1
        return super().require(image, every=every)


@pytest.fixture(scope="module")
def detector() -> Watched:
    return Watched()


@pytest.fixture(scope="module")
def heads() -> list[np.ndarray]:
    """Two people's heads."""
    boxes = {"astronaut": (130, 0, 330, 200), "grace_hopper": (110, 40, 400, 330)}
    return [np.asarray(Image.fromarray(load_photo(name)).crop(box).resize((HEAD, HEAD))) for name, box in boxes.items()]


def frame(*placed: tuple[np.ndarray, float], background: int = 90) -> np.ndarray:
    """A picture of heads at horizontal places; later ones hide earlier ones."""
    canvas = Image.new("RGB", (WIDTH, HEIGHT), (background,) * 3)
    for head, left in placed:
        canvas.paste(Image.fromarray(head), (round(left), 80))
    return np.asarray(canvas)


def test_a_moving_face_is_followed_as_the_detector_would_find_it(detector: Watched, heads: list[np.ndarray]) -> None:
    tracker, detector.looks = FaceTracker(detector), 0
    for index in range(30):
        pixels = frame((heads[0], 20 + 8 * index))
        (face,) = tracker(pixels, index / RATE_HZ)
        assert face.number == 1
        if index % 6 == 5:
            found = detector.largest(pixels)
            detector.looks -= 1
            side = np.ptp(found.landmarks, axis=0).max()
            assert np.linalg.norm(face.landmarks - found.landmarks, axis=1).max() < 0.04 * side
    assert detector.looks == 1 + int(30 / RATE_HZ / LOOK_SECONDS)


def test_a_newcomer_is_found_and_both_keep_their_numbers(detector: Watched, heads: list[np.ndarray]) -> None:
    tracker = FaceTracker(detector)
    seen: list[dict[int | None, float]] = []
    for index in range(0, 2 * RATE_HZ, 2):
        newcomer = [(heads[1], 400.0)] if index >= 10 else []
        faces = tracker(frame((heads[0], 60.0), *newcomer), index / RATE_HZ)
        seen.append({face.number: face.landmarks[2, 0] for face in faces})
    assert set(seen[0]) == {1}
    assert set(seen[-1]) == {1, 2}
    assert all(numbers[1] < 320 for numbers in seen)
    assert all(numbers[2] > 320 for numbers in seen if 2 in numbers)


def test_who_is_away_for_a_moment_keeps_the_number_and_later_gets_a_new_one(
    detector: Watched, heads: list[np.ndarray]
) -> None:
    tracker = FaceTracker(detector)
    both, alone = frame((heads[0], 60), (heads[1], 400)), frame((heads[0], 60))
    assert [face.number for face in tracker(alone, 0.0)] == [1]
    assert {face.number for face in tracker(both, LOOK_SECONDS)} == {1, 2}
    assert [face.number for face in tracker(alone, LOOK_SECONDS + 0.1)] == [1]
    assert {face.number for face in tracker(both, LOOK_SECONDS + 0.2)} == {1, 2}
    for seconds in np.arange(0.3, 0.4 + PATIENCE_SECONDS, 0.1):
        assert [face.number for face in tracker(alone, LOOK_SECONDS + float(seconds))] == [1]
    assert {face.number for face in tracker(both, 1.0 + 2 * LOOK_SECONDS)} == {1, 3}


def test_nobody_is_an_error_until_somebody_comes(detector: Watched, heads: list[np.ndarray]) -> None:
    tracker = FaceTracker(detector)
    for seconds in (0.0, 0.04, 0.08):
        with pytest.raises(NoFaceError, match="no face found"):
            tracker(frame(), seconds)
    assert [face.number for face in tracker(frame((heads[0], 200)), 0.12)] == [1]


def test_after_a_cut_there_are_new_people(detector: Watched, heads: list[np.ndarray]) -> None:
    tracker = FaceTracker(detector)
    (before,) = tracker(frame((heads[0], 220)), 0.0)
    (after,) = tracker(frame((heads[1], 220), background=220), 0.04)
    assert (before.number, after.number) == (1, 2)


def test_a_face_that_hides_another_is_not_counted_twice(detector: Watched, heads: list[np.ndarray]) -> None:
    tracker = FaceTracker(detector)
    for index in range(26):
        faces = tracker(frame((heads[1], 400 - 10 * index), (heads[0], 150 + 10 * index)), index / RATE_HZ)
        middles = [face.landmarks[2] for face in faces]
        assert 1 <= len(faces) <= 2
        assert len({face.number for face in faces}) == len(faces)
        if len(middles) == 2:
            assert np.linalg.norm(middles[0] - middles[1]) > HEAD / 10
    assert len(faces) == 2


def test_time_that_runs_backwards_makes_the_detector_look(detector: Watched, heads: list[np.ndarray]) -> None:
    tracker, detector.looks = FaceTracker(detector), 0
    for seconds in (5.0, 1.0):
        assert len(tracker(frame((heads[0], 200)), seconds)) == 1
    assert detector.looks == 2
