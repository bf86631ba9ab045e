"""What the served network makes of training faces, for the monitor to compare with; measured once per network."""

import hashlib
import logging
import os
from pathlib import Path

import numpy as np
import torch

from leanface import paths
from leanface.face.render import Renderer
from leanface.monitoring.drift import Reference, features
from leanface.monitoring.population import Population
from leanface.reconstruction import LeanFace
from leanface.reconstruction.network import default_model
from leanface.serving.settings import Settings
from leanface.synthesis.synthesis import render_faces, sample_coefficients

logger = logging.getLogger(__name__)

FACES = 512
BATCH = 32
SEED = 11
"""Other faces than those of any split."""

VERSION = 1
"""Of the faces and the features; a reference of another one is measured anew."""


def reference_path(settings: Settings) -> Path:
    """Where this network's reference is, or will be."""
    model = settings.model or default_model()
    files = sorted(model.rglob("*")) if model.is_dir() else [model]
    digest = hashlib.sha256(f"{VERSION} {settings.runtime}".encode())
    for file in files:
        if file.is_file():
            digest.update(file.read_bytes())
    return paths.CACHE / f"drift-{digest.hexdigest()[:16]}.json"


def measure_reference(settings: Settings, path: Path) -> None:
    """Render training faces, read them, and write their features; takes some seconds, in a process of its own."""
    os.nice(10)  # requests go first
    torch.set_num_threads(1)
    with LeanFace.load(settings.model, settings.runtime, 1) as face:
        reference_of(face).save(path)


@torch.inference_mode()
def reference_of(face: LeanFace, count: int = FACES) -> Reference:
    """Of `count` faces as stage prepare renders them, with everything that can go wrong in a photo."""
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
