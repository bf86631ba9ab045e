"""Detect whether the input still looks like the training's, by Kolmogorov-Smirnov distances of features of the faces.

The features are a crop's sharpness, the predicted pose, and the distance of all coefficients from the training's. The
reference is what the same network predicts for training faces, not their labels: a network predicts values nearer to
the mean, and that is no drift.
"""

import json
import math
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from jaxtyping import Float, UInt8

from leanface.errors import ArtifactError
from leanface.face.coefficients import ANGLES
from leanface.files import atomic_write
from leanface.monitoring.population import Population

FEATURES = ("sharpness", "pitch_deg", "yaw_deg", "roll_deg", "distance")

WINDOW = 200
FALSE_ALARMS = 1e-3
"""Largest share of windows of training faces in which any feature raises an alarm."""

LUMA = np.array((0.299, 0.587, 0.114), np.float32)


def features(
    crops: UInt8[np.ndarray, "count size size 3"],
    coefficients: Float[np.ndarray, "count 257"],
    population: Population,
) -> Float[np.ndarray, "count 5"]:
    """Compute each face's `FEATURES`."""
    angles_deg = np.degrees(coefficients[:, ANGLES])
    return np.column_stack([sharpness(crops), angles_deg, population.distance(coefficients)])


def sharpness(crops: UInt8[np.ndarray, "count size size 3"]) -> Float[np.ndarray, " count"]:
    """Compute the logarithm (base 10) of the variance of the Laplacian of each crop's luma, in levels of 255.

    Source: Pech-Pacheco et al., "Diatom autofocusing in brightfield microscopy", ICPR 2000.
    """
    luma = crops.astype(np.float32) @ LUMA
    center = luma[:, 1:-1, 1:-1]
    around = luma[:, :-2, 1:-1] + luma[:, 2:, 1:-1] + luma[:, 1:-1, :-2] + luma[:, 1:-1, 2:]
    return np.log10((around - 4 * center).var(axis=(1, 2)) + 1e-3)


@dataclass(frozen=True)
class Reference:
    """The features of training faces as one network predicts them; each row is sorted."""

    values: Float[np.ndarray, "5 count"]

    @classmethod
    def of(cls, features: Float[np.ndarray, "count 5"]) -> Self:
        """Make the reference of these faces."""
        return cls(np.sort(features.T, axis=1))

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        atomic_write(path, json.dumps(dict(zip(FEATURES, self.values.round(5).tolist(), strict=True))))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Load what `save` wrote.

        Raises:
            ArtifactError: the file is missing or something else.
        """
        try:
            content = json.loads(path.read_text())
            return cls(np.array([content[name] for name in FEATURES]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ArtifactError(
                f"{path} holds no reference for drift ({error}); delete it, and it is measured again."
            ) from None


@dataclass(frozen=True)
class Shift:
    """The difference between one feature's window and the reference.

    Attributes:
        ks: largest difference of the two cumulative distributions, 0 to 1.
        limit: `ks` exceeds it by chance only.
        median: of the window.
        reference_median: of the reference.
    """

    ks: float
    limit: float
    median: float
    reference_median: float

    @property
    def drifted(self) -> bool:
        return self.ks > self.limit


class Drift:
    """Compares the last `window` faces with the reference."""

    def __init__(self, reference: Reference, window: int = WINDOW, false_alarms: float = FALSE_ALARMS) -> None:
        self._reference = reference
        self._faces: deque[np.ndarray] = deque(maxlen=window)
        count = reference.values.shape[1]
        # Smirnov's limit for two samples, with Bonferroni's correction for several features.
        self._limit = math.sqrt(-math.log(false_alarms / len(FEATURES) / 2) / 2 * (1 / window + 1 / count))

    def record(self, features: Float[np.ndarray, "count 5"]) -> None:
        """Record faces that were read."""
        self._faces.extend(features)

    def shifts(self) -> dict[str, Shift] | None:
        """Compute each feature's shift; None until the window is full."""
        if len(self._faces) < (self._faces.maxlen or 0):
            return None
        window = np.sort(np.array(self._faces).T, axis=1)
        shifts: dict[str, Shift] = {}
        for name, seen, known in zip(FEATURES, window, self._reference.values, strict=True):
            ks = _ks(seen, known)
            shifts[name] = Shift(ks, self._limit, float(np.median(seen)), float(np.median(known)))
        return shifts


def _ks(first: Float[np.ndarray, " n"], second: Float[np.ndarray, " m"]) -> float:
    """Compute the Kolmogorov-Smirnov distance of two sorted samples."""
    values = np.concatenate([first, second])
    return float(np.abs(_share_up_to(first, values) - _share_up_to(second, values)).max())


def _share_up_to(sample: Float[np.ndarray, " n"], values: Float[np.ndarray, " m"]) -> Float[np.ndarray, " m"]:
    return np.searchsorted(sample, values, side="right") / len(sample)
