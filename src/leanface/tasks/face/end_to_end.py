"""Measure how long it takes from a photo to posed vertices."""

import numpy as np
from jaxtyping import UInt8

from leanface.config import Benchmark
from leanface.errors import ArtifactError
from leanface.face.decoder import DecodedMesh, Decoder
from leanface.face.head_model import HeadModel
from leanface.metrics.measurements import Measurement
from leanface.photos.alignment import align, to_input
from leanface.photos.detector import FaceDetector
from leanface.runtime import Runtime
from leanface.runtime.benchmark import benchmark_end_to_end


def benchmark_photo(
    settings: Benchmark, image_size: int, head: HeadModel, photo: UInt8[np.ndarray, "H W 3"]
) -> list[Measurement]:
    """Measure from a photo with known landmarks to posed vertices; and, in its own row, finding the landmarks.

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

    return benchmark_end_to_end(settings, reconstruct, lambda: detector.detect(photo))
