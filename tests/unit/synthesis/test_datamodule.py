"""Training batches, from disk and streamed."""

from itertools import islice
from pathlib import Path

import pytest
import torch

from leanface.synthesis.datamodule import FaceDataModule, Stream, StreamedFaces
from leanface.synthesis.dataset import FaceDataset
from leanface.synthesis.prepare import BATCH
from leanface.task import Batch
from tests.settings import DATA

CPU = torch.device("cpu")
STEPS = 2


def streamed(seed: int = 0, first: int = 0, sizes: tuple[int, ...] = (64, 80), count: int = 1) -> list[Batch]:
    return list(islice(StreamedFaces(Stream(DATA, sizes, CPU), 2, seed, first), count))


def equal(first: Batch, second: Batch) -> bool:
    return torch.equal(first.images, second.images) and torch.equal(first.targets, second.targets)


def test_streamed_and_stored_faces_are_the_same(faces: Path) -> None:
    stored = FaceDataset(faces / "train")
    stream = iter(StreamedFaces(Stream(DATA, (64,), CPU), BATCH, seed=0))
    assert equal(next(stream), stored.slice(0, BATCH))
    rest = len(stored) - BATCH
    images, coefficients, _ = next(stream)
    assert equal(Batch(images[:rest], coefficients[:rest]), stored.slice(BATCH, len(stored)))


def test_streamed_batches_depend_on_seed_and_number_alone() -> None:
    third, _, fifth = streamed(first=3, count=3)  # third and fifth are of one size
    assert equal(third, streamed(first=1, count=3)[2])
    assert not equal(third, fifth)
    assert not equal(third, *streamed(first=3, seed=1))


def test_steps_take_the_sizes_in_turn() -> None:
    assert [batch.images.shape[-1] for batch in streamed(first=2, count=3)] == [64, 80, 64]


def test_devices_that_train_together_share_out_the_batches() -> None:
    alone, stream = streamed(sizes=(64,), count=2 * STEPS), Stream(DATA, (64,), CPU)
    for rank in range(2):
        faces = islice(StreamedFaces(stream, 2, seed=0, rank=rank, world_size=2), STEPS)
        for step, batch in enumerate(faces):
            assert equal(batch, alone[2 * step + rank])


def test_training_batches_are_shuffled_the_same_way_for_a_seed(faces: Path) -> None:
    first, second = (next(iter(FaceDataModule(faces, 8, 0).train_dataloader())) for _ in range(2))
    assert equal(first, second)
    assert not equal(first, next(iter(FaceDataModule(faces, 8, 1).train_dataloader())))


def test_validation_batches_are_the_val_split_in_order(faces: Path) -> None:
    batches = list(FaceDataModule(faces, 4, 0).val_dataloader())
    assert torch.equal(torch.cat([batch.images for batch in batches]), FaceDataset(faces / "val").head(6).images)


def test_streams_of_several_sizes_are_validated_at_the_smaller_ones_as_well(faces: Path) -> None:
    val = FaceDataset(faces / "val").head(6)
    loader = FaceDataModule(faces, 4, 0, Stream(DATA, (64, 32, 64, 80), CPU)).val_dataloader()
    batches = list(loader)
    assert [batch.images.shape[-1] for batch in batches] == [64, 64, 32, 32]
    for half in (batches[:2], batches[2:]):
        assert torch.equal(torch.cat([batch.targets for batch in half]), val.targets)
    shrunk = torch.cat([batch.images for batch in batches[2:]])
    assert (shrunk - torch.nn.functional.avg_pool2d(val.images, 2)).abs().mean() < 0.03
    assert shrunk.mean() == pytest.approx(float(val.images.mean()), abs=1e-3)


def test_keys_name_stored_images_by_their_contents(faces: Path, tmp_path: Path) -> None:
    train, val = (FaceDataset(faces / split) for split in ("train", "val"))
    keys = [int(train[index].keys) for index in range(len(train))] + [int(val[index].keys) for index in range(len(val))]
    assert len(set(keys)) == len(train) + len(val)
    assert keys[: len(train)] == [int(FaceDataset(faces / "train")[index].keys) for index in range(len(train))]
    (batch, *_) = FaceDataModule(faces, 8, 0).train_dataloader()
    assert set(batch.keys.tolist()) <= set(keys[: len(train)])
    assert streamed()[0].keys is None
