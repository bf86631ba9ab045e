"""Drift of the input: blurred, turned and foreign faces are found; faces of the training hardly ever."""

from pathlib import Path

import numpy as np
import pytest
import scipy.ndimage as ndi
import torch

from leanface.errors import ArtifactError
from leanface.face.coefficients import ANGLES, IDENTITY
from leanface.monitoring.drift import FALSE_ALARMS, FEATURES, WINDOW, Drift, Reference, features, sharpness
from leanface.monitoring.population import Population
from leanface.synthesis.synthesis import sample_coefficients


@pytest.fixture(scope="module")
def population(model) -> Population:
    return Population.of_training(model)


@pytest.fixture(scope="module")
def coefficients(model) -> np.ndarray:
    return sample_coefficients(model, 600, torch.Generator().manual_seed(5)).numpy()


@pytest.fixture(scope="module")
def crops() -> np.ndarray:
    """Noise with structure, (600,64,64,3): as sharp as one another."""
    noise = np.random.default_rng(0).normal(128, 60, (600, 64, 64, 3))
    return np.clip(ndi.gaussian_filter(noise, (0, 1, 1, 0)), 0, 255).astype(np.uint8)


def seen(reference: Reference, rows: np.ndarray) -> dict[str, bool]:
    drift = Drift(reference)
    drift.record(rows)
    shifts = drift.shifts()
    assert shifts is not None
    return {name: shift.drifted for name, shift in shifts.items()}


def test_the_distance_is_one_over_the_training_and_large_far_from_it(population, coefficients) -> None:
    distance = population.distance(coefficients)
    assert np.sqrt(np.square(distance).mean()) == pytest.approx(1.0, abs=0.03)
    foreign = coefficients.copy()
    foreign[:, IDENTITY] *= 3
    assert (population.distance(foreign) > distance).all()


def test_the_distance_is_mahalanobis(population) -> None:
    """Against the plain formula, with the inverse of the covariance."""
    random = np.random.default_rng(0)
    sample = random.normal(size=(4000, 257)) @ (np.eye(257) + 0.3 * np.diag(np.ones(256), 1))
    measured = Population.of(sample).distance(sample[:5])
    offset = sample[:5] - sample.mean(0)
    plain = np.sqrt((offset @ np.linalg.inv(np.cov(sample.T)) * offset).sum(1) / 257)
    assert measured == pytest.approx(plain, rel=5e-3)


def test_sharpness_falls_with_every_blur(crops) -> None:
    blurred = [ndi.gaussian_filter(crops[:4], (0, sigma, sigma, 0)) for sigma in (0, 1, 2, 4)]
    values = np.array([sharpness(images) for images in blurred])
    assert (np.diff(values, axis=0) < -0.3).all()
    assert np.isfinite(sharpness(np.zeros((1, 64, 64, 3), np.uint8))).all()


def test_training_faces_do_not_drift_and_changed_ones_do(population, coefficients, crops) -> None:
    reference = Reference.of(features(crops[:400], coefficients[:400], population))
    same, crops = coefficients[400:], crops[400:]
    assert not any(seen(reference, features(crops, same, population)).values())

    blurred = ndi.gaussian_filter(crops, (0, 2, 2, 0))
    drifted = seen(reference, features(blurred, same, population))
    assert drifted == {name: name == "sharpness" for name in FEATURES}

    turned = same.copy()
    turned[:, ANGLES.start] += 0.3
    drifted = seen(reference, features(crops, turned, population))
    assert drifted["pitch_deg"]
    assert not drifted["yaw_deg"]
    assert not drifted["sharpness"]

    foreign = same.copy()
    foreign[:, IDENTITY] *= 2
    assert seen(reference, features(crops, foreign, population))["distance"]


def test_false_alarms_are_as_rare_as_promised() -> None:
    """1,500 windows of faces like the reference's: at most 1 in 1,000 alarms, give or take chance."""
    random = np.random.default_rng(0)
    alarms = 0
    for _ in range(1500):
        reference = Reference.of(random.normal(size=(500, len(FEATURES))))
        alarms += any(seen(reference, random.normal(size=(WINDOW, len(FEATURES)))).values())
    assert alarms / 1500 <= 2 * FALSE_ALARMS


def test_nothing_is_said_until_the_window_is_full() -> None:
    drift = Drift(Reference.of(np.zeros((10, len(FEATURES)))), window=3)
    drift.record(np.zeros((2, len(FEATURES))))
    assert drift.shifts() is None
    drift.record(np.zeros((1, len(FEATURES))))
    assert drift.shifts() is not None


def test_a_reference_survives_its_file(tmp_path: Path) -> None:
    reference = Reference.of(np.random.default_rng(0).normal(size=(20, len(FEATURES))))
    path = tmp_path / "cache" / "reference.json"
    reference.save(path)
    assert Reference.load(path).values == pytest.approx(reference.values, abs=1e-5)
    assert [file.name for file in path.parent.iterdir()] == ["reference.json"]


@pytest.mark.parametrize("content", [None, "", "{}", "[1]", '{"sharpness": 1}'])
def test_a_damaged_reference_is_refused(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "reference.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ArtifactError, match="holds no reference for drift"):
        Reference.load(path)
