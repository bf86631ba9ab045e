"""A user's own photos as data."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from leanface.config import PhotoFolder
from leanface.errors import ArtifactError
from leanface.photos.alignment import TEMPLATE_224
from leanface.photos.load import PACKAGED_PHOTOS, load_photo
from leanface.synthesis.datamodule import FaceDataModule
from leanface.synthesis.dataset import FaceDataset
from leanface.synthesis.folder import prepare_folder
from leanface.synthesis.prepare import prepare_photos
from tests.file_trees import manifest_of

SPLITS = ("train", "val", "test")


def source(path: Path, faces: str = "largest") -> PhotoFolder:
    return PhotoFolder.model_validate({"path": str(path), "faces": faces, "val_share": 0.2, "test_share": 0.2})


@pytest.fixture(scope="module")
def photos(photo_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve good photos, and files that are none."""
    folder = tmp_path_factory.mktemp("mixed")
    shutil.copytree(photo_folder, folder, dirs_exist_ok=True)
    Image.new("RGB", (200, 200), "green").save(folder / "nobody.png")
    (folder / "broken.JPG").write_bytes(b"\xff\xd8 torn")
    (folder / "notes.txt").write_text("not a photo")
    shutil.copy(folder / "astronaut" / "plain.png", folder / "copy.png")
    return folder


@pytest.fixture(scope="module")
def faces(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("folder") / "faces"
    prepare_folder(source(photos), 64, TEMPLATE_224, folder)
    return folder


def test_every_good_photo_is_in_one_split(faces: Path) -> None:
    splits = manifest_of(faces)["splits"]
    names = [{face["photo"] for face in splits[split]["faces"]} for split in SPLITS]
    assert [len(group) for group in names] == [8, 2, 2]
    assert len(set.union(*names)) == 12
    assert [len(FaceDataset(faces / split)) for split in SPLITS] == [8, 2, 2]
    assert all(face["score"] > 0.9 for split in SPLITS for face in splits[split]["faces"])


def test_photos_that_are_left_out_are_listed_with_the_reason(faces: Path) -> None:
    skipped = manifest_of(faces)["skipped"]
    assert set(skipped) == {"nobody.png", "broken.JPG", "copy.png"}
    assert "no face" in skipped["nobody.png"]
    assert "cannot read" in skipped["broken.JPG"]
    assert "the same file as astronaut/plain.png" in skipped["copy.png"]


def test_the_crops_are_those_of_the_one_preprocessing(faces: Path, tmp_path: Path) -> None:
    prepare_photos(tuple(PACKAGED_PHOTOS), 64, tmp_path / "photos")
    for name in PACKAGED_PHOTOS:
        expected = np.asarray(Image.open(tmp_path / "photos" / f"{name}.png"))
        (crop,) = (
            FaceDataset(faces / split).images[row]
            for split in SPLITS
            for row, face in enumerate(manifest_of(faces)["splits"][split]["faces"])
            if face["photo"] == f"{name}/plain.png"
        )
        assert np.array_equal(crop, expected)


def test_names_do_not_decide_the_split(photos: Path, faces: Path, tmp_path: Path) -> None:
    renamed = tmp_path / "renamed"
    renamed.mkdir()
    for number, path in enumerate(sorted(photos.rglob("*/*.png"), reverse=True)):
        shutil.copy(path, renamed / f"{number}.png")
    again = prepare_folder(source(renamed), 64, TEMPLATE_224, tmp_path / "faces")
    assert again["skipped"] == {}
    for split in SPLITS:
        pictures = [{image.tobytes() for image in FaceDataset(at / split).images} for at in (faces, tmp_path / "faces")]
        assert pictures[0] == pictures[1]


def test_too_few_faces_and_no_photos_are_refused_and_leave_nothing(faces: Path, tmp_path: Path) -> None:
    few = tmp_path / "few"
    few.mkdir()
    with pytest.raises(ArtifactError, match="holds no photos"):
        prepare_folder(source(tmp_path / "nowhere"), 64, TEMPLATE_224, tmp_path / "faces")
    with pytest.raises(ArtifactError, match="holds no photos"):
        prepare_folder(source(few), 64, TEMPLATE_224, tmp_path / "faces")
    Image.fromarray(load_photo("astronaut")).save(few / "one.png")
    Image.new("RGB", (100, 100)).save(few / "nobody.png")
    with pytest.raises(ArtifactError, match=r"only 1 photos .* 1 were left out"):
        prepare_folder(source(few), 64, TEMPLATE_224, tmp_path / "faces")
    assert {entry.name for entry in tmp_path.iterdir()} == {"few"}
    assert {entry.name for entry in faces.iterdir()} == {*SPLITS, "manifest.json"}


def test_without_labels_batches_hold_images_alone(faces: Path) -> None:
    train, val = (FaceDataset(faces / split) for split in ("train", "val"))
    assert train.truth() == {}
    assert train.head(3).targets is None
    batch = next(iter(FaceDataModule(faces, 4, 0).train_dataloader()))
    assert batch.images.shape == (4, 3, 64, 64)
    assert batch.targets is None

    answers = torch.rand(2, 257)
    labeled = val.labeled(answers)
    (batch,) = FaceDataModule(faces, 4, 0, val=labeled).val_dataloader()
    assert torch.equal(batch.targets, answers)
    assert val.coefficients is None
    assert labeled.labeled(torch.zeros(2, 257)) is labeled
