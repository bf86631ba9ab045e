"""Batches for training: prepared faces from disk, or faces rendered on the device as training goes."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from pytorch_lightning import LightningDataModule
from torch.utils.data import DataLoader, IterableDataset

from leanface.config import Data
from leanface.data.dataset import FaceBatch, FaceDataset, collate
from leanface.data.synthesis import render_faces, sample_coefficients, seed_of
from leanface.face.morphable_model import load_morphable_model
from leanface.face.render import Renderer
from leanface.paths import PACKAGED_MORPHABLE_MODEL, SPLITS


@dataclass(frozen=True)
class Stream:
    """Endless rendered faces instead of the train split; every batch takes one of the sizes in turn."""

    data: Data
    image_sizes: tuple[int, ...]
    device: torch.device
    first_batch: int = 0
    """Number of the first batch: a resumed training does not see the same faces again."""
    morphable_model: Path = PACKAGED_MORPHABLE_MODEL


class StreamedFaces(IterableDataset[FaceBatch]):
    """Whole batches, rendered where training runs; batch n depends on the seed and n alone."""

    def __init__(self, stream: Stream, batch_size: int, seed: int) -> None:
        self.stream = stream
        self.batch_size = batch_size
        self.seed = seed

    def __iter__(self) -> Iterator[FaceBatch]:
        stream = self.stream
        model = load_morphable_model(stream.morphable_model).to(stream.device)
        renderers = [Renderer(model, size, stream.data.supersample) for size in stream.image_sizes]
        generator = torch.Generator(stream.device)
        number = stream.first_batch
        while True:
            generator.manual_seed(seed_of(self.seed, number))
            coefficients = sample_coefficients(
                model,
                self.batch_size,
                generator,
                yaw_max_rad=stream.data.yaw_max_rad,
                clip=stream.data.coefficient_clip,
            )
            renderer = renderers[number % len(renderers)]
            yield FaceBatch(render_faces(renderer, coefficients, generator, stream.data.augment), coefficients)
            number += 1


class FaceDataModule(LightningDataModule):
    """Train and validation batches of `folder`.

    Args:
        stream: training batches are rendered instead.
        val: takes the place of the val split (say, with a network's answers for labels).
    """

    def __init__(
        self, folder: Path, batch_size: int, seed: int, stream: Stream | None = None, val: FaceDataset | None = None
    ) -> None:
        super().__init__()
        self.folder = folder
        self.batch_size = batch_size
        self.seed = seed
        self.stream = stream
        self.val = val

    def train_dataloader(self) -> DataLoader[FaceBatch]:
        if self.stream is not None:
            return DataLoader(StreamedFaces(self.stream, self.batch_size, self.seed), batch_size=None)
        faces = FaceDataset(self.folder / SPLITS[0])
        generator = torch.Generator().manual_seed(self.seed)
        return DataLoader(
            faces,
            batch_size=min(self.batch_size, len(faces)),
            shuffle=True,
            drop_last=True,
            generator=generator,
            collate_fn=collate,
        )

    def val_dataloader(self) -> DataLoader[FaceBatch]:
        val = self.val or FaceDataset(self.folder / SPLITS[1])
        return DataLoader(val, batch_size=self.batch_size, collate_fn=collate)
