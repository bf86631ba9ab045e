"""A LeanFace that takes no time: its detector finds a face that fills the photo, its network reads the mean face."""

from collections.abc import Iterator
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from leanface.photos.detector import FaceDetection, FaceDetector
from leanface.reconstruction.lean_face import LeanFace
from leanface.reconstruction.network import Network
from leanface.reconstruction.surface import Surface
from leanface.runtime.base import Coefficients, Images, InputSpec, Runtime

PIXELS = 8
SIZE = 64


class NoNetwork(Runtime):
    """Reads the mean face out of every crop: the real networks would take minutes."""

    name = "none"
    outputs = 257

    def _open(self, path: Path, threads: int, streams: int) -> InputSpec:
        return InputSpec()

    def _infer(self, images: Images, stream: int) -> Coefficients:
        return np.zeros((len(images), 257), np.float32)

    def _close(self) -> None:
        pass


class OneFace:
    """Finds a face that fills the photo."""

    def __init__(self, template: np.ndarray) -> None:
        self._landmarks = template / 224 * PIXELS

    def require(self, image: np.ndarray, *, every: bool = True) -> list[FaceDetection]:
        return [FaceDetection(np.array([0.0, 0.0, PIXELS, PIXELS]), self._landmarks, 1.0)]

    def follow(self, image: np.ndarray, face: FaceDetection) -> FaceDetection:
        return face


@pytest.fixture(scope="module")
def quick_face(tmp_path_factory: pytest.TempPathFactory) -> LeanFace:
    path = tmp_path_factory.mktemp("network") / "network.onnx"
    path.write_bytes(b"a network")
    surface = Surface()
    network = Network(path, NoNetwork(path), SIZE, "fp32")
    return LeanFace(network, surface, cast(FaceDetector, OneFace(surface.template)))


def photo(number: int) -> bytes:
    """A picture that no other number gives."""
    pixels = np.full((PIXELS, PIXELS, 3), 128, np.uint8)
    pixels[0, :2] = np.frombuffer(number.to_bytes(6, "little"), np.uint8).reshape(2, 3)
    return b"P6 %d %d 255\n" % (PIXELS, PIXELS) + pixels.tobytes()


@pytest.fixture(scope="module")
def lean_face() -> Iterator[LeanFace]:
    """The shipped network: heads that do not fit their faces are left out."""
    with LeanFace.load(threads=1) as opened:
        yield opened
