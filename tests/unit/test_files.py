"""What docs/files.md promises of writing: whole or not at all, and never over anything that LeanFace did not make."""

import errno
import json
import os
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from leanface import files
from leanface.errors import ArtifactError
from leanface.files import MARK, atomic_write, copy_file, is_intact, marked_files, read_json, staged, staged_file
from tests.file_trees import names, put, tree


@contextmanager
def umask(mask: int) -> Generator[None]:
    old = os.umask(mask)
    try:
        yield
    finally:
        os.umask(old)


class Stop(Exception):
    pass


@contextmanager
def failing() -> Generator[None]:
    """The block ends with an error, which goes through everything within it."""
    with pytest.raises(Stop):
        yield


def test_a_file_is_written_with_its_folders(tmp_path: Path) -> None:
    atomic_write(tmp_path / "a/b/text", "grüße\n")
    atomic_write(tmp_path / "a/b/bytes", b"\0\xff")
    assert (tmp_path / "a/b/text").read_bytes() == "grüße\n".encode()
    assert (tmp_path / "a/b/bytes").read_bytes() == b"\0\xff"
    assert names(tmp_path / "a/b") == ["bytes", "text"]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    atomic_write(tmp_path / "file", "old")
    with failing(), staged_file(tmp_path / "file") as staging:
        staging.write_text("half")
        raise Stop
    assert tree(tmp_path) == {"file": "old"}
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("link", [os.link, os.symlink])
def test_a_file_behind_a_link_is_replaced_and_never_written_into(tmp_path: Path, link: object) -> None:
    cached, path = tmp_path / "cached", tmp_path / "path"
    for write in (
        lambda: atomic_write(path, "new"),
        lambda: copy_file(tmp_path / "source", path),
        lambda: put_into(path),
    ):
        cached.write_text("cached")
        (tmp_path / "source").write_text("new")
        path.unlink(missing_ok=True)
        assert callable(link)
        link(cached, path)
        write()
        assert (cached.read_text(), path.read_text(), path.is_symlink()) == ("cached", "new", False)


def put_into(path: Path) -> None:
    with staged_file(path) as staging:
        staging.write_text("new")


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_the_umask_decides_who_may_read(tmp_path: Path, mask: int) -> None:
    with umask(mask):
        atomic_write(tmp_path / "file", "")
        with staged_file(tmp_path / "private") as staging:
            staging.touch(0o600)
        put(tmp_path / "folder", file="")
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.rglob("*")}
    assert modes.pop("folder") == 0o777 & ~mask
    assert set(modes.values()) == {0o666 & ~mask}


def test_threads_that_write_the_same_do_not_disturb_each_other(tmp_path: Path) -> None:
    def write(number: int) -> None:
        atomic_write(tmp_path / "file", str(number))
        put(tmp_path / "folder", a=str(number), b=str(number))
        with staged(tmp_path / "owned", owned=True) as new:
            (new / "a").write_text(str(number))

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(write, range(60)))
    assert names(tmp_path) == ["file", "folder", "owned"]
    assert tree(tmp_path / "folder").keys() == {"a", "b"}
    assert len(set(tree(tmp_path / "folder").values())) == 1
    assert is_intact(tmp_path / "folder")


def test_a_name_that_begins_like_another_does_not_disturb_it(tmp_path: Path) -> None:
    with staged(tmp_path / "a-8") as one:
        (one / "x").write_text("1")
        put(tmp_path / "a", y="2")
        (one / "z").write_text("3")
    assert tree(tmp_path) == {"a/y": "2", "a-8/x": "1", "a-8/z": "3"}


@pytest.mark.parametrize("name", ["n" * 255, "ü" * 127, "a[1]", "best**", " ", "-", "a\nb", ".hidden"])
def test_any_name_can_be_written(tmp_path: Path, name: str) -> None:
    atomic_write(tmp_path / "files" / name, "text")
    put(tmp_path / "folders" / name, x="1")
    assert tree(tmp_path) == {f"files/{name}": "text", f"folders/{name}/x": "1"}


@pytest.mark.parametrize("owned", [False, True])
def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path, owned: bool) -> None:
    folder = tmp_path / "new" / "folder"
    with failing(), staged(folder, owned=owned) as new:
        (new / "half").write_text("x")
        raise Stop
    assert names(tmp_path / "new") == []
    with staged(folder, owned=owned) as new:
        (new / "whole").write_text("x")
        assert not folder.exists()
    assert tree(folder) == {"whole": "x"}
    assert is_intact(folder) is not owned


@pytest.mark.parametrize("owned", [False, True])
def test_a_failure_leaves_the_old_folder(tmp_path: Path, owned: bool) -> None:
    with staged(tmp_path / "folder", owned=owned) as new:
        (new / "file").write_text("old")
    with failing(), staged(tmp_path / "folder", owned=owned) as new:
        (new / "file").write_text("new")
        raise Stop
    assert tree(tmp_path) == {"folder/file": "old"}
    assert names(tmp_path) == ["folder"]


def test_an_owned_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/old").touch()
    with staged(tmp_path / "folder", owned=True) as new:
        (new / "new").touch()
    assert names(tmp_path / "folder") == ["new"]


def test_what_leanface_did_not_make_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "album").mkdir()
    (tmp_path / "album/1.jpg").write_text("mine")
    (tmp_path / "link").symlink_to("album")
    (tmp_path / "broken").symlink_to("nowhere")
    before = tree(tmp_path)
    for name in ("file", "album", "link", "broken"):
        started = False
        with pytest.raises(ArtifactError, match="LeanFace did not make"), staged(tmp_path / name):
            started = True
        assert not started, "it is refused before the work, not after it"
    assert tree(tmp_path) == before


def test_what_is_put_there_during_the_work_is_left_alone(tmp_path: Path) -> None:
    def work() -> None:
        with staged(tmp_path / "anna") as new:
            (new / "face").touch()
            (tmp_path / "anna").mkdir()
            (tmp_path / "anna/mine").write_text("mine")

    with pytest.raises(ArtifactError, match="did not make"):
        work()
    assert tree(tmp_path) == {"anna/mine": "mine"}


def test_a_marked_folder_takes_new_files_and_loses_those_that_were_not_written_again(tmp_path: Path) -> None:
    put(tmp_path / "anna", face_1="a", face_2="b")
    (tmp_path / "anna/notes.txt").write_text("mine")
    inode = (tmp_path / "anna").stat().st_ino
    put(tmp_path / "anna", face_1="c", overlay="d")
    assert tree(tmp_path / "anna") == {"face_1": "c", "notes.txt": "mine", "overlay": "d"}
    assert marked_files(tmp_path / "anna") == {"face_1": 1, "overlay": 1}
    assert (tmp_path / "anna").stat().st_ino == inode, "what has it open, or mounted, must see the new files"


def test_a_file_of_the_users_in_a_marked_folder_is_neither_replaced_nor_removed(tmp_path: Path) -> None:
    put(tmp_path / "anna", face_1="a", face_2="b")
    (tmp_path / "anna/face_3").write_text("mine")
    with pytest.raises(ArtifactError, match=r"face_3 is a file that LeanFace did not make"):
        put(tmp_path / "anna", face_1="c", face_3="d")
    assert tree(tmp_path / "anna") == {"face_1": "a", "face_2": "b", "face_3": "mine"}
    (tmp_path / "anna/face_2").write_text("painted over by hand")
    put(tmp_path / "anna", face_1="c")
    assert tree(tmp_path / "anna") == {"face_1": "c", "face_2": "painted over by hand", "face_3": "mine"}


def test_an_empty_folder_is_filled_and_stays_the_same_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "mount"
    folder.mkdir(mode=0o750)
    (folder / ".DS_Store").write_text("")
    before = folder.stat()
    monkeypatch.chdir(folder)
    for content in ("1", "2"):
        with staged(Path()) as new:
            (new / "sub").mkdir()
            (new / "sub/file").write_text(content)
        assert tree(folder) == {".DS_Store": "", "sub/file": content}
    assert (folder.stat().st_ino, folder.stat().st_mode) == (before.st_ino, before.st_mode)
    assert names(tmp_path) == ["mount"]


def test_folders_that_lose_their_last_file_go(tmp_path: Path) -> None:
    for name in ("a/b/1", "c/2"):
        with staged(tmp_path / "folder") as new:
            (new / name).parent.mkdir(parents=True)
            (new / name).touch()
    assert [path.name for path in (tmp_path / "folder").iterdir() if path.name != MARK] == ["c"]


def test_a_mark_from_elsewhere_cannot_make_other_files_go(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/mine").write_text("x")
    put(tmp_path / "folder", a="1")
    (tmp_path / "folder/link").symlink_to(tmp_path / "outside")
    listed = ["../outside/mine", str(tmp_path / "outside/mine"), "link/mine", "link", ""]
    (tmp_path / "folder" / MARK).write_text(
        json.dumps({"kind": "result", "finished": True, "files": dict.fromkeys(listed, 1)})
    )
    put(tmp_path / "folder", b="2")
    assert tree(tmp_path / "outside") == {"mine": "x"}
    assert (tmp_path / "folder/link").is_symlink()


def test_nothing_is_written_over_a_link_within_a_folder(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").symlink_to("elsewhere")  # the folder itself may be one
    (tmp_path / "elsewhere/album").symlink_to(tmp_path)
    with pytest.raises(ArtifactError, match="album is a link that LeanFace did not make"):
        files.require_free(tmp_path / "out/album/anna", "result", within=tmp_path / "out")
    files.require_free(tmp_path / "out/anna", "result", within=tmp_path / "out")
    with pytest.raises(ArtifactError, match="album is a link that LeanFace did not make"):
        put_beside(tmp_path / "out", "album/anna.png", "x")
    put_beside(tmp_path / "out", "anna.png", "x")
    assert (tmp_path / "elsewhere/anna.png").exists()
    assert not list(tmp_path.glob("anna*"))


def test_a_result_of_another_kind_is_left_alone(tmp_path: Path) -> None:
    put(tmp_path / "anna", face_1="a")
    before = tree(tmp_path)
    for write in (
        lambda: staged(tmp_path / "anna", "bundle").__enter__(),
        lambda: files.claim(tmp_path / "anna", "video"),
        lambda: put_beside(tmp_path / "anna", "anna.png", "x"),
    ):
        with pytest.raises(ArtifactError, match=r"holds a result, where a (bundle|video|comparison) should go"):
            write()
    files.forget_others(tmp_path / "anna", "comparison", [])
    files.remove_result(tmp_path / "anna", "video")
    assert tree(tmp_path) == before
    assert is_intact(tmp_path / "anna")


def put_beside(folder: Path, name: str, content: str) -> None:
    with files.staged_beside(folder, "comparison", name) as staging:
        staging.write_text(content)


def test_a_claimed_folder_is_marked_and_keeps_what_is_in_it(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/x").write_text("mine")
    for name in ("clip", "clip", "mine"):
        with suppress(ArtifactError):
            files.claim(tmp_path / name, "video")
    assert files.kind_of_result(tmp_path / "clip") == "video"
    assert files.kind_of_result(tmp_path / "mine") is None
    assert tree(tmp_path) == {"mine/x": "mine"}


def test_files_beside_the_users_replace_only_their_own(tmp_path: Path) -> None:
    (tmp_path / "me.png").write_text("my photo")
    for content in ("1", "2"):
        with pytest.raises(ArtifactError, match=r"me\.png is a file that LeanFace did not make"):
            put_beside(tmp_path, "me.png", content)
        for name in ("you.png", "deep/er.png") if content == "1" else ("you.png",):
            put_beside(tmp_path, name, content)
        assert not is_intact(tmp_path)
    assert tree(tmp_path) == {"deep/er.png": "1", "me.png": "my photo", "you.png": "2"}
    files.forget_others(tmp_path, "comparison", ["you.png"])
    assert tree(tmp_path) == {"me.png": "my photo", "you.png": "2"}
    assert is_intact(tmp_path)
    with pytest.raises(ArtifactError, match="holds a comparison"):
        put(tmp_path, face_1="x")


def test_a_result_is_removed_but_for_what_was_added_to_it(tmp_path: Path) -> None:
    for name in ("1", "2"):
        put(tmp_path / name, face_1="x")
    (tmp_path / "2/notes").write_text("mine")
    for name in ("1", "2", "3"):
        files.remove_result(tmp_path / name, "result")
    assert tree(tmp_path) == {"2/notes": "mine"}
    assert names(tmp_path) == ["2"]
    put(tmp_path / "2", face_1="y")
    assert tree(tmp_path) == {"2/face_1": "y", "2/notes": "mine"}


def test_a_digest_is_of_contents_and_names(tmp_path: Path) -> None:
    def folder(name: str, **contents: str) -> Path:
        for file, content in contents.items():
            atomic_write(tmp_path / name / file, content)
        return tmp_path / name

    same = files.digest(folder("a", x="1", y="2"))
    assert files.digest(folder("b", y="2", x="1")) == same
    others = [folder("c", x="1"), folder("d", x="1", z="2"), folder("e", x="2", y="1"), folder("f", x="1", y="2") / "x"]
    assert len({same, *map(files.digest, others)}) == 5
    assert files.digest(tmp_path / "a/x") == files.digest(tmp_path / "f/x")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"files": 3}', '{"files": {}, "kind": 1}'])
def test_a_mark_that_is_none_protects_the_folder(tmp_path: Path, text: str) -> None:
    put(tmp_path / "folder", a="1")
    (tmp_path / "folder" / MARK).write_text(text)
    assert not is_intact(tmp_path / "folder")
    with pytest.raises(ArtifactError, match="did not make"):
        put(tmp_path / "folder", a="2")


def test_intact_is_a_finished_folder_with_every_file_in_its_size(tmp_path: Path) -> None:
    folder = tmp_path / "anna"
    assert not is_intact(folder)
    for damage in (Path.unlink, lambda path: path.write_text("")):
        put(folder, face_1="abc", face_2="")
        assert is_intact(folder)
        damage(folder / "face_1")
        assert not is_intact(folder)


def test_errors_say_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ArtifactError, match="A file is where a folder must be"):
        atomic_write(tmp_path / "file/x", "")
    with pytest.raises(ArtifactError, match=r"name is too long.*shorter"):
        atomic_write(tmp_path / ("n" * 256), "")
    with pytest.raises(ArtifactError, match="disk is full; make room"), staged(tmp_path / "new"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(ArtifactError, match="cannot write"):
        files.require_writable(tmp_path / "file")
    with pytest.raises(ArtifactError, match=r"is missing: run `dvc repro`"):
        copy_file(tmp_path / "absent", tmp_path / "copy")
    with pytest.raises(FileNotFoundError), staged(tmp_path / "new"):  # of something else than what is written
        Path("/nowhere").read_text()
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("text", ["", "{", "[]", "\xff"])
def test_json_that_is_none_is_said_to_be(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ArtifactError, match="rebuild it with `dvc repro`"):
        read_json(tmp_path / "x.json")
