"""Faces and their five landmarks in a photo; the networks are packaged, so nothing is downloaded."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8

from leanface.errors import ConfigError, NoFaceError
from leanface.photos.mtcnn import PROPOSAL_PX, Mtcnn
from leanface.photos.pixels import require_rgb

LOWER = "Smaller ones are looked for with a lower min_face_px (`leanface reconstruct --min-face`)."

EXPLAINED_PX = 1600
"""Longer side of a photo up to which faces that are too small are looked for, to say so."""


@dataclass(frozen=True, eq=False)
class FaceDetection:
    """One face, in pixels of the photo: x right, y down, pixel centers at integer coordinates.

    Attributes:
        box: left, top, right, bottom; may reach beyond the photo.
        landmarks: image-left eye, image-right eye, nose tip, image-left and image-right mouth corner.
        score: the last network's confidence, in [0, 1].
    """

    box: Float[np.ndarray, "4"]
    landmarks: Float[np.ndarray, "5 2"]
    score: float


class FaceDetector:
    """Finds faces of any size above `min_face_px`. Deterministic; any threads may share it."""

    def __init__(self, min_face_px: int = 40) -> None:
        """Load the packaged networks.

        Args:
            min_face_px: longer side of the smallest face to look for; the time grows with its inverse square.

        Raises:
            ConfigError: `min_face_px` is out of range.
            ArtifactError: a network's file is missing or damaged.
        """
        if min_face_px < PROPOSAL_PX:
            raise ConfigError(f"min_face_px must be at least {PROPOSAL_PX}, got {min_face_px}")
        self._min_face_px = min_face_px
        self._mtcnn = Mtcnn()

    def detect(self, image: UInt8[np.ndarray, "H W 3"]) -> list[FaceDetection]:
        """Find every face in an RGB photo, the largest first; [] where there is none.

        Raises:
            ValueError: the image is not uint8 (H, W, 3).
        """
        require_rgb(image)
        return self._detect(image, self._min_face_px)

    def require(self, image: UInt8[np.ndarray, "H W 3"]) -> list[FaceDetection]:
        """Find every face in an RGB photo that must show one, the largest first.

        Raises:
            NoFaceError: there is none, or only smaller ones than `min_face_px`.
            ValueError: the image is not uint8 (H, W, 3).
        """
        faces = self.detect(image)
        if faces:
            return faces
        photo = "a photo of {1}x{0} pixels".format(*image.shape)
        smaller: list[FaceDetection] = []
        if max(image.shape) <= EXPLAINED_PX:
            # What is smaller still takes long to look for, and is seldom a face.
            smaller = self._detect(image, max(self._min_face_px / 2, PROPOSAL_PX))
        if smaller:
            raise NoFaceError(
                f"the largest face in {photo} is about {_side(smaller[0].box):.0f} pixels tall, too small to be read; "
                f"expected at least {self._min_face_px}. Use a larger picture of it.",
                LOWER,
            )
        raise NoFaceError(
            f"no face found in {photo}. Use an upright photo in which both eyes and the mouth show and the face is at "
            f"least {self._min_face_px} pixels tall.",
            LOWER,
        )

    def largest(self, image: UInt8[np.ndarray, "H W 3"]) -> FaceDetection:
        """Find the largest face in an RGB photo; errors as for `require`."""
        return self.require(image)[0]

    def _detect(self, image: UInt8[np.ndarray, "H W 3"], min_face_px: float) -> list[FaceDetection]:
        faces = [
            # Pixel centers lie at integers here, at halves in edge coordinates.
            FaceDetection(box - 0.5, points - 0.5, float(score))
            for box, points, score in zip(*self._mtcnn.find(image, min_face_px), strict=True)
            if _side(box) >= min_face_px
        ]
        return sorted(faces, key=lambda face: (_area(face.box), face.score), reverse=True)


def _side(box: Float[np.ndarray, "4"]) -> float:
    return float((box[2:] - box[:2]).max())


def _area(box: Float[np.ndarray, "4"]) -> float:
    return float(np.prod((box[2:] - box[:2]).clip(min=0)))
