"""What docs/files.md promises of `leanface reconstruct`: places, reruns, earlier frames, own results, and formats."""

import io
import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from PIL import Image

from leanface.cli import main
from leanface.files import MARK, is_intact, kind_of_result, marked_files
from leanface.photos.walk import walk
from leanface.reconstruction.flow import Outcome, reconstruct_all
from leanface.reconstruction.lean_face import LeanFace
from leanface.reconstruction.names import BYTES_MAX, result_names
from leanface.reconstruction.outputs import RECORD, Settings, VideoSettings
from leanface.reconstruction.sources import find_sources
from tests.unit.reconstruction.conftest import photo

QUICK = Settings(mesh=None, texture_px=0, pictures=False)
FOLDERS = VideoSettings(frames_as="folders")


def run(
    face: LeanFace, inputs: list[Path], out: Path, settings: Settings = QUICK, **options: Any
) -> dict[str, Outcome]:
    sources = find_sources([str(path) for path in inputs])
    return {outcome.name: outcome for outcome in reconstruct_all(face, sources, out, settings, **options)}


def states(face: LeanFace, inputs: list[Path], out: Path, settings: Settings = QUICK, **options: Any) -> dict[str, str]:
    outcomes = run(face, inputs, out, settings, **options)
    return {
        name: outcome.error or ("known" if outcome.skipped else "done") for name, outcome in sorted(outcomes.items())
    }


def plant(path: Path, number: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(photo(number))
    return path


def test_every_format_has_names_of_its_own_and_the_photo_s_texture(quick_face: LeanFace, tmp_path: Path) -> None:
    me = plant(tmp_path / "me.ppm", 1)
    textures: dict[str, np.ndarray] = {}
    for mesh, own in {"glb": set[str](), "ply": set[str](), "obj": {"face_1.mtl", "face_1_texture.jpg"}}.items():
        for pictures in (True, False):
            out = tmp_path / f"{mesh}-{pictures}"
            run(quick_face, [me], out, Settings(mesh=mesh, texture_px=64, pictures=pictures))
            drawn = {"face_1.png", "overlay.png"} if pictures else set[str]()
            assert marked_files(out / "me").keys() == {f"face_1.{mesh}", "face_1.json", RECORD} | own | drawn
            loaded: Any = trimesh.load(out / "me" / f"face_1.{mesh}", force="mesh", process=False)
            assert len(loaded.faces) > 30_000
            if mesh == "ply":
                assert loaded.visual.vertex_colors.shape == (len(loaded.vertices), 4)
                continue
            material = loaded.visual.material
            image = material.baseColorTexture if mesh == "glb" else material.image
            textures[out.name] = np.asarray(image.convert("RGB"))
    first = textures.pop("glb-True")
    assert first.shape == (64, 64, 3)
    for other in textures.values():
        np.testing.assert_array_equal(other, first)
    with Image.open(tmp_path / "obj-True/me/face_1.png") as preview:
        assert preview.size != (64, 64)


def test_a_mesh_beside_its_photo_leaves_the_photo_alone(quick_face: LeanFace, tmp_path: Path) -> None:
    content = io.BytesIO()
    Image.open(io.BytesIO(photo(1))).save(content, "PNG")
    (tmp_path / "me.png").write_bytes(content.getvalue())
    (face,) = quick_face.reconstruct(np.asarray(Image.open(tmp_path / "me.png")))
    face.save_mesh(tmp_path / "me.obj")
    assert (tmp_path / "me.png").read_bytes() == content.getvalue()
    assert face.encode_mesh("me.glb").keys() == {"me.glb"}


def test_a_photo_is_done_again_when_anything_that_it_depends_on_has_changed(
    quick_face: LeanFace, tmp_path: Path
) -> None:
    me, out = plant(tmp_path / "a/me.ppm", 1), tmp_path / "out"
    assert states(quick_face, [me], out) == {"me": "done"}
    assert states(quick_face, [me], out) == {"me": "known"}
    assert states(quick_face, [me], out, redo=True) == {"me": "done"}
    for change in (
        {"min_face_px": 41},
        {"mesh": "ply"},
        {"texture_px": 64},
        {"delight": True},
        {"faces": "largest"},
        {"pictures": True},
    ):
        assert states(quick_face, [me], out, replace(QUICK, **change)) == {"me": "done"}, change
        assert states(quick_face, [me], out) == {"me": "done"}, change

    network = quick_face.model_path
    network.write_bytes(b"b network")  # of the same size
    assert states(quick_face, [me], out) == {"me": "done"}
    for damage in (Path.unlink, lambda path: path.write_bytes(b""), lambda path: path.write_bytes(b"{")):
        damage(out / "me/face_1.json")
        assert states(quick_face, [me], out) == {"me": "done"}
        assert states(quick_face, [me], out) == {"me": "known"}


def test_a_photo_is_told_by_its_content(quick_face: LeanFace, tmp_path: Path) -> None:
    first, second, out = plant(tmp_path / "a/me.ppm", 1), plant(tmp_path / "b/me.ppm", 2), tmp_path / "out"
    for path in (first, second):
        os.utime(path, (1e9, 1e9))
    assert states(quick_face, [first], out) == {"me": "done"}
    assert states(quick_face, [second], out) == {"me": "done"}, "same name, size and time, another content"
    second.replace(first)
    os.utime(first, (2e9, 2e9))
    assert states(quick_face, [first], out) == {"me": "known"}, "another place and time, the same content"
    plant(first, 3)
    os.utime(first, (2e9, 2e9))
    assert states(quick_face, [first], out) == {"me": "done"}


def test_what_was_added_to_a_result_stays(quick_face: LeanFace, tmp_path: Path) -> None:
    me, out = plant(tmp_path / "me.ppm", 1), tmp_path / "out"
    run(quick_face, [me], out)
    (out / "me/notes.txt").write_text("mine")
    assert states(quick_face, [me], out, redo=True) == {"me": "done"}
    assert (out / "me/notes.txt").read_text() == "mine"
    (out / "me/face_1.ply").write_text("mine")
    (error,) = states(quick_face, [me], out, replace(QUICK, mesh="ply")).values()
    assert "face_1.ply is a file that LeanFace did not make" in error
    assert (out / "me/face_1.ply").read_text() == "mine"


def test_the_users_folders_files_and_links_are_left_alone(quick_face: LeanFace, tmp_path: Path) -> None:
    photos = [plant(tmp_path / f"in/{name}.ppm", number) for number, name in enumerate("abcdef")]
    out = tmp_path / "out"
    (out / "a").mkdir(parents=True)
    (out / "a/mine").write_text("mine")
    (out / "b").write_text("mine")
    (out / "c").symlink_to(out / "a")
    (out / "d").mkdir()
    (out / "e").symlink_to("nowhere")
    found = states(quick_face, photos, out)
    assert [name for name, state in found.items() if state == "done"] == ["d", "f"]
    assert all("that LeanFace did not make" in found[name] for name in "abce")
    assert (out / "a/mine").read_text() == (out / "b").read_text() == "mine"
    assert (out / "c").is_symlink()
    assert (out / "e").is_symlink()


def test_several_runs_may_write_the_same_at_once(quick_face: LeanFace, tmp_path: Path) -> None:
    photos = [plant(tmp_path / f"in/a-{number}.ppm", number) for number in range(5)]
    with ThreadPoolExecutor(3) as threads:
        runs = list(threads.map(lambda _: states(quick_face, photos, tmp_path / "out", redo=True), range(3)))
    assert all(set(found.values()) == {"done"} for found in runs)
    assert all(is_intact(tmp_path / "out" / photo.stem) for photo in photos)
    assert set(states(quick_face, photos, tmp_path / "out").values()) == {"known"}


def clip(path: Path, frames: int) -> Path:
    av: Any = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 16, 16, "yuv420p"
        for _ in range(frames):
            container.mux(
                stream.encode(av.VideoFrame.from_ndarray(np.full((16, 16, 3), 128, np.uint8), format="rgb24"))
            )
        container.mux(stream.encode(None))
    return path


def test_a_video_s_earlier_frames_make_room_and_nothing_else_does(quick_face: LeanFace, tmp_path: Path) -> None:
    video, out = clip(tmp_path / "clip.mp4", 6), tmp_path / "out"

    def frames() -> list[str]:
        return sorted(path.name for path in (out / "clip").iterdir() if path.name != MARK)

    run(quick_face, [video], out, video=FOLDERS)
    assert frames() == [f"{index:06d}" for index in range(6)]
    assert {kind_of_result(out / "clip" / name) for name in frames()} == {"frame"}
    (out / "clip/000004/notes.txt").write_text("mine")
    (out / "clip/mine").mkdir()
    run(quick_face, [video], out, video=replace(FOLDERS, every=3))
    assert frames() == ["000000", "000003", "000004", "mine"]
    assert [path.name for path in (out / "clip/000004").iterdir() if path.name != MARK] == ["notes.txt"]
    run(quick_face, [clip(tmp_path / "clip.mp4", 2)], out, video=FOLDERS)
    assert frames() == ["000000", "000001", "000004", "mine"]
    run(quick_face, [video], out)  # as an animation, and then as frames again
    assert frames() == ["000004", "mine", "person_1.csv", "person_1_arkit.csv", "person_1_arkit.json", RECORD]
    run(quick_face, [video], out, video=FOLDERS)
    assert frames() == ["000000", "000001", "000004", "mine"]


def test_a_folder_of_the_users_keeps_a_video_out(quick_face: LeanFace, tmp_path: Path) -> None:
    video, out = clip(tmp_path / "clip.mp4", 2), tmp_path / "out"
    (out / "clip/000000").mkdir(parents=True)
    (out / "clip/000000/mine").write_text("mine")
    (error,) = states(quick_face, [video], out, video=FOLDERS).values()
    assert "clip is a folder with '000000' in it that LeanFace did not make" in error
    assert [path.name for path in out.rglob("*")] == ["clip", "000000", "mine"]


def test_a_damaged_video_leaves_earlier_frames_alone(quick_face: LeanFace, tmp_path: Path) -> None:
    video, out = clip(tmp_path / "clip.mp4", 2), tmp_path / "out"
    run(quick_face, [video], out, video=FOLDERS)
    video.write_bytes(b"no video")
    assert "as a video" in states(quick_face, [video], out, video=FOLDERS)["clip"]
    assert is_intact(out / "clip/000000")


@pytest.mark.parametrize("within", ["", "faces/deep"])
def test_own_results_never_become_input(quick_face: LeanFace, tmp_path: Path, within: str) -> None:
    for number, name in enumerate(("a.ppm", "sub/b.ppm")):
        plant(tmp_path / name, number)
    settings = Settings(mesh="obj", texture_px=64)
    for expected in ("done", "known", "known"):
        found = states(quick_face, [tmp_path], tmp_path / within, settings)
        assert found == {"a": expected, "sub/b": expected}
    plant(tmp_path / within / "a/new.ppm", 3)
    assert "done" in states(quick_face, [tmp_path], tmp_path / within, settings).values()


def test_a_folder_of_results_among_the_inputs_is_passed_over(quick_face: LeanFace, tmp_path: Path) -> None:
    me = plant(tmp_path / "me.ppm", 1)
    run(quick_face, [me], tmp_path, Settings(mesh=None, texture_px=0))
    assert {source.name for source in find_sources([str(path) for path in sorted(tmp_path.iterdir())])} == {"me"}
    overlay = tmp_path / "me/overlay.png"
    assert [source.path for source in find_sources([str(overlay)])] == [overlay], "it was named itself"


def test_an_input_that_gives_nothing_does_not_stop_the_others(quick_face: LeanFace, tmp_path: Path) -> None:
    me = plant(tmp_path / "me.ppm", 1)
    (tmp_path / "empty").mkdir()
    found = states(quick_face, [me, tmp_path / "empty", tmp_path / "none" / "*.jpg"], tmp_path / "out")
    assert found["me"] == "done"
    assert "holds no photos or videos" in found["empty"]
    assert len(found) == 3


def test_links_are_followed_and_circles_end(tmp_path: Path) -> None:
    for name in ("real/1.ppm", "other/2.ppm", "real/.thumbnails/3.ppm", "real/@eaDir/4.ppm", "real/.5.ppm"):
        plant(tmp_path / name, 0)
    (tmp_path / "real/album").symlink_to(tmp_path / "other")
    (tmp_path / "real/again").symlink_to(tmp_path / "real")
    (tmp_path / "other/up").symlink_to(tmp_path / "real")
    (tmp_path / "real/own.ppm").symlink_to("1.ppm")
    (tmp_path / "real/broken.ppm").symlink_to("nowhere")
    (tmp_path / "real/itself.ppm").symlink_to("itself.ppm")
    files, own = walk(tmp_path / "real")
    assert [file.relative_to(tmp_path / "real").as_posix() for file in files] == ["1.ppm", "album/2.ppm", "own.ppm"]
    assert own == 0


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("*.ppm", ["a"]),
        ("**.ppm", ["a"]),
        ("**/*.ppm", ["a", "x/b", "x/y/c"]),
        ("x/**", ["b", "y/c"]),
        ("*/?.ppm", ["x/b"]),
        ("[a-x]/y/*", ["x/y/c"]),
    ],
)
def test_patterns_are_matched_part_by_part(tmp_path: Path, pattern: str, names: list[str]) -> None:
    for name in ("a.ppm", "x/b.ppm", "x/y/c.ppm", ".hidden/d.ppm"):
        plant(tmp_path / name, 0)
    assert [source.name for source in find_sources([str(tmp_path / pattern)])] == names


@pytest.mark.parametrize(
    ("files", "names"),
    [
        (["me.jpg", "me.png", "x/me.jpg"], ["me_jpg", "me_png", "x/me"]),
        (["a.jpg", "A.jpg"], ["a_jpg", "A_jpg_2"]),
        (["é.jpg", "e\u0301.png", "É.gif"], ["é_jpg", "e\u0301_png", "É_gif"]),
        (["holiday.jpg", "holiday/1.jpg"], ["holiday_jpg", "holiday/1"]),
        (["clip.mp4", "clip/000000.jpg"], ["clip_mp4", "clip/000000"]),
        (["A.jpg", "a/b/c.jpg"], ["A_jpg", "a/b/c"]),
        (["a.jpg", "a.png", "a_jpg.png"], ["a_jpg_2", "a_png", "a_jpg"]),
        (["..png", "...png", ".a.jpg", "b .jpg", "c..jpg"], ["_png", "_png_2", "_a", "b", "c"]),
        (["stdin", "webcam_0"], ["stdin", "webcam_0"]),
    ],
)
def test_names_of_results(files: list[str], names: list[str]) -> None:
    assert result_names(files) == names


def test_long_names_are_cut_and_stay_apart() -> None:
    names = result_names([f"{'é' * 126}{end}.jpg" for end in ("", "a", "b")] + ["x" * 255])
    assert len(set(names)) == 4
    assert max(len(name.encode()) for name in names) <= BYTES_MAX


def test_sixty_thousand_names_take_no_time_that_grows_with_their_square() -> None:
    """It takes a second; with the square it would run into the time limit of a test."""
    names = result_names(["IMG_0001.jpg"] * 60_000)
    assert len(set(names)) == 60_000


def test_an_output_folder_that_cannot_be_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("mine")
    assert main(["reconstruct", "astronaut", "--out", str(tmp_path / "file")]) == 1
    assert "A file is where a folder must be" in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "mine"


def test_a_record_says_what_the_result_depends_on(quick_face: LeanFace, tmp_path: Path) -> None:
    run(quick_face, [plant(tmp_path / "me.ppm", 1)], tmp_path / "out")
    record = json.loads((tmp_path / "out/me" / RECORD).read_text())
    assert record["settings"]["min_face_px"] is None
    assert record["made_with"].keys() >= {"leanface", "network_sha256", "morphable_model_sha256"}
    assert str(tmp_path) not in json.dumps(record), "where the photo lay is nobody's business"
