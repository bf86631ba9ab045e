"""The compressed network in use: a photo in, 3D faces out."""

import functools
import logging
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self

import numpy as np
from jaxtyping import Float, Float32, UInt8
from PIL import Image

from leanface import paths
from leanface.catalog import RUNTIMES
from leanface.device import usable_cores
from leanface.errors import NoFaceError
from leanface.face import kernels
from leanface.face.coefficients import ANGLES, COUNT, split
from leanface.face.decoder import translation_of
from leanface.face.photo_texture import Lighting, PhotoTexture
from leanface.photos.alignment import Alignment, to_input
from leanface.photos.crops import FaceCrop, as_in_photo, crop_face, crop_faces, crop_found
from leanface.photos.detector import FaceDetection, FaceDetector
from leanface.photos.load import load_photo
from leanface.photos.pixels import require_rgb
from leanface.photos.tracking import FaceTracker
from leanface.reconstruction.network import Network, default_model, open_network
from leanface.reconstruction.result import Pose, Reconstruction, project
from leanface.reconstruction.surface import Surface
from leanface.runtime import Runtime
from leanface.runtime.batches import run_in_batches

if TYPE_CHECKING:
    from leanface.face.photo_texture_torch import TorchTexture

logger = logging.getLogger(__name__)

Faces = Literal["all", "largest"]

MISFIT_MAX, UNCONFIRMED_MISFIT_MAX = 0.5, 0.35
"""Of `Reconstruction.misfit`, for faces that the detector confirms and others; measured: docs/results/detection."""


class LeanFace:
    """A network, a face detector and a morphable model, loaded once. Use it in a `with` statement, or `close` it.

    Any threads may share it; the network itself runs one batch at a time.
    """

    def __init__(self, network: Network, surface: Surface, detector: FaceDetector) -> None:
        """See `load`."""
        self._network = network
        self._lock = threading.Lock()
        self._detector = detector
        self.surface = surface

    @classmethod
    def load(
        cls,
        model: str | PathLike[str] | None = None,
        runtime: str = "auto",
        threads: int | None = None,
        *,
        cpu_model: str | PathLike[str] | None = None,
        morphable_model: str | PathLike[str] | None = None,
        min_face_px: int | None = None,
    ) -> Self:
        """Get everything ready.

        Args:
            model: an exported .onnx file, a bundle's folder or an engine (.plan). By default the network that LeanFace
                ships, or else the one that the pipeline made in this folder, in the flavor that the runtime reads best.
            runtime: a name in `leanface.runtime.RUNTIMES`, or "auto": the best one that runs the file here; or "cpu"
                or "gpu": the best one that does so there. That is the first GPU that CUDA_VISIBLE_DEVICES names.
            threads: of the network on the CPU; all processors if not given.
            cpu_model: the INT8 file `model` in flavor cpu, for runtimes that read it best here.
            morphable_model: what the coefficients belong to; by default the model of the project that the network lies
                in, or else the packaged one.
            min_face_px: longer side of the smallest face to look for; see `FaceDetector`.

        Raises:
            ArtifactError: a file is missing, damaged or not LeanFace's.
            BackendError: the runtime is unknown or cannot run here.
        """
        path = None if model is None else Path(model)
        own_model = morphable_model_of(path or default_model()) if morphable_model is None else Path(morphable_model)

        def rest() -> tuple[Surface, FaceDetector]:
            surface = Surface(own_model)
            surface.decoder.decode(np.zeros(COUNT, np.float32))  # loads compiled code
            return surface, FaceDetector(min_face_px)

        # What opens a network, and sets its threads, is this thread: some libraries count them by thread.
        with ThreadPoolExecutor(1) as loader:
            loading = loader.submit(rest)
            network = open_network(
                path, runtime, threads or usable_cores(), None if cpu_model is None else Path(cpu_model)
            )
            logger.info("%s in %s", network.path, network.runtime.name)
            try:
                return cls(network, *loading.result())
            except BaseException:
                network.runtime.close()
                raise

    @property
    def image_size(self) -> int:
        """Side (px) of the crops that the network reads."""
        return self._network.image_size

    @property
    def precision(self) -> str:
        """Of the network: fp32, fp16 or int8."""
        return self._network.precision

    @property
    def runtime(self) -> Runtime:
        """What runs the network."""
        return self._network.runtime

    @property
    def on_gpu(self) -> bool:
        """Whether the network runs on a GPU; textures are then painted there, too."""
        return self.runtime.name in RUNTIMES and RUNTIMES[self.runtime.name].on_gpu

    @property
    def model_path(self) -> Path:
        """Where the network was loaded from."""
        return self._network.path

    def detect(self, image: UInt8[np.ndarray, "H W 3"]) -> list[FaceDetection]:
        """Find every face in an RGB photo, the largest first; [] where there is none.

        Raises:
            ValueError: the image is not uint8 (H, W, 3).
        """
        return self._detector.detect(image)

    def crop(self, image: UInt8[np.ndarray, "H W 3"], faces: Faces = "all") -> list[FaceCrop]:
        """Find faces and cut them out as the network reads them; see `leanface.photos.crops.crop_faces`."""
        return crop_faces(image, self._detector, self.surface.template, self.image_size, every=faces == "all")

    def tracker(self) -> FaceTracker:
        """Begin a video, whose frames then go to `crop_tracked` in order."""
        return FaceTracker(self._detector)

    def crop_tracked(
        self, frame: UInt8[np.ndarray, "H W 3"], seconds: float, tracker: FaceTracker, faces: Faces = "all"
    ) -> list[FaceCrop]:
        """Follow the faces of a video into its next frame, and cut them out; errors as for `crop`.

        Args:
            frame: RGB.
            seconds: when it is shown.
            tracker: the video's own.
        """
        found = tracker(frame, seconds)
        return crop_found(frame, found, self.surface.template, self.image_size, every=faces == "all")

    def align(self, image: UInt8[np.ndarray, "H W 3"], face: FaceDetection) -> FaceCrop:
        """Cut out a face as the network reads it.

        Raises:
            ArtifactError: the landmarks are not those of a face.
            ValueError: the image is not uint8 (H, W, 3).
        """
        require_rgb(image)
        return crop_face(image, face, self.surface.template, self.image_size)

    def read(self, crops: UInt8[np.ndarray, "N size size 3"]) -> Float32[np.ndarray, "N 257"]:
        """Run the network alone: coefficients of aligned crops.

        Raises:
            ValueError: the crops have another shape or type.
            BackendError: the runtime failed, or was closed.
        """
        self._require_crops(crops)
        with self._lock:
            return run_in_batches(self._network.runtime, np.ascontiguousarray(crops))

    def to_input(self, crops: UInt8[np.ndarray, "N size size 3"]) -> Float32[np.ndarray, "N 3 size size"]:
        """Turn crops into numbers, as the network's first layer reads them; errors as for `read`."""
        self._require_crops(crops)
        return to_input(crops)

    def _require_crops(self, crops: np.ndarray) -> None:
        size = self.image_size
        if crops.ndim != 4 or crops.shape[1:] != (size, size, 3) or crops.dtype != np.uint8:
            raise ValueError(
                f"expected crops as a uint8 array of shape (N, {size}, {size}, 3), got {crops.dtype} {crops.shape}; "
                "LeanFace.crop makes them of a photo."
            )

    def decode(
        self, coefficients: Float[np.ndarray, "N 257"], crops: Sequence[FaceCrop] | None = None
    ) -> list[Reconstruction]:
        """Make faces of coefficients.

        Args:
            crops: what each was read from; without them the faces lie in a crop of `image_size`.

        Raises:
            ValueError: the coefficients are not (N, 257), or there are not as many crops.
        """
        if coefficients.ndim != 2 or coefficients.shape[1] != COUNT:
            raise ValueError(f"expected coefficients of shape (N, {COUNT}), got {coefficients.shape}")
        rows = np.ascontiguousarray(coefficients, np.float32)
        if crops is None:
            crop = Alignment(1.0, 0.0, 0.0, self.image_size)
            return [self._decode(row, crop, None) for row in rows]
        rows = as_in_photo(rows, crops)
        return [self._decode(row, crop.alignment, crop.detection) for row, crop in zip(rows, crops, strict=True)]

    def sound(self, faces: Sequence[Reconstruction]) -> list[Reconstruction]:
        """Leave out faces that do not lie where they were found: what was read there is no face, or was misread.

        Raises:
            NoFaceError: there were faces, and all are left out.
        """
        sound = [face for face in faces if face.misfit <= _misfit_max(face)]
        if faces and not sound:
            misfit, limit = faces[0].misfit, _misfit_max(faces[0])
            raise NoFaceError(
                f"what looked like a face could not be read: eyes, nose and mouth lie {100 * misfit:.0f} % of "
                f"their own size from where they were found (at most {100 * limit:.0f} % are accepted). It may be no "
                "face, or be hidden, blurred or turned too far; use a photo in which both eyes and the mouth show."
            )
        return sound

    def reconstruct(
        self,
        photo: str | PathLike[str] | Image.Image | UInt8[np.ndarray, "H W 3"],
        *,
        texture_size: int | None = None,
        delight: bool = False,
        faces: Faces = "all",
    ) -> list[Reconstruction]:
        """Reconstruct every face in an RGB photo, the largest first.

        Args:
            photo: a file, a Pillow image or an array.
            texture_size: side (px) of a texture of the whole head, taken from the photo; None for no texture.
            delight: take the light out of the texture.
            faces: "all", or only the "largest".

        Raises:
            NoFaceError: there is no face, or none that can be read.
            ArtifactError: no face can be aligned, or the file cannot be read.
            ValueError: the array is not uint8 (H, W, 3).
        """
        image = _pixels(photo)
        crops = self.crop(image, faces)
        found = self.sound(self.decode(self.read(np.stack([crop.crop for crop in crops])), crops))
        if texture_size is None:
            return found
        return [self.textured(face, image, texture_size, delight=delight) for face in found]

    def textured(
        self, face: Reconstruction, image: UInt8[np.ndarray, "H W 3"], size: int, *, delight: bool = False
    ) -> Reconstruction:
        """Add a texture from the photo that the face was read from; see `reconstruct`."""
        parts = split(face.coefficients)
        normals_camera = np.ascontiguousarray(face.normals @ face.pose.rotation.T)
        light = kernels.irradiance(normals_camera[None], parts.lighting[None])[0]
        texture = self._painter.paint(
            self.surface.layout(size),
            image,
            face.vertices_photo,
            face.vertices_camera,
            normals_camera,
            Lighting(self.surface.head.albedo(parts.albedo), light),
            delight=delight,
        )
        return replace(face, texture=texture)

    @functools.cached_property
    def _painter(self) -> "PhotoTexture | TorchTexture":
        """What takes textures from photos: on the GPU if the network is there."""
        painter = self.surface.painter
        if not self.on_gpu:
            return painter
        try:
            from leanface.face.photo_texture_torch import TorchTexture

            on_gpu = TorchTexture(painter, "cuda")
        except (ImportError, RuntimeError) as error:  # no PyTorch, or none for this GPU
            logger.warning("textures are painted on the CPU: PyTorch cannot do it on the GPU (%s)", error)
            return painter
        self.surface.encode_jpeg = on_gpu.encode_jpeg
        return on_gpu

    def close(self) -> None:
        """Give back the network; a second call does nothing."""
        self._network.runtime.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _decode(
        self, coefficients: Float32[np.ndarray, "257"], alignment: Alignment, detection: FaceDetection | None
    ) -> Reconstruction:
        mesh = self.surface.decoder.decode(coefficients)
        landmarks = project(mesh.vertices_camera[self.surface.head.landmarks], alignment)[:, :2]
        return Reconstruction(
            coefficients=coefficients,
            vertices=mesh.vertices,
            vertices_camera=mesh.vertices_camera,
            normals=mesh.normals,
            pose=Pose(coefficients[ANGLES], mesh.rotation, translation_of(coefficients)),
            landmarks=landmarks,
            alignment=alignment,
            surface=self.surface,
            detection=detection,
        )


def _misfit_max(face: Reconstruction) -> float:
    confirmed = face.detection is None or face.detection.confirmed
    return MISFIT_MAX if confirmed else UNCONFIRMED_MISFIT_MAX


processors = usable_cores
"""Deprecated name of `leanface.device.usable_cores`, kept importable here."""


def morphable_model_of(model: Path) -> Path:
    """Return the morphable model of the project whose folder models/ the network lies in, else the packaged one."""
    for folder in model.resolve().parents:
        own = folder.parent / paths.MORPHABLE_MODEL
        if folder.name == "models" and own.is_file():
            return own
    return paths.PACKAGED_MORPHABLE_MODEL


def _pixels(photo: str | PathLike[str] | Image.Image | np.ndarray) -> UInt8[np.ndarray, "H W 3"]:
    if isinstance(photo, np.ndarray):
        return photo
    if isinstance(photo, Image.Image):
        return np.asarray(photo.convert("RGB"))
    return load_photo(photo if isinstance(photo, str) else Path(photo))
