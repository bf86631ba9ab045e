"""Batches of labeled images to train on."""

from collections.abc import Iterator

import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader

from leanface.task import Batch
from leanface.tasks.classification.data import ImageSplit


class ImageData(LightningDataModule):
    """Batches of the train split, in an order that the seed gives, and of the val split."""

    streamed = False

    def __init__(self, train: ImageSplit, val: ImageSplit, batch_size: int, seed: int) -> None:
        super().__init__()
        self.train, self.val, self.batch_size, self.seed = train, val, batch_size, seed

    def train_dataloader(self) -> DataLoader[Batch]:
        done = self.trainer.global_step if self.trainer else 0
        return DataLoader(
            self.train,
            batch_size=min(self.batch_size, len(self.train)),
            shuffle=True,
            drop_last=True,
            # In an order of its own if some steps are done already: a resumed training begins an epoch.
            generator=torch.Generator().manual_seed(self.seed + done),
        )

    def val_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(self.val, batch_size=self.batch_size)

    def statistics_images(self) -> Iterator[Tensor]:
        """Yield nothing: only streamed data need it."""
        return iter(())
