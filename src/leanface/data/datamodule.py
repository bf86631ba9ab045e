"""Batches for training: prepared faces from disk, or faces rendered on the device as training goes."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import torch
import torch.distributed
from pytorch_lightning import LightningDataModule
from torch.utils.data import DataLoader, IterableDataset

from leanface.config import Data
from leanface.data.batches import render_batch
from leanface.data.dataset import FaceBatch, FaceDataset
from leanface.face.morphable_model import load_morphable_model
from leanface.face.render import Renderer
from leanface.paths import SPLITS

TRAIN, VALIDATION, _ = SPLITS


@dataclass(frozen=True)
class Stream:
    """Endless rendered faces instead of the train split; every step takes one of the sizes in turn."""

    data: Data
    image_sizes: tuple[int, ...]
    device: torch.device
    first_batch: int = 0
    """Steps already done: a resumed training does not see the same faces again."""


class StreamedFaces(IterableDataset[FaceBatch]):
    """Whole batches, rendered where training runs.

    They are the batches of which stage prepare writes the first ones: for the same seed, size and number of faces per
    batch, the same images. Of several processes that train together, each renders its own.
    """

    def __init__(self, stream: Stream, batch_size: int, seed: int) -> None:
        self.stream = stream
        self.batch_size = batch_size
        self.seed = seed

    def __iter__(self) -> Iterator[FaceBatch]:
        stream = self.stream
        rank, world_size = _rank_and_world_size()
        model = load_morphable_model().to(stream.device)
        renderers = [Renderer(model, size, stream.data.supersample) for size in stream.image_sizes]
        for step in count(stream.first_batch):
            renderer, number = renderers[step % len(renderers)], step * world_size + rank
            batch = render_batch(renderer, stream.data, self.seed, TRAIN, number, self.batch_size)
            yield FaceBatch(batch.images.float() / 255.0, batch.coefficients)


def _rank_and_world_size() -> tuple[int, int]:
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return 0, 1
    return torch.distributed.get_rank(), torch.distributed.get_world_size()


class FaceDataModule(LightningDataModule):
    """Train and validation batches of `folder`; with `stream`, training batches are rendered instead."""

    def __init__(self, folder: Path, batch_size: int, seed: int, stream: Stream | None = None) -> None:
        super().__init__()
        self.folder = folder
        self.batch_size = batch_size
        self.seed = seed
        self.stream = stream

    def train_dataloader(self) -> DataLoader[FaceBatch]:
        if self.stream is not None:
            return DataLoader(StreamedFaces(self.stream, self.batch_size, self.seed), batch_size=None)
        faces = FaceDataset(self.folder / TRAIN)
        generator = torch.Generator().manual_seed(self.seed)
        return DataLoader(
            faces,
            batch_size=min(self.batch_size, len(faces)),
            shuffle=True,
            drop_last=True,
            generator=generator,
        )

    def val_dataloader(self) -> DataLoader[FaceBatch]:
        return DataLoader(FaceDataset(self.folder / VALIDATION), batch_size=self.batch_size)
