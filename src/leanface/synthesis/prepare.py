"""Writes the prepared faces: three splits of renders with exact ground truth, and the aligned photos."""

import hashlib
import shutil
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from tqdm import tqdm

from leanface.config import Data
from leanface.errors import ArtifactError
from leanface.extras import installed_version
from leanface.face.coefficients import COUNT
from leanface.face.landmarks import landmarks_image
from leanface.face.morphable_model import MorphableModel
from leanface.face.render import Renderer
from leanface.files import staged, write_json
from leanface.paths import SPLITS
from leanface.photos.alignment import TEMPLATE_224
from leanface.photos.crops import crop_faces
from leanface.photos.detector import FaceDetector
from leanface.photos.load import load_photo
from leanface.synthesis.arrays import ArrayWriter
from leanface.synthesis.batches import RenderedBatch, render_in_order
from leanface.synthesis.dataset import COEFFICIENTS, IMAGES, LANDMARKS

BATCH = 32
"""Faces per batch; a split's size does not change its first faces."""


def prepare_faces(
    model: MorphableModel, data: Data, seed: int, folder: Path, workers: int | None = None
) -> dict[str, Any]:
    """Render all splits into `folder` (train/, val/, test/ and manifest.json), which appears whole or not at all.

    Args:
        workers: threads that render, by default as many as PyTorch would compute with (OMP_NUM_THREADS, else one per
            core); the bytes do not depend on it.

    Returns:
        The manifest: what is needed to render the same again, and the sha256 of every array.

    Raises:
        ArtifactError: the disk is too small, or `folder` cannot be written.
    """
    counts = dict(zip(SPLITS, (data.train_count, data.val_count, data.test_count), strict=True))
    renderer = Renderer(model, data.image_size, data.supersample)
    workers = workers or torch.get_num_threads()
    with staged(folder, owned=True) as staging, _single_threaded_operations():
        _require_space(staging, sum(counts.values()), data.image_size)
        with tqdm(total=sum(counts.values()), desc="rendering", unit=" images", disable=None) as progress:
            splits: dict[str, Any] = {}
            for split, count in counts.items():
                faces = render_in_order(renderer, data, seed, split, count=count, batch_size=BATCH, workers=workers)
                with closing(faces):
                    sha256 = _write_split(renderer, faces, count, staging / split, progress)
                splits[split] = {"count": count, "sha256": sha256}
        manifest = {
            "seed": seed,
            "batch": BATCH,
            "image_size": data.image_size,
            "splits": splits,
            "data": data.model_dump(mode="json"),
            "morphable_model_sha256": _model_sha256(model),
            "versions": {name: installed_version(name) for name in ("leanface", "torch", "numpy", "numba")},
        }
        write_json(staging / "manifest.json", manifest)
    return manifest


def _write_split(
    renderer: Renderer, faces: Iterator[RenderedBatch], count: int, folder: Path, progress: "tqdm[Any]"
) -> dict[str, str]:
    """Write one split's files; returns the sha256 of each."""
    folder.mkdir()
    size = renderer.size
    with (
        ArrayWriter(folder / IMAGES, np.uint8, (count, size, size, 3)) as images,
        ArrayWriter(folder / COEFFICIENTS, np.float32, (count, COUNT)) as coefficients,
        ArrayWriter(folder / LANDMARKS, np.float32, (count, 5, 2)) as landmarks,
    ):
        for batch in faces:
            images.append(batch.images.permute(0, 2, 3, 1).numpy())
            coefficients.append(batch.coefficients.numpy())
            landmarks.append(landmarks_image(renderer.model, batch.coefficients, size).numpy())
            progress.update(len(batch.images))
        return {writer.name: writer.sha256() for writer in (images, coefficients, landmarks)}


def prepare_photos(
    names: tuple[str, ...], size: int, folder: Path, template: Float[np.ndarray, "5 2"] = TEMPLATE_224
) -> dict[str, Any]:
    """Find, align and crop one face per photo into `folder`/NAME.png; `template` as in `align`.

    Returns:
        Per photo: the detector's score and the alignment.

    Raises:
        ArtifactError: a photo is missing or shows no face, or `folder` cannot be written.
    """
    detector = FaceDetector()
    found: dict[str, Any] = {}
    with staged(folder, owned=True) as staging:
        for name in names:
            (face,) = crop_faces(load_photo(name), detector, template, size)
            stem = Path(name).stem
            Image.fromarray(face.crop).save(staging / f"{stem}.png")
            found[stem] = {"score": float(face.detection.score), "scale": face.alignment.scale}
    return found


@contextmanager
def _single_threaded_operations() -> Generator[None]:
    """Run each PyTorch operation on one thread: workers fill the cores, and sums do not depend on their number."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _require_space(folder: Path, count: int, size: int) -> None:
    """Refuse a full disk before the work, not in the middle of it."""
    needed, free = count * (3 * size * size + 4 * (COUNT + 10)), shutil.disk_usage(folder).free
    if needed > free:
        raise ArtifactError(
            f"{count} faces of {size} px need {needed / 1e9:.1f} GB, but the disk has {free / 1e9:.1f} GB left; "
            "make room, or lower data.train_count."
        )


def _model_sha256(model: MorphableModel) -> str:
    """Hash the tensors: also of a model that does not come from the packaged file."""
    hasher = hashlib.sha256()
    for name, tensor in model.named_buffers():
        hasher.update(name.encode())
        hasher.update(tensor.cpu().contiguous().numpy().data)
    return hasher.hexdigest()
