"""Prepared faces on disk."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from leanface.config import Data
from leanface.data.datamodule import FaceDataModule, Stream, StreamedFaces
from leanface.data.dataset import FaceDataset, load_photos
from leanface.data.prepare import prepare_faces, prepare_photos
from leanface.errors import ArtifactError
from leanface.face.coefficients import IDENTITY
from leanface.face.morphable_model import MorphableModel

DATA = Data(
    image_size=64,
    train_count=40,
    val_count=6,
    test_count=5,
    images_per_identity=2,
    supersample=1,
    yaw_max_rad=0.6,
    coefficient_clip=2.0,
    augment=1.0,
    photos=("astronaut",),
)


@pytest.fixture(scope="module")
def faces(model: MorphableModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prepared") / "faces"
    prepare_faces(model, DATA, 0, folder)
    return folder


def test_splits_have_their_counts_and_no_identity_in_common(faces: Path) -> None:
    splits = {name: FaceDataset(faces / name) for name in ("train", "val", "test")}
    assert [len(split) for split in splits.values()] == [40, 6, 5]
    people = [{tuple(row) for row in split.coefficients[:, IDENTITY].tolist()} for split in splits.values()]
    assert [len(group) for group in people] == [20, 3, 3]
    assert not people[0] & people[1]
    assert not people[0] & people[2]
    assert not people[1] & people[2]


def test_the_same_seed_gives_the_same_bytes_whatever_the_count(
    model: MorphableModel, faces: Path, tmp_path: Path
) -> None:
    again = prepare_faces(model, DATA.model_copy(update={"train_count": 33}), 0, tmp_path / "faces")
    assert again["splits"]["val"]["sha256"] == prepare_manifest(faces)["splits"]["val"]["sha256"]
    few, many = FaceDataset(tmp_path / "faces" / "train"), FaceDataset(faces / "train")
    assert np.array_equal(few.images[:32], many.images[:32])


def prepare_manifest(folder: Path) -> dict[str, dict[str, dict[str, dict[str, str]]]]:
    return json.loads((folder / "manifest.json").read_text())


def test_an_interrupted_run_leaves_the_earlier_faces(
    model: MorphableModel, faces: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (faces / "manifest.json").read_bytes()

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("leanface.data.prepare.render_faces", interrupt)
    with pytest.raises(KeyboardInterrupt):
        prepare_faces(model, DATA, 1, faces)
    assert (faces / "manifest.json").read_bytes() == before
    assert [entry.name for entry in faces.parent.iterdir()] == ["faces"]


def test_samples_batches_and_heads_are_the_same_faces(faces: Path) -> None:
    dataset = FaceDataset(faces / "val")
    whole = torch.cat([batch.images for batch in dataset.batches(4)])
    assert torch.equal(whole, dataset.head(100).images)
    assert torch.equal(dataset[5].images, whole[5])
    assert torch.equal(dataset[5].coefficients, dataset.head(6).coefficients[5])
    assert whole.shape == (6, 3, 64, 64)


def test_missing_and_torn_splits_are_refused(faces: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="dvc repro"):
        FaceDataset(tmp_path)
    np.save(tmp_path / "images.npy", np.zeros((3, 64, 64, 3), np.uint8))
    np.save(tmp_path / "coefficients.npy", np.zeros((2, 257), np.float32))
    with pytest.raises(ArtifactError, match="3 images but 2"):
        FaceDataset(tmp_path)


def test_photos_are_cropped_and_a_photo_without_a_face_is_refused(tmp_path: Path) -> None:
    found = prepare_photos(("astronaut",), 64, tmp_path / "photos")
    assert found["astronaut"]["score"] > 0.9
    assert load_photos(tmp_path / "photos")["astronaut"].shape == (3, 64, 64)
    with pytest.raises(ArtifactError):
        prepare_photos(("nobody.png",), 64, tmp_path / "photos")
    assert set(load_photos(tmp_path / "photos")) == {"astronaut"}


def test_streamed_batches_depend_on_seed_and_number_alone() -> None:
    def batch(number: int, seed: int) -> torch.Tensor:
        stream = Stream(DATA, (64, 80), torch.device("cpu"), first_batch=number)
        return next(iter(StreamedFaces(stream, 2, seed))).images

    assert torch.equal(batch(3, 0), batch(3, 0))
    assert not torch.equal(batch(3, 0), batch(5, 0))
    assert not torch.equal(batch(3, 0), batch(3, 1))
    assert batch(2, 0).shape[-1] == 64
    assert batch(3, 0).shape[-1] == 80


def test_training_batches_are_shuffled_the_same_way_for_a_seed(faces: Path) -> None:
    first, second = (next(iter(FaceDataModule(faces, 8, 0).train_dataloader())) for _ in range(2))
    assert torch.equal(first.images, second.images)
    other = next(iter(FaceDataModule(faces, 8, 1).train_dataloader()))
    assert not torch.equal(first.images, other.images)
