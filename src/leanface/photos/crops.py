"""Photo in, crops out: the detector and the one preprocessing together."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from leanface.face.camera import REFERENCE_SIZE_PX
from leanface.photos.alignment import TEMPLATE_224, Alignment, align
from leanface.photos.detector import FaceDetection, FaceDetector


class FaceCrop(NamedTuple):
    """One face of a photo; `alignment` leads from the photo to the crop and back."""

    crop: UInt8[np.ndarray, "size size 3"]
    alignment: Alignment
    detection: FaceDetection


def crop_faces(
    photo: UInt8[np.ndarray, "H W 3"],
    detector: FaceDetector,
    template: Float[np.ndarray, "5 2"] = TEMPLATE_224,
    size: int = REFERENCE_SIZE_PX,
    *,
    every: bool = False,
) -> list[FaceCrop]:
    """Cut out the largest face of an RGB photo, or with `every` all of them, the largest first.

    Raises:
        ArtifactError: there is no face, only a tiny one, or one is not upright.
        ValueError: the photo is not uint8 (H, W, 3).
    """
    found = detector.detect(photo) if every else []
    crops: list[FaceCrop] = []
    for detection in found or [detector.largest(photo)]:
        crop, alignment = align(photo, detection.landmarks, template, size)
        crops.append(FaceCrop(crop, alignment, detection))
    return crops
