"""Photo in, crops out: the detector and the one preprocessing together."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, UInt8

from leanface.errors import ArtifactError
from leanface.face.geometry import REFERENCE_SIZE_PX, rolled
from leanface.photos.alignment import TEMPLATE_224, Alignment, cut_out, cut_out_turned, roll_of
from leanface.photos.detector import FaceDetection, FaceDetector

ROLL_MAX_RAD = math.radians(10)
"""Networks learn from heads that are hardly tilted, and read a tilt themselves; what is tilted more is turned first."""


class FaceCrop(NamedTuple):
    """One face of a photo, cut out.

    Attributes:
        crop: as a network reads it.
        alignment: leads from the photo to the crop and back; where the photo was turned, to the crop as it would lie
            without that.
        turn_rad: how far the face is turned clockwise in the photo; the crop shows it upright. 0 for a face that is
            nearly upright, which is cut out as it is.
    """

    crop: UInt8[np.ndarray, "size size 3"]
    alignment: Alignment
    detection: FaceDetection
    turn_rad: float = 0.0


def crop_faces(
    photo: UInt8[np.ndarray, "H W 3"],
    detector: FaceDetector,
    template: Float[np.ndarray, "5 2"] = TEMPLATE_224,
    size: int = REFERENCE_SIZE_PX,
    *,
    every: bool = False,
) -> list[FaceCrop]:
    """Cut out the largest face of an RGB photo, or with `every` all of them, the largest first.

    Faces whose landmarks are not a face's are left out, unless there are no others.

    Raises:
        NoFaceError: there is no face, or only smaller ones than the detector looks for.
        ArtifactError: none can be aligned.
        ValueError: the photo is not uint8 (H, W, 3).
    """
    return crop_found(photo, detector.require(photo, every=every), template, size, every=every)


def crop_found(
    photo: UInt8[np.ndarray, "H W 3"],
    found: Sequence[FaceDetection],
    template: Float[np.ndarray, "5 2"],
    size: int,
    *,
    every: bool,
) -> list[FaceCrop]:
    """Crop as `crop_faces` does, from faces that were found before."""
    crops: list[FaceCrop] = []
    refusals: list[ArtifactError] = []
    for detection in found if every else found[:1]:
        try:
            crops.append(crop_face(photo, detection, template, size))
        except ArtifactError as error:
            refusals.append(error)
    if not crops:
        raise refusals[0]
    return crops


def crop_face(
    photo: UInt8[np.ndarray, "H W 3"],
    detection: FaceDetection,
    template: Float[np.ndarray, "5 2"] = TEMPLATE_224,
    size: int = REFERENCE_SIZE_PX,
) -> FaceCrop:
    """Cut out a face that was found in an RGB photo, upright.

    Raises:
        ArtifactError: the landmarks are not those of a face.
    """
    turn_rad = roll_of(detection.landmarks, template)
    if abs(turn_rad) <= ROLL_MAX_RAD:
        crop, alignment = cut_out(photo, detection.landmarks, template, size)
        return FaceCrop(crop, alignment, detection)
    crop, alignment = cut_out_turned(photo, detection.landmarks, template, size, turn_rad)
    return FaceCrop(crop, alignment, detection, turn_rad)


def as_in_photo(coefficients: Float32[np.ndarray, "N 257"], crops: Sequence[FaceCrop]) -> Float32[np.ndarray, "N 257"]:
    """Turn back what was read in crops whose heads had been turned upright, as it is in the photo."""
    if not any(crop.turn_rad for crop in crops):
        return coefficients
    # The photo's y axis points down: clockwise there is counterclockwise for the camera.
    return np.stack([rolled(row, -crop.turn_rad) for row, crop in zip(coefficients, crops, strict=True)])
