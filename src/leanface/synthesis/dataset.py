"""Prepared faces on disk: a memory-mapped folder per split with images and, if labeled, coefficients and landmarks."""

import copy
import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Self

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from leanface.errors import ArtifactError
from leanface.paths import PHOTOS
from leanface.photos.alignment import to_input
from leanface.task import Batch

IMAGES = "images.npy"
COEFFICIENTS = "coefficients.npy"
LANDMARKS = "landmarks.npy"


class FaceDataset(Dataset[Batch]):
    """One split; its arrays are memory-mapped, so that opening it costs nothing.

    Attributes:
        images: (N,H,W,3) uint8.
        coefficients: (N,257) float32; changes stay in memory.
        landmarks: (N,5,2) float32, see `leanface.face.landmarks`; changes stay in memory.

    Raises:
        ArtifactError: its files are missing or do not belong together.
    """

    def __init__(self, folder: Path) -> None:
        try:
            self.images: np.ndarray = np.load(folder / IMAGES, mmap_mode="r", allow_pickle=False)
            self.coefficients: np.ndarray | None = None
            self.landmarks: np.ndarray | None = None
            if (folder / COEFFICIENTS).exists():  # photos have no labels
                # PyTorch cannot share arrays that may not be written.
                self.coefficients = np.load(folder / COEFFICIENTS, mmap_mode="c", allow_pickle=False)
                self.landmarks = np.load(folder / LANDMARKS, mmap_mode="c", allow_pickle=False)
        except FileNotFoundError as error:
            raise ArtifactError(f"{error.filename} is missing; run `dvc repro prepare`.") from None
        except (ValueError, EOFError) as error:
            raise ArtifactError(f"{folder} holds no prepared faces ({error}); run `dvc repro -f prepare`.") from None
        labels = [len(array) for array in (self.coefficients, self.landmarks) if array is not None]
        if any(count != len(self.images) for count in labels):
            raise ArtifactError(
                f"{folder}: {len(self.images)} images but labels of {' and '.join(map(str, labels))}; "
                "run `dvc repro -f prepare`."
            )

    def __len__(self) -> int:
        return len(self.images)

    @property
    def image_size(self) -> int:
        return int(self.images.shape[1])

    def __getitem__(self, index: int) -> Batch:
        image = np.array(self.images[index])
        key = int.from_bytes(hashlib.blake2b(image.tobytes(), digest_size=8).digest(), "big", signed=True)
        labels = None if self.coefficients is None else torch.from_numpy(self.coefficients[index])
        return Batch(torch.from_numpy(to_input(image)), labels, torch.tensor(key))

    def truth(self) -> dict[str, Float[Tensor, "count 257"]]:
        """Return the labels as {"truth": labels}; without labels {}."""
        return {} if self.coefficients is None else {"truth": torch.from_numpy(self.coefficients)}

    def labeled(self, outputs: Float[Tensor, "count 257"]) -> Self:
        """Return this split if it has labels, else one whose labels are a network's outputs."""
        if self.coefficients is not None:
            return self
        other = copy.copy(self)
        other.coefficients = outputs.numpy()
        return other

    def slice(self, start: int, stop: int) -> Batch:
        """Return samples start to stop - 1 as one batch."""
        images = torch.from_numpy(np.array(self.images[start:stop])).permute(0, 3, 1, 2)
        labels = None if self.coefficients is None else torch.from_numpy(self.coefficients[start:stop].copy())
        return Batch(images.contiguous().float() / 255.0, labels)

    def head(self, count: int) -> Batch:
        """Return the first `count` samples (or all there are) as one batch."""
        return self.slice(0, min(count, len(self)))

    def batches(self, size: int) -> Iterator[Batch]:
        """Yield all samples in order, `size` at a time."""
        for start in range(0, len(self), size):
            yield self.slice(start, min(start + size, len(self)))


def collate(samples: list[Batch]) -> Batch:
    """Join single samples to a batch; each part is there for all of them or for none."""
    images, labels, keys = zip(*samples, strict=True)
    return Batch(torch.stack(images), _stacked(labels), _stacked(keys))


def _stacked(parts: Iterable[Tensor | None]) -> Tensor | None:
    present = [part for part in parts if part is not None]
    return torch.stack(present) if present else None


def load_photos(folder: Path = PHOTOS) -> dict[str, Float[Tensor, "3 size size"]]:
    """Return the aligned photos that stage prepare left, by name.

    Raises:
        ArtifactError: there are none.
    """
    files = sorted(folder.glob("*.png"))
    if not files:
        raise ArtifactError(f"{folder} holds no aligned photos; run `dvc repro prepare`.")
    return {file.stem: torch.as_tensor(to_input(np.asarray(Image.open(file).convert("RGB")))) for file in files}
