"""Photo in, crops out: the detector and the one preprocessing together."""

from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from leanface.data.alignment import Alignment, align
from leanface.data.detector import FaceDetection, FaceDetector
from leanface.face.camera import REFERENCE_SIZE_PX


class FaceCrop(NamedTuple):
    """One face of a photo; `alignment` leads from the photo to the crop and back."""

    crop: UInt8[np.ndarray, "size size 3"]
    alignment: Alignment
    detection: FaceDetection


def crop_largest(photo: UInt8[np.ndarray, "H W 3"], detector: FaceDetector, size: int = REFERENCE_SIZE_PX) -> FaceCrop:
    """The largest face of an RGB photo.

    Raises:
        ArtifactError: there is no face, only a tiny one, or it is not upright.
        ValueError: the photo is not uint8 (H, W, 3).
    """
    return _crop(photo, detector.largest(photo), size)


def crop_all(
    photo: UInt8[np.ndarray, "H W 3"], detector: FaceDetector, size: int = REFERENCE_SIZE_PX
) -> list[FaceCrop]:
    """Every face of an RGB photo, the largest first; [] where there is none.

    Raises:
        ArtifactError: one of the faces is not upright.
        ValueError: the photo is not uint8 (H, W, 3).
    """
    return [_crop(photo, detection, size) for detection in detector.detect(photo)]


def _crop(photo: UInt8[np.ndarray, "H W 3"], detection: FaceDetection, size: int) -> FaceCrop:
    return FaceCrop(*align(photo, detection.landmarks, size=size), detection)
