"""Batches for training: prepared faces from disk, or faces rendered on the device as training goes."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from pytorch_lightning import LightningDataModule
from torch.utils.data import DataLoader, IterableDataset

from leanface.config import Data
from leanface.data.dataset import FaceBatch, FaceDataset
from leanface.data.synthesis import render_faces, sample_coefficients, seed_of
from leanface.face.morphable_model import load_morphable_model
from leanface.face.render import Renderer
from leanface.paths import SPLITS


@dataclass(frozen=True)
class Stream:
    """Endless rendered faces instead of the train split; every batch takes one of the sizes in turn."""

    data: Data
    image_sizes: tuple[int, ...]
    device: torch.device


class StreamedFaces(IterableDataset[FaceBatch]):
    """Whole batches, rendered where training runs; batch n depends on the seed and n alone.

    Args:
        first: number of the first batch of each device; a resumed training does not see the same faces again.
        rank: of `world_size` devices, each of which renders batches of its own.
    """

    def __init__(
        self, stream: Stream, batch_size: int, seed: int, first: int = 0, rank: int = 0, world_size: int = 1
    ) -> None:
        self.stream = stream
        self.batch_size = batch_size
        self.seed = seed
        self.first, self.rank, self.world_size = first, rank, world_size

    def __iter__(self) -> Iterator[FaceBatch]:
        stream = self.stream
        model = load_morphable_model().to(stream.device)
        renderers = [Renderer(model, size, stream.data.supersample) for size in stream.image_sizes]
        generator = torch.Generator(stream.device)
        for number in itertools.count(self.first):
            generator.manual_seed(seed_of(self.seed, number * self.world_size + self.rank))
            coefficients = sample_coefficients(
                model,
                self.batch_size,
                generator,
                yaw_max_rad=stream.data.yaw_max_rad,
                clip=stream.data.coefficient_clip,
            )
            renderer = renderers[number % len(renderers)]
            yield FaceBatch(render_faces(renderer, coefficients, generator, stream.data.augment), coefficients)


class FaceDataModule(LightningDataModule):
    """Train and validation batches of `folder`; with `stream`, training batches are rendered instead.

    Args:
        batch_size: of a step, over all devices.
    """

    def __init__(self, folder: Path, batch_size: int, seed: int, stream: Stream | None = None) -> None:
        super().__init__()
        self.folder = folder
        self.batch_size = batch_size
        self.seed = seed
        self.stream = stream

    def train_dataloader(self) -> DataLoader[FaceBatch]:
        trainer = self.trainer
        done, rank, world_size = (trainer.global_step, trainer.global_rank, trainer.world_size) if trainer else (0, 0, 1)
        batch_size = self.batch_size // world_size
        if self.stream is not None:
            faces = StreamedFaces(self.stream, batch_size, self.seed, done, rank, world_size)
            return DataLoader(faces, batch_size=None)
        faces = FaceDataset(self.folder / SPLITS[0])
        return DataLoader(
            faces,
            batch_size=min(batch_size, len(faces)),
            shuffle=True,
            drop_last=True,
            # In an order of its own if some steps are done already: a resumed training begins an epoch.
            generator=torch.Generator().manual_seed(seed_of(self.seed, done)),
        )

    def val_dataloader(self) -> DataLoader[FaceBatch]:
        return DataLoader(FaceDataset(self.folder / SPLITS[1]), batch_size=self.batch_size)
