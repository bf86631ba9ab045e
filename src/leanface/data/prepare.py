"""Writes the prepared faces: three splits of renders with exact ground truth, and the aligned photos."""

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from leanface.config import Data
from leanface.data.alignment import TEMPLATE_224, align
from leanface.data.dataset import COEFFICIENTS, IMAGES
from leanface.data.detector import FaceDetector
from leanface.data.photos import load_photo
from leanface.data.synthesis import render_faces, sample_coefficients, seed_of
from leanface.face.morphable_model import MorphableModel
from leanface.face.render import Renderer
from leanface.paths import SPLITS

CHUNK = 32
"""Faces per batch; each batch has a generator of its own, so that a split's size does not change its first faces."""


def prepare_faces(model: MorphableModel, data: Data, seed: int, folder: Path) -> dict[str, Any]:
    """Render all splits into `folder` (train/, val/, test/ and manifest.json), which appears whole or not at all.

    Each split draws its own identities, so that no person is in two of them.

    Returns:
        The manifest: counts, seed, image size, and the sha256 of every array.
    """
    counts = dict(zip(SPLITS, (data.train_count, data.val_count, data.test_count), strict=True))
    manifest: dict[str, Any] = {"seed": seed, "image_size": data.image_size, "splits": {}}
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        renderer = Renderer(model, data.image_size, data.supersample)
        with tqdm(total=sum(counts.values()), desc="rendering faces", unit="face") as progress:
            for number, (split, count) in enumerate(counts.items()):
                target = staging / split
                target.mkdir()
                images = np.lib.format.open_memmap(
                    target / IMAGES, "w+", np.uint8, (count, data.image_size, data.image_size, 3)
                )
                coefficients = np.empty((count, 257), np.float32)
                for start in range(0, count, CHUNK):
                    stop = min(start + CHUNK, count)
                    generator = torch.Generator().manual_seed(seed_of(seed, number, start))
                    faces, truth = _render_chunk(renderer, data, generator)
                    images[start:stop] = faces[: stop - start]
                    coefficients[start:stop] = truth[: stop - start].numpy()
                    progress.update(stop - start)
                images.flush()
                np.save(target / COEFFICIENTS, coefficients)
                manifest["splits"][split] = {
                    "count": count,
                    "sha256": {name: _sha256(target / name) for name in (IMAGES, COEFFICIENTS)},
                }
        (staging / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
        _replace(staging, folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return manifest


def _render_chunk(
    renderer: Renderer, data: Data, generator: torch.Generator
) -> tuple[UInt8[np.ndarray, "chunk size size 3"], Float[Tensor, "chunk 257"]]:
    coefficients = sample_coefficients(
        renderer.model,
        CHUNK,
        generator,
        yaw_max_rad=data.yaw_max_rad,
        clip=data.coefficient_clip,
        images_per_identity=data.images_per_identity,
    )
    faces = render_faces(renderer, coefficients, generator, data.augment)
    return (faces * 255).round().byte().permute(0, 2, 3, 1).numpy(), coefficients


def prepare_photos(
    names: tuple[str, ...], size: int, folder: Path, template: Float[np.ndarray, "5 2"] = TEMPLATE_224
) -> dict[str, Any]:
    """Find, align and crop one face per photo into `folder`/NAME.png; `template` as in `align`.

    Returns:
        Per photo: the detector's score and the alignment.

    Raises:
        ArtifactError: a photo is missing or shows no face.
    """
    detector = FaceDetector()
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    found: dict[str, Any] = {}
    try:
        for name in names:
            photo = load_photo(name)
            detection = detector.largest(photo)
            crop, alignment = align(photo, detection.landmarks, template, size)
            stem = Path(name).stem
            Image.fromarray(crop).save(staging / f"{stem}.png")
            found[stem] = {"score": float(detection.score), "scale": alignment.scale}
        _replace(staging, folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return found


def _replace(staging: Path, folder: Path) -> None:
    staging.chmod(0o755)
    if folder.exists():
        shutil.rmtree(folder)
    os.replace(staging, folder)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
