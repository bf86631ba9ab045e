"""Batches for training: prepared faces from disk, or faces rendered on the device as training goes."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import UInt8
from pytorch_lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from leanface.config import Data
from leanface.face.morphable_model import load_morphable_model
from leanface.face.render import Renderer
from leanface.paths import PACKAGED_MORPHABLE_MODEL, SPLITS
from leanface.synthesis.batches import BatchRenderer
from leanface.synthesis.dataset import FaceDataset, collate
from leanface.synthesis.synthesis import seed_of
from leanface.task import Batch

TRAIN, VALIDATION, _ = SPLITS

STATISTICS_BATCHES = 8
"""Batches on which batch norms are measured."""


@dataclass(frozen=True)
class Stream:
    """Endless rendered faces instead of the train split; every step takes one of the sizes in turn."""

    data: Data
    image_sizes: tuple[int, ...]
    device: torch.device
    morphable_model: Path = PACKAGED_MORPHABLE_MODEL

    def renderers(self, sizes: Iterable[int], seed: int, batch_size: int) -> dict[int, BatchRenderer]:
        """Return what draws batches of each size."""
        model = load_morphable_model(self.morphable_model).to(self.device)
        supersample = self.data.supersample
        return {
            size: BatchRenderer(Renderer(model, size, supersample), self.data, seed, TRAIN, batch_size)
            for size in sizes
        }

    def statistics_images(self, size: int, seed: int, batch_size: int) -> Iterator[UInt8[Tensor, "batch 3 size size"]]:
        """Yield rendered faces that no step takes, on which batch norms are measured."""
        draw = self.renderers([size], seed_of(seed, 1), batch_size)[size]
        return (draw(number).images for number in range(STATISTICS_BATCHES))


class StreamedFaces(IterableDataset[Batch]):
    """Whole batches, rendered where training runs.

    They are the batches of which stage prepare writes the first ones: for the same seed, size and number of faces per
    batch, the same images.

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

    def __iter__(self) -> Iterator[Batch]:
        stream = self.stream
        renderers = stream.renderers(stream.image_sizes, self.seed, self.batch_size)

        def draw(step: int) -> Batch:
            size = stream.image_sizes[step % len(stream.image_sizes)]
            batch = renderers[size](step * self.world_size + self.rank)
            return Batch(batch.images.float() / 255.0, batch.coefficients)

        steps = count(self.first)
        if stream.device.type != "cuda":
            yield from map(draw, steps)
            return
        # One batch ahead, on a stream of its own: rendering fills the gaps that training leaves.
        training, beside = torch.cuda.current_stream(stream.device), torch.cuda.Stream(stream.device)
        ahead: list[Batch] = []
        for step in steps:
            training.wait_stream(beside)
            with torch.cuda.stream(beside):
                ahead.append(draw(step))
            if len(ahead) > 1:
                ready = ahead.pop(0)
                for tensor in ready:
                    if tensor is not None:
                        tensor.record_stream(training)
                yield ready


class ShrunkBatches(IterableDataset[Batch]):
    """Batches as a loader gives them, and then once more at each of some smaller sizes."""

    def __init__(self, loader: DataLoader[Batch], image_sizes: Iterable[int]) -> None:
        self.loader, self.image_sizes = loader, tuple(image_sizes)

    def __iter__(self) -> Iterator[Batch]:
        yield from self.loader
        for size in self.image_sizes:
            for batch in self.loader:
                images = F.interpolate(batch.images, (size, size), mode="bilinear", antialias=True)
                yield Batch(images, batch.targets)


class FaceDataModule(LightningDataModule):
    """Train and validation batches of `folder`.

    Args:
        batch_size: of a step, over all devices.
        stream: training batches are rendered instead. Its sizes below that of the prepared faces are validated as well,
            on the same faces made smaller: else the weights that are best for one size would be kept.
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

    @property
    def streamed(self) -> bool:
        """Whether faces are rendered as training goes."""
        return self.stream is not None

    def train_dataloader(self) -> DataLoader[Batch]:
        trainer = self.trainer
        done, rank, world_size = (
            (trainer.global_step, trainer.global_rank, trainer.world_size) if trainer else (0, 0, 1)
        )
        batch_size = self.batch_size // world_size
        if self.stream is not None:
            faces = StreamedFaces(self.stream, batch_size, self.seed, done, rank, world_size)
            return DataLoader(faces, batch_size=None)
        faces = FaceDataset(self.folder / TRAIN)
        return DataLoader(
            faces,
            batch_size=min(batch_size, len(faces)),
            shuffle=True,
            drop_last=True,
            # In an order of its own if some steps are done already: a resumed training begins an epoch.
            generator=torch.Generator().manual_seed(seed_of(self.seed, done)),
            collate_fn=collate,
        )

    def statistics_images(self) -> Iterator[UInt8[Tensor, "batch 3 size size"]]:
        """Yield rendered faces of the prepared faces' size that no step takes, the same on every device."""
        assert self.stream is not None
        return self.stream.statistics_images(self.stream.data.image_size, self.seed, self.batch_size)

    def val_dataloader(self) -> DataLoader[Batch]:
        val = self.val or FaceDataset(self.folder / VALIDATION)
        loader: DataLoader[Batch] = DataLoader(val, batch_size=self.batch_size, collate_fn=collate)
        sizes = set(self.stream.image_sizes) if self.stream is not None else set[int]()
        smaller = sorted(size for size in sizes if size < val.image_size)
        return DataLoader(ShrunkBatches(loader, smaller), batch_size=None) if smaller else loader
