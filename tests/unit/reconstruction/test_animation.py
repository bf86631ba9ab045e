"""Videos become one animated head per person; whatever ends one early, what was read is kept and valid."""

import csv
import json
import logging
import resource
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from leanface.cli import main
from leanface.face.arkit import NAMES
from leanface.files import is_intact
from leanface.photos import video as reader
from leanface.photos.video import open_video
from leanface.reconstruction import LeanFace
from leanface.reconstruction.flow import Outcome, reconstruct_all
from leanface.reconstruction.outputs import RECORD, Settings, VideoSettings
from leanface.reconstruction.person import place_in_video
from leanface.reconstruction.sources import Source, find_sources
from tests.glb import Glb
from tests.videos import HEAD, HEIGHT, RATE_HZ, WIDTH, clip, scene, two_heads

av: Any = pytest.importorskip("av")

QUICK = Settings(mesh=None, texture_px=0, pictures=False)


@pytest.fixture(scope="module")
def heads() -> list[Image.Image]:
    """Two people's heads."""
    return two_heads()


def run(
    lean_face: LeanFace, path: Path | str, out: Path, settings: Settings = QUICK, **options: Any
) -> dict[str, Outcome]:
    return {each.name: each for each in reconstruct_all(lean_face, find_sources([str(path)]), out, settings, **options)}


def table(path: Path) -> dict[str, np.ndarray]:
    """Read a CSV's columns."""
    with path.open() as file:
        rows = list(csv.reader(file))
    return {name: np.array(column, float) for name, *column in zip(*rows, strict=True)}


def numbers(out: Path) -> dict[str, list[int]]:
    """Say in which frames each person was seen."""
    return {path.stem: table(path)["frame"].astype(int).tolist() for path in sorted(out.glob("person_?.csv"))}


def test_a_person_s_file_moves_as_the_tables_say_at_the_video_s_own_times(
    lean_face: LeanFace, heads: list[Image.Image], tmp_path: Path
) -> None:
    times = [0, 1, 2, 5, 6, 8, 12, 13]
    path = clip(tmp_path / "clip.mkv", [scene((heads[0], 20 + 20 * time)) for time in times], times)
    seen: list[tuple[int, int | None]] = []
    settings = Settings(texture_px=64)
    outcomes = run(lean_face, path, tmp_path / "out", settings, watch=lambda done, total: seen.append((done, total)))
    out = tmp_path / "out/clip"
    assert outcomes == {"clip": Outcome("clip", 1)}
    assert [done for done, _ in seen] == list(range(1, len(times) + 1))
    assert sorted(file.name for file in out.iterdir() if not file.name.startswith(".")) == [
        *("overlay.mp4", "person_1.csv", "person_1.glb", "person_1.png"),
        *("person_1_arkit.csv", "person_1_arkit.json", RECORD),
    ]
    columns = table(out / "person_1.csv")
    assert columns["seconds"] == pytest.approx(np.array(times) / RATE_HZ, abs=2e-3)
    # The head wanders 1 cm in 10 pixels or so, at one height and distance.
    assert np.corrcoef(columns["x_m"], times)[0, 1] > 0.99
    assert np.ptp(columns["x_m"]) > 5 * np.ptp(columns["y_m"])

    glb = Glb.read(out / "person_1.glb")
    animation = glb.animation()
    assert animation["times"] == pytest.approx(columns["seconds"])
    expression = np.stack([columns[f"expression_{index}"] for index in range(64)], 1)
    assert animation["weights"].reshape(-1, 64) == pytest.approx(expression, abs=1e-4)
    assert animation["translation"] == pytest.approx(np.stack([columns[f"{axis}_m"] for axis in "xyz"], 1), abs=1e-5)
    with open_video(out / "overlay.mp4") as overlay:
        drawn = list(overlay.frames())
    assert [frame.seconds for frame in drawn] == pytest.approx(columns["seconds"], abs=2e-3)
    assert drawn[0].image().shape == (HEIGHT, WIDTH, 3)


def test_arkit_weights_come_as_json_and_as_live_link_face_s_table(
    lean_face: LeanFace, heads: list[Image.Image], tmp_path: Path
) -> None:
    run(lean_face, clip(tmp_path / "clip.mp4", [scene((heads[0], 100))] * 3, [0, 1, 63]), tmp_path / "out")
    content = json.loads((tmp_path / "out/clip/person_1_arkit.json").read_text())
    assert sorted(content["names"] + content["not_expressed"]) == sorted(NAMES)
    weights = dict(zip(content["names"], content["frames"][0]["weights"], strict=True))
    # She smiles with her mouth a little open.
    assert weights["mouthSmileLeft"] > 0.3 > weights["mouthFrownLeft"]
    lines = [line.split(",") for line in (tmp_path / "out/clip/person_1_arkit.csv").read_text().splitlines()]
    assert [len(line) for line in lines] == [2 + 61] * 4
    assert [line[0] for line in lines[1:]] == ["00:00:00:00.000", "00:00:00:02.400", "00:00:02:31.200"]
    row = dict(zip(lines[0], lines[1], strict=True))
    assert float(row["MouthSmileLeft"]) == pytest.approx(weights["mouthSmileLeft"], abs=1e-4)
    assert {row[f"{name[0].upper()}{name[1:]}"] for name in content["not_expressed"]} == {"0.000000"}


def test_each_person_has_a_file_who_leaves_who_enters_and_who_is_there_after_a_cut(
    lean_face: LeanFace, heads: list[Image.Image], tmp_path: Path
) -> None:
    first, second = heads
    alone, both = scene((first, 20)), scene((first, 20), (second, 400))
    other, cut = scene((second, 400)), scene((second, 300), background=250)
    # Every fifth of a second; newcomers are looked for once a second.
    frames = [alone] * 2 + [both] * 8 + [other] * 5 + [cut] * 2
    path = clip(tmp_path / "clip.mp4", frames, [5 * index for index in range(len(frames))])
    assert run(lean_face, path, tmp_path / "out")["clip"].faces == 2
    seen = numbers(tmp_path / "out/clip")
    assert seen["person_1"] == list(range(10))
    assert seen["person_2"][-3:] == [14, 15, 16]  # after the cut, too
    record = json.loads((tmp_path / "out/clip" / RECORD).read_text())
    assert [person["name"] for person in record["people"]] == list(seen)
    assert record["people"][0]["last_s"] == pytest.approx(9 * 0.2, abs=0.01)


def test_who_comes_back_is_the_same_person(lean_face: LeanFace, heads: list[Image.Image], tmp_path: Path) -> None:
    first, second = heads
    empty = scene()
    # Fifths of a second: away for one second; another one comes meanwhile; the first comes back somewhere else.
    frames = (
        [scene((first, 20))] * 4 + [empty] * 5 + [scene((second, 300))] * 4 + [empty] * 5 + [scene((first, 250))] * 6
    )
    path = clip(tmp_path / "clip.mp4", frames, [5 * index for index in range(len(frames))])
    assert run(lean_face, path, tmp_path / "out", Settings(texture_px=64))["clip"].faces == 2
    assert numbers(tmp_path / "out/clip") == {
        "person_1": [*range(4), *range(18, 24)],
        "person_2": list(range(9, 13)),
    }
    glb = Glb.read(tmp_path / "out/clip/person_1.glb")
    assert len(glb.animation()["times"]) == 10


def test_people_who_left_long_ago_make_room(
    lean_face: LeanFace, heads: list[Image.Image], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("leanface.reconstruction.animation.AWAY_BYTES", 0)  # for one person
    first, second = heads
    empty = [scene()] * 4
    frames = [scene((first, 20))] * 2 + empty + [scene((second, 300))] * 2 + empty + [scene((first, 20))] * 2
    path = clip(tmp_path / "clip.mp4", frames, [5 * index for index in range(len(frames))])
    run(lean_face, path, tmp_path / "out")
    assert numbers(tmp_path / "out/clip") == {"person_1": [0, 1], "person_2": [6, 7], "person_3": [12, 13]}


def test_two_people_who_cross_keep_their_numbers(lean_face: LeanFace, heads: list[Image.Image], tmp_path: Path) -> None:
    first, second = heads
    steps = range(0, 400, 16)
    frames = [scene((second, 400 - step), (first, step)) for step in steps]  # the first one passes in front
    path = clip(tmp_path / "clip.mp4", frames)
    assert run(lean_face, path, tmp_path / "out")["clip"].faces == 2
    one, two = (table(tmp_path / f"out/clip/person_{number}.csv")["x_m"] for number in (1, 2))
    rightward, leftward = (one, two) if one[0] < 0 else (two, one)
    assert (np.diff(rightward) > 0).all()
    assert len(rightward) == len(steps)
    assert leftward[0] > 0.15
    assert leftward[-1] < -0.15
    assert np.diff(leftward).max() < 0.01  # half covered, a head is read some millimeters off


def test_who_is_seen_in_one_frame_only_is_nobody_unless_the_video_has_no_other(
    lean_face: LeanFace, heads: list[Image.Image], tmp_path: Path
) -> None:
    frames = [scene((heads[0], 20))] * 3
    frames[1] = scene((heads[1], 300), background=250)
    assert run(lean_face, clip(tmp_path / "flash.mp4", [*frames, frames[0]]), tmp_path / "out")["flash"].faces == 1
    assert numbers(tmp_path / "out/flash") == {"person_1": [2, 3]}
    assert run(lean_face, clip(tmp_path / "one.mp4", frames[:1]), tmp_path / "out")["one"].faces == 1
    assert numbers(tmp_path / "out/one") == {"person_1": [0]}


def test_a_video_without_a_face_leaves_a_line_and_nothing_else(
    lean_face: LeanFace, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = clip(tmp_path / "clip.mp4", [scene()] * 3)
    outcome = run(lean_face, path, tmp_path / "out", Settings(texture_px=64))["clip"]
    assert outcome.faces == 0
    assert "no face that can be read in more than one of its 3 frames" in (outcome.error or "")
    assert list((tmp_path / "out").iterdir()) == []
    assert caplog.messages == []


def test_ctrl_c_keeps_the_frames_of_someone_who_is_not_known_yet(
    lean_face: LeanFace, heads: list[Image.Image], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, out = clip(tmp_path / "clip.mp4", [scene((heads[0], 100))] * 20), tmp_path / "out/clip"
    read, counts = lean_face.read, list[int]()

    def interrupted(crops: np.ndarray) -> np.ndarray:
        if counts:
            raise KeyboardInterrupt
        counts.append(len(crops))
        return read(crops)

    monkeypatch.setattr(lean_face, "read", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(lean_face, path, out.parent, video=VideoSettings(frames_as="folders"))
    assert len(list(out.glob("*/face_1.json"))) == counts[0] > 0


def test_ctrl_c_keeps_what_was_read_and_a_rerun_reads_the_rest(
    lean_face: LeanFace, heads: list[Image.Image], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, out = clip(tmp_path / "clip.mp4", [scene((heads[0], 100))] * 30), tmp_path / "out/clip"
    read = lean_face.read
    batches = iter(range(10))

    def interrupted(crops: np.ndarray) -> np.ndarray:
        if next(batches) == 2:
            raise KeyboardInterrupt
        return read(crops)

    def stop(**options: Any) -> None:
        with pytest.raises(KeyboardInterrupt):
            run(lean_face, path, out.parent, **options)

    with monkeypatch.context() as patch:
        patch.setattr(lean_face, "read", interrupted)
        stop()
    kept = numbers(out)["person_1"]
    assert 8 <= len(kept) <= 16
    assert is_intact(out)
    assert json.loads((out / RECORD).read_text())["complete"] is False
    assert run(lean_face, path, tmp_path / "out")["clip"] == Outcome("clip", 1)
    assert numbers(out)["person_1"] == list(range(30))
    assert run(lean_face, path, tmp_path / "out")["clip"].skipped

    # A result that is complete is not given up for a part of the next one.
    batches = iter(range(1, 10))
    with monkeypatch.context() as patch:
        patch.setattr(lean_face, "read", interrupted)
        stop(redo=True)
    assert numbers(out)["person_1"] == list(range(30))


def test_a_corrupt_frame_in_the_middle_is_passed_over_and_told(
    lean_face: LeanFace, heads: list[Image.Image], tmp_path: Path
) -> None:
    path = clip(tmp_path / "clip.mkv", [scene((heads[0], 100 + 4 * index)) for index in range(8)])
    with av.open(str(path)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    content = bytearray(path.read_bytes())
    start, size = packets[4]
    begin = content.find(b"\x00\x00\x01\xb6", start)  # the picture's own start code
    content[begin : start + size] = bytes(start + size - begin)
    path.write_bytes(content)
    outcome = run(lean_face, path, tmp_path / "out")["clip"]
    assert outcome.faces == 1
    assert "only 7 of 8 frames" in (outcome.error or "")
    seconds = table(tmp_path / "out/clip/person_1.csv")["seconds"]
    assert seconds == pytest.approx([0.04 * index for index in (0, 1, 2, 3, 5, 6, 7)], abs=2e-3)


def test_a_frame_that_fails_is_passed_over_and_told(
    lean_face: LeanFace, heads: list[Image.Image], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = clip(tmp_path / "clip.mp4", [scene((heads[0], 100))] * 6)
    decode, calls = lean_face.decode, iter(range(6))

    def failing(coefficients: np.ndarray, crops: Any) -> Any:
        if next(calls) == 2:
            raise MemoryError
        return decode(coefficients, crops)

    monkeypatch.setattr(lean_face, "decode", failing)
    outcome = run(lean_face, path, tmp_path / "out")["clip"]
    assert outcome.faces == 1
    assert outcome.error == "1 of its 6 frames could not be read (there is not enough memory)"
    assert numbers(tmp_path / "out/clip") == {"person_1": [0, 1, 3, 4, 5]}


def test_a_turned_video_is_read_upright(lean_face: LeanFace, heads: list[Image.Image], tmp_path: Path) -> None:
    stored = np.ascontiguousarray(np.rot90(scene((heads[0], 100)), -1))
    path = clip(tmp_path / "clip.mp4", [stored] * 3, setup=lambda stream: stream.set_display_rotation(90))
    run(lean_face, path, tmp_path / "out", replace(QUICK, pictures=True))
    assert np.abs(table(tmp_path / "out/clip/person_1.csv")["roll_deg"]).max() < 20
    with open_video(tmp_path / "out/clip/overlay.mp4") as overlay:
        (frame, *_) = overlay.frames()
    assert frame.image().shape == (HEIGHT, WIDTH, 3)


@pytest.fixture
def full_disk() -> Iterator[Callable[[int], None]]:
    """Let no file grow beyond a size: to who writes it is as if the disk were full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_leaves_out_the_overlay_or_leaves_the_earlier_result(
    lean_face: LeanFace,
    heads: list[Image.Image],
    tmp_path: Path,
    full_disk: Callable[[int], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    noise = np.random.default_rng(0).integers(0, 99, (8, HEIGHT, WIDTH, 3), np.uint8)
    noise[:, 80 : 80 + HEAD, 100 : 100 + HEAD] = np.asarray(heads[0])
    path, out = clip(tmp_path / "clip.mp4", noise), tmp_path / "out"
    full_disk(250_000)  # room for tables and the preview
    assert run(lean_face, path, out, replace(QUICK, pictures=True))["clip"].faces == 1
    (said,) = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    assert said.startswith("clip: left out overlay.mp4: ")
    assert not (out / "clip/overlay.mp4").exists()
    assert numbers(out / "clip") == {"person_1": list(range(8))}
    full_disk(15_000)
    outcome = run(lean_face, path, out)["clip"]
    assert outcome.faces == 0
    assert "cannot write" in (outcome.error or "")
    full_disk(resource.RLIM_INFINITY)
    assert numbers(out / "clip") == {"person_1": list(range(8))}
    assert is_intact(out / "clip")


def test_a_camera_is_recorded_until_it_goes_away(
    lean_face: LeanFace, heads: list[Image.Image], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = clip(tmp_path / "camera.mkv", [scene((heads[0], 100))] * 5)
    monkeypatch.setattr(reader, "CAMERA_FORMATS", {"linux": ("matroska", str(path))})
    monkeypatch.setattr(reader.sys, "platform", "linux")
    (tmp_path / "out/webcam_0").mkdir(parents=True)
    sources = [Source("webcam_0", "webcam", None, "webcam")]
    (outcome,) = reconstruct_all(lean_face, sources, tmp_path / "out", QUICK)
    assert (outcome.name, outcome.faces) == ("webcam_0_2", 1)
    assert "the camera of webcam:0 stopped after 5 frames" in (outcome.error or "")
    assert numbers(tmp_path / "out/webcam_0_2") == {"person_1": [0, 1, 2, 3, 4]}
    (outcome,) = reconstruct_all(lean_face, sources, tmp_path / "out", QUICK, video=VideoSettings(limit=3))
    assert outcome == Outcome("webcam_0_3", 1)


def test_meshes_that_do_not_move_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = clip(tmp_path / "clip.mp4", [scene()])
    assert main(["reconstruct", str(path), "--out", str(tmp_path / "out"), "--mesh", "obj"]) == 1
    assert "--frames-as folders" in capsys.readouterr().err


def test_the_video_s_camera_sees_the_head_where_it_is(lean_face: LeanFace, heads: list[Image.Image]) -> None:
    photo = scene((heads[0], 380))
    (face,) = lean_face.reconstruct(photo)
    x, y, z = place_in_video(face, photo.shape[:2])
    focal = max(photo.shape[:2])
    origin = np.array([(WIDTH - 1) / 2 - focal * x / z, (HEIGHT - 1) / 2 + focal * y / z])
    # The model's origin lies behind the nose, between the eyes and the mouth.
    middle = face.landmarks[[0, 1, 3, 4]].mean(0)
    assert np.linalg.norm(origin - middle) < 0.2 * np.ptp(face.landmarks[:, 1])
    assert 0.2 < -z < 2
