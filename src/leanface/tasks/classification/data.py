"""Labeled images on disk: a folder per split."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.utils.data import Dataset

from leanface.config import Samples
from leanface.errors import ArtifactError
from leanface.files import staged, write_json
from leanface.paths import SPLITS
from leanface.task import Batch

IMAGES, LABELS, MANIFEST = "images.npy", "labels.npy", "manifest.json"

IMPOSSIBLE = -1e4
"""Logit of a class that is not the true one: its probability is 0 in float32."""


class Labeled(NamedTuple):
    """Images with their classes: float (N,3,H,W) in [0,1] or uint8, and integers (N,) from 0."""

    images: Any
    labels: Any


class ImageSplit(Dataset[Batch]):
    """One split. A label is given as logits, 0 for the true class and `IMPOSSIBLE` for the others.

    So the divergence of an answer from a label is its cross-entropy, and a label is compared as a teacher's answer is.

    Attributes:
        images: (N,3,H,W) uint8.
        labels: (N,) int64.

    Raises:
        ArtifactError: its files are missing or damaged.
    """

    def __init__(self, folder: Path, classes: int) -> None:
        try:
            self.images: UInt8[np.ndarray, "N 3 H W"] = np.load(folder / IMAGES, mmap_mode="r", allow_pickle=False)
            self.labels: Int[np.ndarray, " N"] = np.load(folder / LABELS, allow_pickle=False)
        except FileNotFoundError as error:
            raise ArtifactError(f"{error.filename} is missing; run `dvc repro prepare`.") from None
        except (ValueError, EOFError) as error:
            raise ArtifactError(f"{folder} holds no samples ({error}); run `dvc repro -f prepare`.") from None
        self.classes = classes

    def __len__(self) -> int:
        return len(self.images)

    @property
    def image_size(self) -> int:
        return int(self.images.shape[2])

    def __getitem__(self, index: int) -> Batch:
        image = np.array(self.images[index])
        key = int.from_bytes(hashlib.blake2b(image.tobytes(), digest_size=8).digest(), "big", signed=True)
        return Batch(_pixels(image), self._logits(slice(index, index + 1))[0], torch.tensor(key))

    def truth(self) -> dict[str, Float[Tensor, "count classes"]]:
        """Return the labels as {"truth": logits}."""
        return {"truth": self._logits(slice(None))}

    def labeled(self, outputs: Tensor) -> Self:
        """Return this split, which has labels."""
        return self

    def head(self, count: int) -> Batch:
        """Return the first `count` samples (or all there are) as one batch."""
        return self._slice(slice(0, count))

    def batches(self, size: int) -> Iterator[Batch]:
        """Yield all samples in order, `size` at a time."""
        return (self._slice(slice(start, start + size)) for start in range(0, len(self), size))

    def _slice(self, which: slice) -> Batch:
        return Batch(_pixels(np.array(self.images[which])), self._logits(which))

    def _logits(self, which: slice) -> Float[Tensor, "count classes"]:
        labels = torch.from_numpy(self.labels[which])
        return torch.full((len(labels), self.classes), IMPOSSIBLE).scatter_(1, labels[:, None], 0.0)


def _pixels(images: UInt8[np.ndarray, "..."]) -> Float[Tensor, "..."]:
    return torch.from_numpy(images).float() / 255.0


def write_splits(splits: dict[str, Labeled], classes: int, data: Samples, seed: int, folder: Path) -> dict[str, int]:
    """Check all splits, write them, and return how many samples each has; nothing is written if one is wrong.

    Raises:
        ArtifactError: a split is missing, or its images or labels are not what they have to be.
    """
    limits = {"train": data.train_count, "val": data.val_count, "test": data.test_count}
    checked = {name: _checked(name, splits.get(name), classes, data.image_size, limits[name]) for name in SPLITS}
    described: dict[str, Any] = {}
    with staged(folder, owned=True) as staging:
        for name, (images, labels) in checked.items():
            (staging / name).mkdir()
            np.save(staging / name / IMAGES, images)
            np.save(staging / name / LABELS, labels)
            digest = hashlib.sha256((staging / name / IMAGES).read_bytes()).hexdigest()
            described[name] = {"count": len(labels), "sha256": {IMAGES: digest}}
        write_json(staging / MANIFEST, {"image_size": data.image_size, "seed": seed, "splits": described})
    return {name: len(labels) for name, (_, labels) in checked.items()}


def _checked(
    name: str, split: Labeled | None, classes: int, size: int, limit: int | None
) -> tuple[UInt8[np.ndarray, "N 3 H W"], Int[np.ndarray, " N"]]:
    if split is None:
        raise ArtifactError(f"samples() has no split {name!r}; it must return train, val and test.")
    images, labels = np.asarray(split[0]), np.asarray(split[1])
    wanted = f"float images (N,3,{size},{size}) in [0,1], or uint8"
    if images.ndim != 4 or images.shape[1:] != (3, size, size) or not len(images):
        raise ArtifactError(f"the images of split {name} have shape {images.shape}; expected {wanted}.")
    if images.dtype != np.uint8:
        if not np.issubdtype(images.dtype, np.floating) or not np.isfinite(images).all():
            what = "NaN or infinity" if np.issubdtype(images.dtype, np.floating) else f"type {images.dtype}"
            raise ArtifactError(f"the images of split {name} have {what}; expected {wanted}.")
        if images.min() < 0 or images.max() > 1:
            raise ArtifactError(
                f"the images of split {name} go from {images.min():.3g} to {images.max():.3g}; expected {wanted}."
            )
        images = (images * 255).round().astype(np.uint8)
    if labels.shape != (len(images),) or not np.issubdtype(labels.dtype, np.integer):
        raise ArtifactError(
            f"the labels of split {name} are {labels.dtype} {labels.shape}; expected integers ({len(images)},)."
        )
    if labels.min() < 0 or labels.max() >= classes:
        raise ArtifactError(
            f"the labels of split {name} go from {labels.min()} to {labels.max()}; expected 0 to {classes - 1}."
        )
    return images[:limit], labels[:limit].astype(np.int64)
