"""From S3 to S3: what a worker writes is what `leanface reconstruct` writes, and what goes wrong is said in a line."""

import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from leanface.batch.chunks import Chunk, chunks
from leanface.batch.storage import Storage
from leanface.batch.table import finished
from leanface.batch.worker import Job, Outcome, Worker, check, describe
from leanface.cli import main
from leanface.errors import ArtifactError
from leanface.face.coefficients import LAYOUT
from leanface.photos.load import photo_path
from leanface.reconstruction.outputs import Settings
from tests.servers import s3_server

pa: Any = pytest.importorskip("pyarrow")
pytest.importorskip("s3fs", reason="s3fs is not installed")

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")

PHOTOS, OUT = "s3://faces/photos", "s3://faces/out"
NAMES = ("bad.jpg", "me [1]*.png", "sub/me.jpg")


@pytest.fixture(scope="module")
def photos() -> Iterator[Storage]:
    with s3_server("faces"):
        storage = Storage(PHOTOS)
        contents = (b"no photo", photo_path("astronaut").read_bytes(), photo_path("grace_hopper").read_bytes())
        for name, content in zip(NAMES, contents, strict=True):
            storage.write(name, content)
        yield storage


def test_a_worker_writes_what_the_command_writes(photos: Storage, tmp_path: Path) -> None:
    settings = Settings(texture_px=64)
    made_with = describe(settings, None, "cpu", PHOTOS)
    job = Job(PHOTOS, OUT, settings, None, "cpu", 1, 0, 32, made_with)
    assert "does not see" in str(check(job))
    out = Storage(OUT)
    with out.alone():
        assert check(job) is None
        out.claim(made_with, redo=False)
    (chunk, last) = chunks(photos, np.empty(0, np.uint64))
    assert (tuple(photo.name for photo in chunk.photos), last.total) == (NAMES, 3)
    outcome = _done(Worker(job), chunk)
    assert (outcome.faces, outcome.problem) == (2, None)
    ((name, why),) = outcome.failed
    assert name == "bad.jpg"
    assert why.startswith("cannot read bad.jpg as a photo")
    (failed,) = out.names("failed")
    assert json.loads(out.read(failed) or b"") == {"photo": name, "reason": why}

    (tmp_path / "me.png").write_bytes(photos.read("me [1]*.png") or b"")
    local = ["reconstruct", str(tmp_path / "me.png"), "--out", str(tmp_path), "--texture", "64", "--runtime", "cpu"]
    assert main([*local, "--threads", "1"]) == 0
    for file in ("face_1.glb", "face_1.png", "overlay.png"):
        assert out.read(f"heads/me [1]*.png/{file}") == (tmp_path / "me" / file).read_bytes()
    face = json.loads((tmp_path / "me" / "face_1.json").read_text())
    table = pytest.importorskip("pyarrow.parquet").read_table(pa.BufferReader(out.read(out.names("faces")[0])))
    row = next(row for row in table.to_pylist() if row["photo"] == "me [1]*.png")
    assert set(row["coefficients"]) == set(LAYOUT)
    for group in LAYOUT:
        assert row["coefficients"][group] == pytest.approx(face["coefficients"][group], rel=1e-6)
    assert row["pose"]["yaw_deg"] == face["pose"]["yaw_deg"]
    assert [photo.name for each in chunks(photos, finished(out)) for photo in each.photos] == ["bad.jpg"]


def test_pages_follow_one_another(photos: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = Storage(PHOTOS)
    monkeypatch.setattr(storage._files, "req_kw", {"MaxKeys": 1})
    assert [[name for name, _ in page] for page in storage.pages()] == [[name] for name in NAMES]
    assert [name for page in Storage("s3://faces").pages() for name, _ in page if name.startswith("photos/")] == [
        f"photos/{name}" for name in NAMES
    ]


@pytest.mark.parametrize(
    ("keys", "url", "words"),
    [
        (True, "s3://nowhere/photos", r"cannot read s3://nowhere/photos .*bucket does not exist.* Check its name"),
        (False, PHOTOS, r"cannot read .* Give credentials as to the storage's own tools"),
    ],
)
def test_what_is_missing_is_said(
    photos: Storage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, keys: bool, url: str, words: str
) -> None:
    if not keys:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(name)
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
        Storage(url)._files.clear_instance_cache()
    with pytest.raises(ArtifactError, match=words):
        next(Storage(url).pages())


def test_an_unwritable_place_ends_the_run_with_the_reason(photos: Storage) -> None:
    settings = Settings(mesh=None, texture_px=0, pictures=False)
    made_with = describe(settings, None, "cpu", PHOTOS)
    worker = Worker(Job(PHOTOS, "s3://nowhere/out", settings, None, "cpu", 1, 0, 32, made_with))
    (chunk, _) = chunks(photos, np.empty(0, np.uint64))
    assert "cannot write to s3://nowhere/out" in str(_done(worker, chunk).problem)
    assert _done(worker, Chunk((), problem="the list ended")).problem == "the list ended"


def _done(worker: Worker, chunk: Chunk) -> Outcome:
    table = worker(pa.table({"chunk": [pickle.dumps(chunk)]}))
    return pickle.loads(table["outcome"][0].as_py())
