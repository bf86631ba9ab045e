"""Measure what the served network reads in training faces, once per network, for the monitor to compare with."""

import hashlib
import logging
import multiprocessing
import os
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch

from leanface import paths
from leanface.device import VISIBLE
from leanface.errors import ArtifactError, LeanFaceError
from leanface.face.render import Renderer
from leanface.monitoring.drift import Reference, features
from leanface.monitoring.population import Population
from leanface.reconstruction import LeanFace
from leanface.reconstruction.network import default_files
from leanface.serving.settings import Settings
from leanface.synthesis.synthesis import render_faces, sample_coefficients

logger = logging.getLogger(__name__)

FACES = 512
BATCH = 32
SEED = 11
"""Gives other faces than those of any split."""

VERSION = 1
"""Version of the faces and the features; a reference of another version is measured again."""


def reference_path(settings: Settings) -> Path:
    """Name the file that holds, or will hold, a network's reference."""
    model = settings.model
    networks = sorted(set(default_files().values())) if model is None else [model]
    files = sorted(model.rglob("*")) if model is not None and model.is_dir() else networks
    digest = hashlib.sha256(f"{VERSION} {settings.network_runtime}".encode())
    for file in files:
        if file.is_file():
            digest.update(file.read_bytes())
    return paths.CACHE / f"drift-{digest.hexdigest()[:16]}.json"


class ReferenceMeasurement:
    """Gets a network's reference: from its file, or from a process that measures it, which takes some seconds."""

    def __init__(self, settings: Settings) -> None:
        self._path = reference_path(settings)
        self._process = None
        self._known = _saved(self._path)
        if self._known is None:
            context = multiprocessing.get_context("spawn")
            self._result, theirs = context.Pipe(duplex=False)
            self._process = context.Process(target=_measure, args=(settings, self._path, theirs), daemon=True)
            self._process.start()
            theirs.close()

    def poll(self) -> Reference | None:
        """Return the reference, None until it is there."""
        if self._process is not None and self._result.poll():
            try:
                self._known = self._result.recv()
            except EOFError:
                logger.warning("drift is not watched: the network could not be measured")
            self.stop()
        return self._known

    def stop(self) -> None:
        """End the process, if it runs."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._result.close()
            self._process = None


def _saved(path: Path) -> Reference | None:
    try:
        return Reference.load(path) if path.exists() else None
    except ArtifactError:
        return None  # it is measured again, and replaced


def _measure(settings: Settings, path: Path, result: Connection) -> None:
    """Measure in a process of its own, keep the reference if the folder can be written, and send it."""
    os.nice(10)  # requests go first
    if settings.devices:
        os.environ[VISIBLE] = settings.devices[0].name
    torch.set_num_threads(1)
    try:
        with LeanFace.load(settings.model, settings.network_runtime, 1) as face:
            reference = reference_of(face)
    except LeanFaceError as error:
        logger.warning("%s", error)
        return
    try:
        reference.save(path)
    except OSError as error:
        logger.warning("the reference for drift is not kept, and measured again at the next start: %s", error)
    result.send(reference)


@torch.inference_mode()
def reference_of(face: LeanFace, count: int = FACES) -> Reference:
    """Measure `count` faces as stage prepare renders them, with everything that can go wrong in a photo."""
    model = face.surface.model
    renderer = Renderer(model, face.image_size)
    generator = torch.Generator().manual_seed(SEED)
    population = Population.of_training(model)
    rows: list[np.ndarray] = []
    for start in range(0, count, BATCH):
        true = sample_coefficients(model, min(BATCH, count - start), generator)
        images = render_faces(renderer, true, generator, augment=1.0)
        crops = (images * 255).round().byte().permute(0, 2, 3, 1).contiguous().numpy()
        rows.append(features(crops, face.read(crops), population))
    return Reference.of(np.concatenate(rows))
