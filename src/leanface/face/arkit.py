"""ARKit's blendshapes out of the model's expression coefficients.

The packaged model's expressions were built from units of this kind, and tools/face_model/arkit.py expresses each in
coefficients and measures what is lost. A face's weights are those in [0, 1] that explain its coefficients best, in
least squares over the head's vertices.

Source: Apple, ARFaceAnchor.BlendShapeLocation (the names); Beck and Teboulle, "A Fast Iterative Shrinkage-Thresholding
Algorithm", SIAM Journal on Imaging Sciences 2009 (the solver).
"""

import json
from pathlib import Path
from typing import Self

import numpy as np
from jaxtyping import Float, Float32

from leanface.errors import ArtifactError
from leanface.face.coefficients import EXPRESSION
from leanface.face.head_model import HeadModel
from leanface.paths import PACKAGED_ARKIT_UNITS

RESIDUAL_MAX = 0.25
"""Share of a unit's root mean square move that the model's expressions may miss. The eyes' turns miss more than half,
and are left out, as is the tongue, which the model does not have."""

RIDGE = 1e-3
"""Of the mean unit's energy: keeps units that move the same skin from working against each other."""

STEPS = 300

NAMES = (
    "eyeBlinkLeft", "eyeLookDownLeft", "eyeLookInLeft", "eyeLookOutLeft", "eyeLookUpLeft", "eyeSquintLeft",
    "eyeWideLeft", "eyeBlinkRight", "eyeLookDownRight", "eyeLookInRight", "eyeLookOutRight", "eyeLookUpRight",
    "eyeSquintRight", "eyeWideRight", "jawForward", "jawRight", "jawLeft", "jawOpen", "mouthClose",
    "mouthFunnel", "mouthPucker", "mouthRight", "mouthLeft", "mouthSmileLeft", "mouthSmileRight",
    "mouthFrownLeft", "mouthFrownRight", "mouthDimpleLeft", "mouthDimpleRight", "mouthStretchLeft",
    "mouthStretchRight", "mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper",
    "mouthPressLeft", "mouthPressRight", "mouthLowerDownLeft", "mouthLowerDownRight", "mouthUpperUpLeft",
    "mouthUpperUpRight", "browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft",
    "browOuterUpRight", "cheekPuff", "cheekSquintLeft", "cheekSquintRight", "noseSneerLeft", "noseSneerRight",
    "tongueOut",
)  # fmt: skip
"""All 52, in the order of Live Link Face. Left and right are the person's own."""


class Blendshapes:
    """The units of one morphable model. Any threads may share it.

    Attributes:
        names: of the units that the model can express, in the order of NAMES.
    """

    def __init__(
        self,
        names: tuple[str, ...],
        units: Float[np.ndarray, "units 64"],
        rest: Float[np.ndarray, " units"],
        head: HeadModel,
    ) -> None:
        """Use `load`.

        Args:
            units: coefficients of each at full strength, from the neutral face.
            rest: the weights at which the model's coefficients are all 0.
        """
        self.names = names
        basis = head.components[EXPRESSION].astype(np.float64)
        energy = basis @ basis.T
        self._right = energy @ units.T
        self._matrix = units @ self._right
        self._matrix += RIDGE * np.trace(self._matrix) / len(names) * np.eye(len(names))
        self._rest = rest

    @classmethod
    def load(cls, head: HeadModel, sha256: str, path: Path = PACKAGED_ARKIT_UNITS) -> Self | None:
        """Load what belongs to a morphable model; None for any but the packaged one.

        Args:
            sha256: of the model's file.

        Raises:
            ArtifactError: the file is missing or damaged.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["morphable_model_sha256"] != sha256:
                return None
            known = {name: unit for name, unit in content["units"].items() if unit["residual"] <= RESIDUAL_MAX}
            names = tuple(name for name in NAMES if name in known)
            units = np.array([known[name]["coefficients"] for name in names], np.float64)
            return cls(names, units, np.array([content["rest"].get(name, 0.0) for name in names]), head)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise ArtifactError(f"{path} does not hold ARKit's units ({error}); reinstall LeanFace.") from None

    def fit(self, expression: Float[np.ndarray, "frames 64"]) -> Float32[np.ndarray, "frames units"]:
        """Return the weights in [0, 1] of each frame."""
        # Weights are counted from those at rest, where the coefficients are 0 and nothing pulls.
        linear = np.asarray(expression, np.float64) @ self._right
        low, high = -self._rest, 1 - self._rest
        step = 1 / np.linalg.eigvalsh(self._matrix)[-1]
        moved = ahead = np.zeros_like(linear)
        momentum = 1.0
        for _ in range(STEPS):
            following = (ahead - step * (ahead @ self._matrix - linear)).clip(low, high)
            after = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
            ahead = following + (momentum - 1) / after * (following - moved)
            moved, momentum = following, after
        return (moved + self._rest).astype(np.float32)
