"""The command as users call it: folders, failures, reruns, pipes, videos, comparisons."""

import shutil
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import trimesh
from PIL import Image

from leanface.cli import main
from leanface.files import MARK
from leanface.photos.load import load_photo
from leanface.reconstruction.flow import threaded


@pytest.fixture(scope="module")
def network(exported: Any) -> list[str]:
    return ["--model", str(exported.fp32), "--threads", "1"]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two photos, one file that is none, and a picture without a face."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("astronaut", "grace_hopper"):
        Image.fromarray(load_photo(name)).save(folder / f"{name}.png")
    (folder / "broken.jpg").write_bytes(b"not a photo")
    Image.new("RGB", (200, 200), "gray").save(folder / "nothing.png")
    return folder


def picture_size(path: Path) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.size


def files(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_a_folder_with_bad_files_and_its_rerun(
    photos: Path, network: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: Any
) -> None:
    out = tmp_path / "out"
    command = ["reconstruct", str(photos), "--out", str(out), "--texture", "128", *network]
    assert main(command) == 1
    assert "2 of 4 pictures could not be reconstructed" in capsys.readouterr().err
    assert {"left out broken", "left out nothing"} <= {message[:16].rstrip(":") for message in caplog.messages}
    done = files(out)
    assert set(done) == {
        f"{name}/{file}"
        for name in ("astronaut", "grace_hopper")
        for file in (MARK, "face_1.glb", "face_1.json", "face_1.png", "overlay.png", "reconstruction.json")
    }
    (mesh,) = trimesh.load_scene(out / "astronaut" / "face_1.glb").geometry.values()
    assert mesh.visual.material.baseColorTexture.size == (128, 128)
    assert picture_size(out / "astronaut" / "overlay.png") == (512, 512)

    for bad in ("broken.jpg", "nothing.png"):
        (photos / bad).unlink()
    caplog.set_level("INFO")
    assert main(command) == 0
    assert files(out) == done
    assert "2 pictures done before" in caplog.text

    # A photo that changed, and other settings, are done again.
    shutil.copyfile(photos / "grace_hopper.png", photos / "astronaut.png")
    assert main(command) == 0
    changed = {name for name, when in files(out).items() if when != done[name]}
    assert {Path(name).parts[0] for name in changed} == {"astronaut"}
    assert main([*command, "--no-pictures", "--mesh", "none"]) == 0
    assert set(files(out / "grace_hopper")) == {MARK, "face_1.json", "reconstruction.json"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{photos}", "--out", "-"], "takes a single photo"),
        (["{photos}/astronaut.png", "--out", "-", "--mesh", "obj"], "OBJ is three files"),
        (["-", "{photos}", "--out", "x"], "comes alone"),
        (["{photos}/astronaut.png", "--out", "-", "--compare", "original"], "name a folder"),
        (["{photos}/none.jpg", "--out", "{photos}/out"], "nothing could be reconstructed (see above)"),
    ],
)
def test_what_cannot_be_done_is_said(
    arguments: list[str], message: str, photos: Path, network: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["reconstruct", *(argument.format(photos=photos) for argument in arguments), *network]) == 1
    assert message in capsys.readouterr().err


def test_a_network_that_is_not_there_is_named(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["reconstruct", str(photos), "--out", str(photos / "out"), "--model", str(photos / "none.onnx")]
    assert main(command) == 1
    assert "none.onnx is missing; name another file" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["x.png"], ["x.png", "--out", "o", "--texture", "5000"]])
def test_a_wrong_command_is_refused(arguments: list[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["reconstruct", *arguments])


def test_no_more_is_taken_ahead_than_there_is_room_for() -> None:
    taken: list[int] = []

    def items() -> Any:
        for index in range(30):
            taken.append(index)
            yield index

    ahead = []
    for result in threaded(lambda item: item * 2, items(), workers=3, room=4):
        assert result == 2 * (len(ahead))
        ahead.append(len(taken) - len(ahead))
    assert max(ahead) <= 4
    assert len(ahead) == 30


def test_work_runs_side_by_side_and_an_error_ends_it() -> None:
    meeting = threading.Barrier(2, timeout=10)
    assert list(threaded(lambda item: meeting.wait() >= 0, range(2), workers=2, room=2)) == [True, True]

    def fail(item: int) -> int:
        time.sleep(0.001)
        if item == 1:
            raise RuntimeError("bug")
        return item

    with pytest.raises(RuntimeError, match="bug"):
        list(threaded(fail, range(100), workers=1, room=8))
