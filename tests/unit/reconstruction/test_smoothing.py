"""Noise goes, motion stays, and faces keep their identity from frame to frame."""

import numpy as np
import pytest

from leanface.face.coefficients import ANGLES, COUNT, IDENTITY
from leanface.photos.alignment import Alignment
from leanface.photos.crops import FaceCrop
from leanface.photos.detector import FaceDetection
from leanface.reconstruction.smoothing import OneEuro, Smoother

RATE_HZ = 30


def crop(left: float, scale: float = 0.5, number: int = 1) -> FaceCrop:
    box = np.array([left, 50.0, left + 100, 150.0])
    alignment = Alignment(scale, -scale * left, -scale * 50, 64)
    detection = FaceDetection(box, np.zeros((5, 2)), 1.0, number=number)
    return FaceCrop(np.zeros((64, 64, 3), np.uint8), alignment, detection)


def test_a_resting_face_is_steadied_and_its_identity_averaged() -> None:
    generator, smoother = np.random.default_rng(0), Smoother()
    readings = generator.normal(0, [0.05] * COUNT, (90, COUNT)).astype(np.float32)
    smooth = np.stack([smoother([crop(0)], row[None], k / RATE_HZ)[1][0] for k, row in enumerate(readings)])
    late = smooth[60:]
    assert late[:, IDENTITY].std(0).mean() < 0.1 * readings[60:, IDENTITY].std(0).mean()
    assert late[:, ANGLES].std(0).mean() < 0.7 * readings[60:, ANGLES].std(0).mean()


def test_a_turning_head_is_followed() -> None:
    smoother, row = Smoother(), np.zeros((1, COUNT), np.float32)
    for k in range(60):
        row[0, ANGLES.start + 1] = min(k, 30) / 30
        _, smooth = smoother([crop(0)], row.copy(), k / RATE_HZ)
        if k == 30:
            assert smooth[0, ANGLES.start + 1] > 0.9
    assert smooth[0, ANGLES.start + 1] == pytest.approx(1, abs=0.02)


def test_two_faces_that_swap_places_in_the_list_are_not_mixed() -> None:
    smoother = Smoother()
    one, two = np.full(COUNT, 1, np.float32), np.full(COUNT, -1, np.float32)
    for k in range(20):
        swapped = k % 2 == 1
        crops, rows = [crop(0), crop(500, number=2)], [one, two]
        _, smooth = smoother(crops[::-1] if swapped else crops, np.stack(rows[::-1] if swapped else rows), k / RATE_HZ)
        np.testing.assert_allclose(smooth[1 if swapped else 0], one)


def test_a_resting_framing_stays_where_it_is() -> None:
    smoother = Smoother()
    for k in range(5):
        ((framed,), _) = smoother([crop(40, 0.7)], np.zeros((1, COUNT), np.float32), k / RATE_HZ)
    expected = crop(40, 0.7).alignment
    assert (framed.alignment.scale, framed.alignment.tx, framed.alignment.ty) == pytest.approx(
        (expected.scale, expected.tx, expected.ty)
    )


def test_the_filter_converges_on_a_constant() -> None:
    smooth = OneEuro()
    smooth(np.zeros(1), 0)
    for _ in range(100):
        value = smooth(np.ones(1), 1 / RATE_HZ)
    assert value == pytest.approx(1, abs=1e-3)
