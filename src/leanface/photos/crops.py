"""Photo in, crops out: the detector and the one preprocessing together."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from leanface.errors import ArtifactError
from leanface.face.geometry import REFERENCE_SIZE_PX
from leanface.photos.alignment import TEMPLATE_224, Alignment, cut_out
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

    Faces that are not upright are left out, unless there are no others.

    Raises:
        NoFaceError: there is no face, or only smaller ones than the detector looks for.
        ArtifactError: none of them is upright.
        ValueError: the photo is not uint8 (H, W, 3).
    """
    found = detector.require(photo)
    crops: list[FaceCrop] = []
    refusals: list[ArtifactError] = []
    for detection in found if every else found[:1]:
        try:
            crop, alignment = cut_out(photo, detection.landmarks, template, size)
        except ArtifactError as error:
            refusals.append(error)
        else:
            crops.append(FaceCrop(crop, alignment, detection))
    if not crops:
        raise refusals[0]
    return crops
