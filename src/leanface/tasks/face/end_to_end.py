"""The way from a photo to posed vertices, to be measured from end to end."""

import numpy as np
from jaxtyping import UInt8

from leanface import paths
from leanface.config import Benchmark, Data
from leanface.errors import ArtifactError
from leanface.face.decoder import DecodedMesh, Decoder
from leanface.face.head_model import HeadModel, load_head_model
from leanface.photos.alignment import align, to_input
from leanface.photos.detector import FaceDetector
from leanface.photos.load import load_photo
from leanface.runtime import Runtime
from leanface.task import Journey


def journey(settings: Benchmark, data: Data) -> Journey:
    """Go from the first of data.photos, with known landmarks, to posed vertices; before that, find the landmarks."""
    photo = load_photo(data.photos[0])
    return photo_journey(data.image_size, load_head_model(paths.MORPHABLE_MODEL), photo)


def photo_journey(image_size: int, head: HeadModel, photo: UInt8[np.ndarray, "H W 3"]) -> Journey:
    """Do the same with any photo.

    Raises:
        ArtifactError: there is no face in the photo.
    """
    detector = FaceDetector()
    faces = detector.detect(photo)
    if not faces:
        raise ArtifactError("no face was found in the first of data.photos, which is benchmarked; list another first.")
    landmarks, decoder = faces[0].landmarks, Decoder(head)

    def reconstruct(network: Runtime) -> DecodedMesh:
        crop, _ = align(photo, landmarks, size=image_size)
        return decoder.decode(network.run(to_input(crop)[None])[0])

    return Journey(reconstruct, lambda: detector.detect(photo))
