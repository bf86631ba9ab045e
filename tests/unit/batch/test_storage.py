"""Folders in any storage: what is listed, who may write, what is done again."""

import uuid
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from leanface.batch.chunks import Chunk, Photo, chunks
from leanface.batch.storage import FACES, FAILED, MARK, RUNS, Storage, is_url
from leanface.batch.table import chunk_name, encode_table, finished
from leanface.errors import ArtifactError, ConfigError

pytest.importorskip("fsspec", reason="fsspec is not installed")

NOTHING = np.empty(0, np.uint64)


@pytest.fixture(params=["memory", "file"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    """An empty folder in memory, or on a disk."""
    if request.param == "file":
        return Storage(f"file://{tmp_path}/photos")
    return Storage(f"memory://{uuid.uuid4().hex}/photos")


def test_photos_come_in_chunks_and_other_files_are_counted(storage: Storage) -> None:
    names = [f"{number:02d} [x].jpg" for number in range(5)] + ["a/b.PNG", "a.jpg/c.webp"]
    for name in [*names, "a/clip.mp4", "notes.txt", "raw.nef", ".hidden.jpg", "@eaDir/x.jpg", "out/heads/y.jpg"]:
        storage.write(name, b"12")
    found = list(chunks(storage, NOTHING, 3, "out/"))
    assert sorted(photo.name for chunk in found for photo in chunk.photos) == sorted(names)
    assert [len(chunk.photos) for chunk in found] == [3, 3, 1, 0]
    assert sum(dict(chunk.passed_over).get(".mp4", 0) for chunk in found) == 1
    assert {suffix for chunk in found for suffix, _ in chunk.passed_over} == {".mp4", ".txt", ".nef"}
    assert found[-1].total == len(names)


def test_large_photos_make_small_chunks(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("leanface.batch.chunks.BYTES_MAX", 5)
    for name, size in (("a", 3), ("b", 2), ("c", 1), ("d", 9), ("e", 1)):
        storage.write(f"{name}.jpg", b"x" * size)
    found = ["".join(photo.name[0] for photo in chunk.photos) for chunk in chunks(storage, NOTHING)]
    assert found == ["ab", "c", "d", "e", ""]


def test_what_a_table_has_is_not_done_again_unless_it_has_changed(storage: Storage) -> None:
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        storage.write(name, b"12")
    (chunk, _) = chunks(storage, NOTHING)
    rows = [{"photo": photo.name, "fingerprint": photo.fingerprint, "face": 1} for photo in chunk.photos[:2]]
    storage.write(f"{FACES}/{chunk_name(chunk)}.parquet", encode_table([*rows, {**rows[0], "face": 2}], {}))
    done = finished(storage)
    assert len(done) == 2
    (rest, last) = chunks(storage, done)
    assert [photo.name for photo in rest.photos] == ["c.jpg"]
    assert rest.done + last.done == 2
    storage.write("b.jpg", b"123")
    (rest, _) = chunks(storage, done)
    assert [photo.name for photo in rest.photos] == ["b.jpg", "c.jpg"]


def test_a_chunk_done_twice_has_one_name() -> None:
    first, second = Photo("a\udce9.jpg", 1, 2), Photo("b.jpg", 3, 4)
    assert chunk_name(Chunk((first, second))) == chunk_name(Chunk((first, second), done=7))
    assert chunk_name(Chunk((first,))) != chunk_name(Chunk((second,)))


def test_a_damaged_table_is_named(storage: Storage) -> None:
    storage.write(f"{FACES}/x.parquet", b"PAR1 half")
    with pytest.raises(ArtifactError, match=r"faces/x\.parquet is no table of faces"):
        finished(storage)


def test_a_place_that_holds_something_else_is_refused(storage: Storage) -> None:
    storage.write("thesis.txt", b"years of work")
    with pytest.raises(ArtifactError, match="holds other files"):
        storage.claim({}, redo=True)
    assert storage.read("thesis.txt") == b"years of work"
    assert storage.read(MARK) is None


def test_other_results_are_refused(storage: Storage) -> None:
    for content in (b'{"kind": "reconstruction", "files": {}}', b"half a ma"):
        storage.write(MARK, content)
        with pytest.raises(ArtifactError, match="holds other files"):
            storage.claim({}, redo=True)
        assert storage.read(MARK) == content


def test_results_of_other_settings_stay_unless_redone(storage: Storage) -> None:
    storage.write(f"{RUNS}/here", b"")
    storage.claim({"mesh": "glb", "photos": "x"}, redo=False)
    storage.write(f"{FACES}/1.parquet", b"rows")
    storage.write(f"{FAILED}/1.jsonl", b"rows")
    with pytest.raises(ArtifactError, match=r"made otherwise \(mesh\)"):
        storage.claim({"mesh": "ply", "photos": "x"}, redo=False)
    assert storage.read(f"{FAILED}/1.jsonl") == b"rows"
    storage.claim({"mesh": "glb", "photos": "x"}, redo=False)
    assert storage.read(f"{FACES}/1.parquet") == b"rows"
    assert storage.read(f"{FAILED}/1.jsonl") is None
    storage.claim({"mesh": "ply", "photos": "x"}, redo=True)
    assert storage.read(f"{FACES}/1.parquet") is None
    storage.claim({"mesh": "ply", "photos": "x"}, redo=False)


def test_two_runs_do_not_write_to_one_place(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    with storage.alone():
        with (
            pytest.raises(ArtifactError, match=r"another run writes to .*-\d+-\w+: its machine and process"),
            storage.alone(),
        ):
            pass
        storage.claim({}, redo=False)  # the sign of life is no file in the way
        # A run that was killed long ago holds nobody up.
        monkeypatch.setattr("leanface.batch.storage.STALE", timedelta(days=-1))
        with storage.alone():
            assert storage.read(MARK) is not None
    assert storage.names(RUNS) == []
    assert not storage.is_local or sorted(Path(storage.path("")).iterdir()) == [Path(storage.path(MARK))]


def test_kinds_of_storage_that_are_not_there_are_said_in_a_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="s4://x cannot be opened: Protocol not known: s4"):
        Storage("s4://x")
    with pytest.raises(ArtifactError, match=r"cannot read .*nowhere"):
        list(Storage(str(tmp_path / "nowhere")).pages())


def test_a_path_that_looks_like_a_url_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s3:").mkdir()
    (tmp_path / "s3:" / "photos").mkdir()
    assert not is_url("s3://photos")
    assert is_url("s3://bucket/photos")
    assert not is_url("photos")
