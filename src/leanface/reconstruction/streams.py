"""Many cameras at once: a frame of each comes in, posed vertices go out, with one batch through the network.

Threads follow the faces and cut them out; the network reads all crops together; on a GPU, all faces are decoded there.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np
from jaxtyping import Float32, UInt8

from leanface.device import usable_cores
from leanface.errors import ArtifactError
from leanface.face.coefficients import COUNT, split
from leanface.face.geometry import METERS_PER_DM
from leanface.photos.crops import FaceCrop
from leanface.photos.tracking import FaceTracker
from leanface.reconstruction.lean_face import Faces, LeanFace
from leanface.reconstruction.smoothing import Smoother


class StreamFaces(NamedTuple):
    """The faces in one stream's frame, the largest first.

    Attributes:
        crops: where they are, steadied over time; `detection.number` is the person's in this stream.
        coefficients: likewise.
        vertices_camera: in the camera's frame (m).
    """

    crops: Sequence[FaceCrop]
    coefficients: Float32[np.ndarray, "N 257"]
    vertices_camera: Float32[np.ndarray, "N vertices 3"]


class Streams:
    """Follows the faces of several cameras. Use it in a `with` statement, or `close` it; one thread calls it."""

    def __init__(self, lean_face: LeanFace, count: int, faces: Faces = "all") -> None:
        """Begin.

        Args:
            count: of streams.
            faces: "all", or only the "largest" of each.
        """
        self._lean_face = lean_face
        self._faces: Faces = faces
        self._trackers = [lean_face.tracker() for _ in range(count)]
        self._smoothers = [Smoother() for _ in range(count)]
        self._threads = ThreadPoolExecutor(usable_cores())
        # A GPU's kernels are prepared for each size of batches: these are filled up to one face per stream.
        self._multiple = count if lean_face.on_gpu else 1
        self._decoder = GpuDecoder(lean_face) if lean_face.on_gpu else None

    def __call__(self, frames: Sequence[UInt8[np.ndarray, "H W 3"] | None], seconds: float) -> list[StreamFaces]:
        """Read the next frame of each stream; None where one has no new frame, which then shows nobody.

        Args:
            frames: RGB.
            seconds: when they are shown.

        Raises:
            ValueError: there are not as many frames as streams, or one is not uint8 (H, W, 3).
            BackendError: the runtime failed.
        """

        def crop(frame: UInt8[np.ndarray, "H W 3"] | None, tracker: FaceTracker) -> Sequence[FaceCrop]:
            try:
                return () if frame is None else self._lean_face.crop_tracked(frame, seconds, tracker, self._faces)
            except ArtifactError:  # nobody is there, or nobody upright
                return ()

        if len(frames) != len(self._trackers):
            raise ValueError(f"expected a frame of each of {len(self._trackers)} streams, got {len(frames)}")
        found = list(self._threads.map(crop, frames, self._trackers))
        ends = np.cumsum([len(crops) for crops in found])
        read = self._read([crop.crop for crops in found for crop in crops])
        framed: list[Sequence[FaceCrop]] = []
        for crops, rows, smoother in zip(found, np.split(read, ends[:-1]), self._smoothers, strict=True):
            framed_here, rows[:] = smoother(crops, rows, seconds)
            framed.append(framed_here)
        vertices = np.split(self._posed(read), ends[:-1])
        return [StreamFaces(*each) for each in zip(framed, np.split(read, ends[:-1]), vertices, strict=True)]

    def _read(self, crops: list[UInt8[np.ndarray, "size size 3"]]) -> Float32[np.ndarray, "N 257"]:
        if not crops:
            return np.empty((0, COUNT), np.float32)
        return self._lean_face.read(np.stack(crops + crops[-1:] * (-len(crops) % self._multiple)))[: len(crops)]

    def _posed(self, coefficients: Float32[np.ndarray, "N 257"]) -> Float32[np.ndarray, "N vertices 3"]:
        if self._decoder is not None:
            return self._decoder(coefficients)
        decoder = self._lean_face.surface.decoder
        posed = [mesh.vertices_camera for mesh in self._threads.map(decoder.decode, coefficients)]
        return np.array(posed, np.float32).reshape(len(posed), len(self._lean_face.surface.head.uv), 3)

    def close(self) -> None:
        """End the threads; a second call does nothing."""
        self._threads.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class GpuDecoder:
    """Decodes any number of faces at once on the GPU."""

    def __init__(self, lean_face: LeanFace, device: str = "cuda") -> None:
        """Load the model of these faces onto the device."""
        from leanface.face.morphable_model import load_morphable_model

        self._model = load_morphable_model(lean_face.surface.path).to(device)
        self._device = device

    def __call__(self, coefficients: Float32[np.ndarray, "N 257"]) -> Float32[np.ndarray, "N vertices 3"]:
        """Return vertices in the camera's frame (m)."""
        import torch

        from leanface.face.camera import camera_from_model

        with torch.inference_mode():
            parts = split(torch.from_numpy(coefficients).to(self._device))
            vertices = self._model.vertices(parts.identity, parts.expression)
            posed = METERS_PER_DM * camera_from_model(vertices, parts.angles_rad, parts.translation)
            received = torch.empty(posed.shape, pin_memory=posed.is_cuda)
            return received.copy_(posed).numpy()
