"""Prepared faces on disk."""

import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from leanface import paths
from leanface.cli import main
from leanface.config import Data
from leanface.errors import ArtifactError
from leanface.face.camera import camera_from_model, image_from_camera
from leanface.face.coefficients import IDENTITY, split
from leanface.face.morphable_model import MorphableModel
from leanface.face.render import Renderer
from leanface.synthesis.batches import render_batch
from leanface.synthesis.dataset import COEFFICIENTS, IMAGES, LANDMARKS, FaceDataset, load_photos
from leanface.synthesis.prepare import prepare_faces, prepare_photos
from tests.file_trees import manifest_of
from tests.settings import DATA


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
    assert again["splits"]["val"]["sha256"] == manifest_of(faces)["splits"]["val"]["sha256"]
    few, many = FaceDataset(tmp_path / "faces" / "train"), FaceDataset(faces / "train")
    assert np.array_equal(few.images[:32], many.images[:32])


def test_the_manifest_says_how_to_render_the_same_again(model: MorphableModel, faces: Path) -> None:
    manifest = manifest_of(faces)
    data = Data.model_validate(manifest["data"])
    assert data == DATA
    assert {"leanface", "torch", "numpy"} <= manifest["versions"].keys()
    again = render_batch(Renderer(model, 64), data, manifest["seed"], "test", 0, manifest["batch"])
    test = FaceDataset(faces / "test")
    assert np.array_equal(test.images, again.images[:5].permute(0, 2, 3, 1))
    assert np.array_equal(test.coefficients, again.coefficients[:5])


def test_landmarks_are_where_the_vertices_are_seen(model: MorphableModel, faces: Path) -> None:
    train = FaceDataset(faces / "train")
    parts = split(torch.from_numpy(train.coefficients))
    vertices = camera_from_model(model.vertices(parts.identity, parts.expression), parts.angles_rad, parts.translation)
    seen = image_from_camera(vertices, 64)[:, model.landmarks, :2]
    np.testing.assert_allclose(train.landmarks, seen, atol=1e-3)
    eyes, mouth = train.landmarks[:, :2].mean(1), train.landmarks[:, 3:].mean(1)
    assert (eyes[:, 1] < mouth[:, 1]).all()
    assert train.landmarks.min() > 0
    assert train.landmarks.max() < 63


def test_what_will_not_fit_is_refused_at_once(model: MorphableModel, faces: Path) -> None:
    endless = DATA.model_copy(update={"train_count": 10**12})
    with pytest.raises(ArtifactError, match=r"GB left; make room, or lower data.train_count"):
        prepare_faces(model, endless, 0, faces)
    assert manifest_of(faces)["data"] == DATA.model_dump(mode="json")


def test_a_folder_that_cannot_be_made_is_a_clear_error(model: MorphableModel, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    with pytest.raises(ArtifactError, match=r"cannot write .*data/faces"):
        prepare_faces(model, DATA, 0, tmp_path / "data" / "faces")
    assert (tmp_path / "data").read_text() == "a file"


def test_the_stage_fails_with_one_message_where_it_cannot_write(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths.PARAMS.write_text("scale: tiny\n")
    assert main(["stage", "configure"]) == 0
    Path("data").write_text("a file")
    assert main(["stage", "prepare"]) == 1
    errors = capsys.readouterr().err
    assert errors.startswith("ArtifactError: cannot write data/prepared/morphable_model.npz")
    assert "Traceback" not in errors
    assert not paths.PREPARE_REPORT.exists()


def test_a_workers_error_arrives_once_and_says_where(model: MorphableModel, faces: Path) -> None:
    broken = MorphableModel(**{**dict(model.named_buffers()), "albedo_basis": model.albedo_basis[:79]})
    before = (faces / "manifest.json").read_bytes()
    with pytest.raises(RuntimeError) as caught:
        prepare_faces(broken, DATA, 0, faces, workers=2)
    assert caught.value.__notes__ == ["while rendering faces 0 to 31 of train from seed 0"]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("render")]
    assert (faces / "manifest.json").read_bytes() == before
    assert [entry.name for entry in faces.parent.iterdir()] == ["faces"]


def test_opening_a_split_reads_nothing(tmp_path: Path) -> None:
    shapes = {IMAGES: (np.uint8, (20_000, 224, 224, 3)), COEFFICIENTS: (np.float32, (20_000, 257))}
    shapes[LANDMARKS] = (np.float32, (20_000, 5, 2))
    for name, (dtype, shape) in shapes.items():  # 3 GB, of which nothing is on the disk
        np.lib.format.open_memmap(tmp_path / name, "w+", dtype, shape)
    faces = FaceDataset(tmp_path)
    for array in (faces.images, faces.coefficients, faces.landmarks):
        assert isinstance(array, np.memmap)
    assert faces[19_999].images.shape == (3, 224, 224)


def test_samples_batches_and_heads_are_the_same_faces(faces: Path) -> None:
    dataset = FaceDataset(faces / "val")
    whole = torch.cat([batch.images for batch in dataset.batches(4)])
    assert torch.equal(whole, dataset.head(100).images)
    assert torch.equal(dataset[5].images, whole[5])
    assert torch.equal(dataset[5].targets, dataset.head(6).targets[5])
    assert whole.shape == (6, 3, 64, 64)


def test_missing_and_torn_splits_are_refused(faces: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="dvc repro"):
        FaceDataset(tmp_path)
    np.save(tmp_path / IMAGES, np.zeros((3, 64, 64, 3), np.uint8))
    np.save(tmp_path / COEFFICIENTS, np.zeros((2, 257), np.float32))
    np.save(tmp_path / LANDMARKS, np.zeros((3, 5, 2), np.float32))
    with pytest.raises(ArtifactError, match="3 images but labels of 2 and 3"):
        FaceDataset(tmp_path)
    whole = (tmp_path / IMAGES).read_bytes()
    (tmp_path / IMAGES).write_bytes(whole[:-1])
    with pytest.raises(ArtifactError, match="dvc repro -f prepare"):
        FaceDataset(tmp_path)


def test_photos_are_cropped_and_a_photo_without_a_face_is_refused(tmp_path: Path) -> None:
    found = prepare_photos(("astronaut",), 64, tmp_path / "photos")
    assert found["astronaut"]["score"] > 0.9
    assert load_photos(tmp_path / "photos")["astronaut"].shape == (3, 64, 64)
    with pytest.raises(ArtifactError):
        prepare_photos(("nobody.png",), 64, tmp_path / "photos")
    assert set(load_photos(tmp_path / "photos")) == {"astronaut"}
