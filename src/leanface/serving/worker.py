"""A worker process: photos in, answers out, one batch after the other.

What decodes files from strangers runs here, away from the process that talks to clients: it may be slow, grow or crash,
and is replaced.
"""

import io
import json
import logging
import signal
import tempfile
import time
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import psutil
import torch
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError

from leanface.errors import ArtifactError, LeanFaceError, NoFaceError
from leanface.monitoring.drift import FEATURES
from leanface.monitoring.drift import features as features_of
from leanface.monitoring.population import Population
from leanface.photos.crops import FaceCrop
from leanface.photos.load import load_photo
from leanface.reconstruction import LeanFace, Reconstruction
from leanface.reconstruction.pictures import overlay
from leanface.serving.adaptive import Adaptive, Policy, cost_ms
from leanface.serving.messages import Answer, Answers, Failed, Job, Ready
from leanface.serving.reference import reference_of
from leanface.serving.settings import Settings

logger = logging.getLogger(__name__)

FORMATS = ("JPEG", "PNG", "WEBP")
"""Of photos; each further decoder is one more that strangers can attack."""

MIN_PHOTO_PX = 32
CALIBRATION_FACES = 128


class RefusedError(Exception):
    """A photo that will not be read: `kind` is one in STATUS."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind


@dataclass
class _Progress:
    """One job on its way."""

    job: Job
    photo: UInt8[np.ndarray, "H W 3"] | None = None
    crops: list[FaceCrop] = field(default_factory=list[FaceCrop])
    answer: Answer | None = None
    steps_ms: dict[str, float] = field(default_factory=dict[str, float])

    @contextmanager
    def step(self, name: str) -> Generator[None]:
        """Time a step; an error in it becomes this job's answer, and no other's."""
        start = time.perf_counter()
        try:
            yield
        except RefusedError as refused:
            self.answer = Answer(error=refused.kind, detail=str(refused), steps_ms=self.steps_ms)
        except NoFaceError as error:
            # Without the parameter, which clients cannot set.
            self.answer = Answer(error="no_face", detail=error.found, steps_ms=self.steps_ms)
        except Exception as error:
            logger.exception("a photo failed in step %s", name)
            detail = f"{type(error).__name__} in step {name}"
            self.answer = Answer(error="internal", detail=detail, steps_ms=self.steps_ms)
        self.steps_ms[name] = 1000 * (time.perf_counter() - start)


class Reader:
    """Reads batches of photos; everything but the process around it."""

    def __init__(self, settings: Settings, threads: int) -> None:
        """Load the network.

        Raises:
            LeanFaceError: it cannot be loaded or run here.
        """
        self._settings = settings
        self._face = LeanFace.load(settings.model, settings.runtime, threads)
        self._population = Population.of_training(self._face.surface.model)
        self._adaptive = self._with_larger(settings.larger, threads) if settings.larger else None

    def _with_larger(self, path: Path, threads: int) -> Adaptive:
        """Both networks together; strange is what the strangest training faces are."""
        larger = LeanFace.load(path, self._settings.runtime, threads)
        if larger.image_size != self._face.image_size:
            raise ArtifactError(
                f"{path} reads images of {larger.image_size} px, {self._face.model_path} of {self._face.image_size}; "
                "take two networks of one pipeline."
            )
        usual = reference_of(self._face, CALIBRATION_FACES).values[FEATURES.index("distance")]
        price = cost_ms(larger.read, larger.image_size)
        policy = Policy.calibrated(usual, self._settings.budget_ms, price)
        return Adaptive(self._face.read, larger.read, self._population, policy)

    def ready(self) -> Ready:
        """What was loaded; afterwards the first photo is as fast as any."""
        blank = np.zeros((1, self._face.image_size, self._face.image_size, 3), np.uint8)
        self._face.decode(self._face.read(blank))
        path, runtime = self._face.model_path, self._face.runtime
        return Ready(path.name, runtime.name, self._face.precision, self._face.image_size)

    def read(self, jobs: list[Job]) -> list[Answer]:
        """One answer for each, in order."""
        batch = [_Progress(job) for job in jobs]
        for progress in batch:
            with progress.step("decode"):
                progress.photo = decode(progress.job.photo, self._settings.pixels_max)
            if progress.answer is None:
                with progress.step("detect"):
                    progress.crops = self._crops(progress)
        self._network([progress for progress in batch if progress.crops])
        assert all(progress.answer for progress in batch)
        return [progress.answer for progress in batch if progress.answer]

    def _crops(self, progress: _Progress) -> list[FaceCrop]:
        assert progress.photo is not None
        try:
            faces = "largest" if progress.job.format == "glb" else progress.job.faces
            return self._face.crop(progress.photo, faces)[: self._settings.faces_max]
        except NoFaceError:
            raise
        except ArtifactError as error:  # one that lies on its side
            raise RefusedError("no_face", str(error)) from error

    def _network(self, batch: list[_Progress]) -> None:
        """Read all crops at once, and answer each job."""
        if not batch:
            return
        start = time.perf_counter()
        crops = np.stack([crop.crop for progress in batch for crop in progress.crops])
        reading = self._adaptive.read(crops) if self._adaptive else None
        coefficients = self._face.read(crops) if reading is None else reading.coefficients
        seen = features_of(crops, coefficients, self._population)
        network_ms = 1000 * (time.perf_counter() - start)
        first = 0
        for progress in batch:
            own = slice(first, first + len(progress.crops))
            first = own.stop
            progress.steps_ms["network"] = network_ms
            body = b""
            with progress.step("encode"):
                body = self._encode(progress, self._face.decode(coefficients[own], progress.crops))
            if progress.answer is None:
                reread = 0 if reading is None else int(reading.reread[own].sum())
                steps_ms, features = progress.steps_ms, seen[own]
                progress.answer = Answer(body, steps_ms=steps_ms, features=features, reread=reread, batch=len(batch))

    def _encode(self, progress: _Progress, faces: list[Reconstruction]) -> bytes:
        job, photo = progress.job, progress.photo
        assert photo is not None
        if job.format == "json":
            network = {"model": self._face.model_path.name, "runtime": self._face.runtime.name}
            timing = {name: round(ms, 2) for name, ms in progress.steps_ms.items()}
            content = {"faces": [face.to_json() for face in faces], "network": network, "steps_ms": timing}
            return json.dumps(content, allow_nan=False).encode()
        if job.format == "png":
            buffer = io.BytesIO()
            Image.fromarray(overlay(photo, faces)).save(buffer, "PNG", compress_level=1)
            return buffer.getvalue()
        face = self._face.textured(faces[0], photo, job.texture) if job.texture else faces[0]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "face.glb"
            face.save_mesh(path)
            return path.read_bytes()


def decode(content: bytes, pixels_max: int) -> UInt8[np.ndarray, "H W 3"]:
    """A photo's pixels, upright; its size is known, and judged, before any of them is decoded.

    Raises:
        RefusedError: it is no photo, or too large.
    """
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as photo:
            width, height = photo.size
    except UnidentifiedImageError:
        raise RefusedError(
            "not_a_photo", f"expected a photo's file ({', '.join(FORMATS)}) as it is: no form, no JSON."
        ) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise RefusedError("too_large", str(error)) from None
    except Exception as error:  # Pillow raises OSError, SyntaxError, struct.error, ... depending on where it is damaged
        raise RefusedError("not_a_photo", f"the photo is damaged: {error}") from None
    if width * height > pixels_max:
        raise RefusedError("too_large", f"the photo has {width} x {height} pixels; at most {pixels_max:,} are read.")
    if min(width, height) < MIN_PHOTO_PX:
        raise RefusedError("no_face", f"the photo has {width} x {height} pixels: too few to show a face.")
    try:
        return load_photo(io.BytesIO(content))
    except ArtifactError as error:
        raise RefusedError("not_a_photo", str(error)) from None


def work(connection: Connection, settings: Settings, threads: int) -> None:
    """The process: say that it is ready, then answer until the other end closes."""
    # Ctrl-C reaches the whole group; the service's process decides when a worker may go.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    Image.MAX_IMAGE_PIXELS = settings.pixels_max
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # such a photo is refused, which is no news
    torch.set_num_threads(threads)  # of the face detector, which would take those of the other workers too
    process = psutil.Process()
    try:
        reader = Reader(settings, threads)
        connection.send(reader.ready())
    except LeanFaceError as error:
        connection.send(Failed(f"{type(error).__name__}: {error}"))
        return
    while True:
        try:
            jobs = connection.recv()
            connection.send(Answers(reader.read(jobs), process.memory_info().rss))
        except (EOFError, OSError):  # the service's process has ended
            return
