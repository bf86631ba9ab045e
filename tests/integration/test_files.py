"""Files that other processes write, and that killed ones leave."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from leanface.files import atomic_write, is_intact, scratch
from tests.file_trees import names, put, tree


def killed(code: str, folder: Path) -> None:
    """Run code in a process that kills itself with `die()`."""
    start = (
        "import os, signal\nfrom pathlib import Path\nfrom leanface import files\n"
        "def die(*_): os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    ended = subprocess.run([sys.executable, "-c", start + code], cwd=folder, check=False)
    assert ended.returncode == -9


def test_the_next_writer_clears_what_a_killed_one_left(tmp_path: Path) -> None:
    for number, call in enumerate(("files.staged", "files.staged_file")):
        folder = tmp_path / str(number)
        folder.mkdir()
        killed(f"with {call}(Path('result')) as new:\n    die()", folder)
        assert [name for name in names(folder) if name.startswith(".leanface-unfinished-")]
        atomic_write(folder / "other", "")
        assert names(folder) == ["other"]


def test_a_kill_between_the_two_moves_of_a_swap_loses_nothing(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model/weights").write_text("old")
    killed(
        "replace = os.replace\n"
        "os.replace = lambda *names: (replace(*names), die())\n"
        "with files.staged(Path('model'), owned=True) as new: (new / 'weights').write_text('new')",
        tmp_path,
    )
    assert not (tmp_path / "model").exists()
    atomic_write(tmp_path / "other", "")
    assert tree(tmp_path) == {"model/weights": "old", "other": ""}


def test_a_kill_in_the_middle_of_a_refill_is_seen_and_mended(tmp_path: Path) -> None:
    put(tmp_path / "anna", a="1", b="1")
    killed(
        "replace, moves = os.replace, []\n"
        "os.replace = lambda *names: (replace(*names), moves.append(0), die() if len(moves) == 2 else None)\n"
        "with files.staged(Path('anna')) as new:\n    for name in 'ac': (new / name).write_text('2')",
        tmp_path,
    )
    assert not is_intact(tmp_path / "anna")
    put(tmp_path / "anna", a="3")
    assert tree(tmp_path) == {"anna/a": "3"}
    assert is_intact(tmp_path / "anna")


def test_a_killed_process_leaves_temporary_files_only_until_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    killed("with files.scratch() as folder:\n    (folder / 'photo.jpg').write_bytes(b'0')\n    die()", tmp_path)
    assert list(tmp_path.rglob("photo.jpg"))
    monkeypatch.setattr("tempfile.tempdir", None)
    with scratch() as folder:
        assert folder.parent == tmp_path
        assert names(tmp_path) == [folder.name]
    assert names(tmp_path) == []


def test_only_leftovers_of_its_own_are_cleared(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/mine").write_text("x")
    (tmp_path / ".leanface-unfinished-linkxxxx").symlink_to("elsewhere")
    (tmp_path / ".leanface-unfinished-filexxxx").write_text("mine")
    for name in (".venv-3.12", ".leanface-unfinished-backup of mine", ".leanface-notes", ".a-abcdefgh", ".a"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine").write_text("x")
    before = tree(tmp_path)
    put(tmp_path / "a", x="1")
    put(tmp_path / "venv", x="1")
    assert tree(tmp_path) == before | {"a/x": "1", "venv/x": "1"}


def test_what_another_process_is_writing_is_no_leftover(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom leanface.files import staged\n"
        "with staged(Path('slow')) as new:\n    print(flush=True)\n    sys.stdin.read()\n"
        "    (new / 'x').write_text('1')"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        atomic_write(tmp_path / "other", "")
        other.communicate()
    assert other.returncode == 0
    assert tree(tmp_path) == {"other": "", "slow/x": "1"}


def test_a_folder_that_is_read_only_is_said_to_be(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o555)
    code = (
        "from pathlib import Path\nfrom leanface import files\nfrom leanface.errors import ArtifactError\n"
        "try: files.require_writable(Path('closed'))\nexcept ArtifactError as error: print(error)"
    )
    # Root may write anywhere unless this capability is taken from it.
    unprivileged = ["setpriv", "--bounding-set=-dac_override"] if os.geteuid() == 0 else []
    if unprivileged and shutil.which("setpriv") is None:
        pytest.skip("root, and no setpriv")
    command = [*unprivileged, sys.executable, "-c", code]
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert "Choose a folder that you may write to" in said
