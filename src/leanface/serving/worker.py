"""A worker process: it takes batches of photos and answers each.

Files from strangers are decoded here, away from the process that talks to clients: a worker that is slow, grows or
crashes is replaced.
"""

import io
import json
import logging
import os
import signal
import time
import warnings
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import NamedTuple

import numpy as np
import psutil
import torch
from jaxtyping import Float, UInt8
from PIL import Image

from leanface.device import VISIBLE
from leanface.errors import ArtifactError, LeanFaceError, NoFaceError
from leanface.monitoring.drift import features as features_of
from leanface.monitoring.population import Population
from leanface.photos.crops import FaceCrop
from leanface.reconstruction import LeanFace, Reconstruction
from leanface.reconstruction.pictures import overlay
from leanface.serving.messages import Answer, Answered, Failed, Job, Ready
from leanface.serving.photos import decode
from leanface.serving.refusals import Refused
from leanface.serving.settings import Gpu, Settings

logger = logging.getLogger(__name__)


class _Prediction(NamedTuple):
    """What the network makes of a batch's crops; the features are the monitor's."""

    coefficients: Float[np.ndarray, "N 257"]
    features: Float[np.ndarray, "N 5"]


@dataclass
class _Progress:
    """A job that is being worked on."""

    job: Job
    photo: UInt8[np.ndarray, "H W 3"] | None = None
    crops: list[FaceCrop] = field(default_factory=list[FaceCrop])
    prediction: _Prediction | None = None
    answer: Answer | None = None
    steps_ms: dict[str, float] = field(default_factory=dict[str, float])

    @contextmanager
    def step(self, name: str) -> Generator[None]:
        """Time a step; an error in it becomes the answer to this job only."""
        start = time.perf_counter()
        try:
            yield
        except Refused as refused:
            self.answer = Answer(error=refused.kind, detail=refused.detail, steps_ms=self.steps_ms)
        except NoFaceError as error:
            # `found` leaves out the parameter, which clients cannot set.
            self.answer = Answer(error="no_face", detail=error.found, steps_ms=self.steps_ms)
        except Exception as error:
            self.fail(name, error)
        self.steps_ms[name] = 1000 * (time.perf_counter() - start)

    def fail(self, step: str, error: Exception) -> None:
        """Answer with an internal error, of which the log says more."""
        logger.error("a photo failed in step %s", step, exc_info=error)
        detail = f"{type(error).__name__} in step {step}"
        self.answer = Answer(error="internal", detail=detail, steps_ms=self.steps_ms)


class Reader:
    """Reads batches of photos: what a worker does, without the process around it."""

    def __init__(self, settings: Settings, threads: int) -> None:
        """Load the network.

        Raises:
            LeanFaceError: it cannot be loaded or run here.
        """
        self._settings = settings
        self.face = LeanFace.load(settings.model, settings.network_runtime, threads)
        self._population = Population.of_training(self.face.surface.model)

    def ready(self) -> Ready:
        """Warm up, so that the first photo is as fast as any, and describe what was loaded."""
        blank = np.zeros((1, self.face.image_size, self.face.image_size, 3), np.uint8)
        self.face.decode(self.face.read(blank))
        path, runtime = self.face.model_path, self.face.runtime
        return Ready(path.name, runtime.name, self.face.precision, self.face.image_size)

    def read(self, jobs: Sequence[Job]) -> Iterator[Answer]:
        """Read a batch of photos together, and answer each job as soon as it is done, in order."""
        batch = [_Progress(job) for job in jobs]
        for progress in batch:
            with progress.step("decode"):
                progress.photo = decode(progress.job.photo, self._settings.pixels_max)
            if progress.answer is None:
                with progress.step("detect"):
                    progress.crops = self._crops(progress)
        readable = [progress for progress in batch if progress.answer is None]
        self._predict(readable)
        for progress in batch:
            if progress.answer is None:
                self._encode(progress, len(readable))
            assert progress.answer is not None
            yield progress.answer

    def _crops(self, progress: _Progress) -> list[FaceCrop]:
        assert progress.photo is not None
        try:
            faces = "largest" if progress.job.format == "glb" else progress.job.faces
            return self.face.crop(progress.photo, faces)[: self._settings.faces_max]
        except NoFaceError:
            raise
        except ArtifactError as error:  # its landmarks are not a face's
            raise Refused("no_face", str(error)) from error

    def _predict(self, batch: Sequence[_Progress]) -> None:
        """Run the network once for all crops of a batch; if that fails, once for each photo."""
        if not batch:
            return
        start = time.perf_counter()
        try:
            prediction = self._run(np.stack([crop.crop for progress in batch for crop in progress.crops]))
        except Exception as error:
            if len(batch) == 1:
                batch[0].fail("network", error)
            else:
                for progress in batch:
                    self._predict([progress])
            return
        network_ms = 1000 * (time.perf_counter() - start)
        first = 0
        for progress in batch:
            own = slice(first, first + len(progress.crops))
            first = own.stop
            progress.prediction = _Prediction(*(values[own] for values in prediction))
            progress.steps_ms["network"] = network_ms

    def _run(self, crops: UInt8[np.ndarray, "N size size 3"]) -> _Prediction:
        coefficients = self.face.read(crops)
        return _Prediction(coefficients, features_of(crops, coefficients, self._population))

    def _encode(self, progress: _Progress, batch: int) -> None:
        """Answer a job with its prediction, in the form that it asks for."""
        prediction = progress.prediction
        assert prediction is not None
        body = b""
        with progress.step("encode"):
            faces = self.face.sound(self.face.decode(prediction.coefficients, progress.crops))
            body = self._encoded(progress, faces)
        if progress.answer is None:
            steps_ms, features = progress.steps_ms, prediction.features
            name = self.face.model_path.name
            progress.answer = Answer(body, steps_ms=steps_ms, features=features, batch=batch, network=name)

    def _encoded(self, progress: _Progress, faces: list[Reconstruction]) -> bytes:
        job, photo = progress.job, progress.photo
        assert photo is not None
        if job.format == "json":
            network = {"model": self.face.model_path.name, "runtime": self.face.runtime.name}
            timing = {name: round(ms, 2) for name, ms in progress.steps_ms.items()}
            content = {"faces": [face.to_json() for face in faces], "network": network, "steps_ms": timing}
            return json.dumps(content, allow_nan=False).encode()
        if job.format == "png":
            buffer = io.BytesIO()
            Image.fromarray(overlay(photo, faces)).save(buffer, "PNG", compress_level=1)
            return buffer.getvalue()
        face = self.face.textured(faces[0], photo, job.texture) if job.texture else faces[0]
        return face.encode_mesh("face.glb")["face.glb"]


def work(connection: Connection, settings: Settings, threads: int, gpu: Gpu | None = None) -> None:
    """Run a worker: say that it is ready, then answer batches until the other end closes the connection.

    Args:
        gpu: the only one that this process sees, so that to every runtime in it, it is the first.
    """
    if gpu is not None:
        os.environ[VISIBLE] = gpu.name
    # Ctrl-C reaches the whole process group; the service decides when its workers end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    Image.MAX_IMAGE_PIXELS = settings.pixels_max
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # such photos are refused anyway
    torch.set_num_threads(threads)  # of the sample of the training, which would take the other workers' too
    process = psutil.Process()
    try:
        readers = [Reader(settings, threads)]
        ready = readers[0].ready()
        if settings.better_model is not None:
            readers.append(Reader(settings.model_copy(update={"model": settings.better_model}), threads))
            readers[1].ready()
        connection.send(ready)
    except (LeanFaceError, OSError) as error:
        connection.send(Failed(f"{type(error).__name__}: {error}"))
        return
    while True:
        try:
            jobs, better = connection.recv()
            for answer in readers[bool(better)].read(jobs):
                connection.send(Answered(answer, process.memory_info().rss))
        except (EOFError, OSError):  # the service's process has ended
            return
