"""Files, folders, patterns and videos; names that never collide."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from leanface.errors import ArtifactError
from leanface.photos.load import PACKAGED_PHOTOS
from leanface.reconstruction.sources import Source, find_sources, pictures


def photo(path: Path, size: tuple[int, int] = (4, 3)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, "red").save(path)
    return path


def video(path: Path, frames: int) -> Path:
    """Frame k is k * 20 gray, ten to a second."""
    av: Any = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=Fraction(10))
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for index in range(frames):
            picture = np.full((48, 64, 3), 20 * index, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def test_folders_are_searched_through_and_patterns_expanded(tmp_path: Path) -> None:
    for name in ("b.jpg", "a.png", "deep/c.webp", "deep/notes.txt", ".hidden.png"):
        photo(tmp_path / name) if not name.endswith("txt") else (tmp_path / name).write_text("")
    assert [source.name for source in find_sources([str(tmp_path)])] == ["a", "b", "deep/c"]
    assert [source.name for source in find_sources([str(tmp_path / "*.png")])] == ["a"]
    assert [source.name for source in find_sources([str(tmp_path / "**" / "*.webp")])] == ["deep/c"]
    assert [source.name for source in find_sources([str(tmp_path / "a.png"), str(tmp_path)])] == ["a", "b", "deep/c"]


def test_names_never_collide(tmp_path: Path) -> None:
    for name in ("x/me.jpg", "y/me.jpg", "y/me.png"):
        photo(tmp_path / name)
    sources = find_sources([str(tmp_path / "x" / "me.jpg"), str(tmp_path / "y" / "me.jpg"), str(tmp_path / "y/me.png")])
    assert [source.name for source in sources] == ["me_jpg", "me_jpg_2", "me_png"]


def test_packaged_photos_go_by_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    sources = find_sources(list(PACKAGED_PHOTOS))
    assert [source.name for source in sources] == list(PACKAGED_PHOTOS)
    assert all(next(pictures(source)).load().ndim == 3 for source in sources)
    photo(tmp_path / "red.png").rename(tmp_path / "astronaut")
    assert find_sources(["astronaut"])[0].path == Path("astronaut")


def test_nothing_to_be_found_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="holds no photos or videos"):
        find_sources([str(tmp_path)])
    with pytest.raises(ArtifactError, match="matches"):
        find_sources([str(tmp_path / "*.jpg")])


def test_exif_orientation_is_honoured(tmp_path: Path) -> None:
    image, exif = Image.new("RGB", (40, 20)), Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.jpg", exif=exif)
    (picture,) = pictures(find_sources([str(tmp_path / "turned.jpg")])[0])
    assert picture.load().shape == (40, 20, 3)


def test_cameras_and_standard_input_are_named(tmp_path: Path) -> None:
    kinds = [(source.name, source.kind) for source in find_sources(["webcam", "webcam:2", "-"])]
    assert kinds == [("webcam_0", "webcam"), ("webcam_2", "webcam"), ("stdin", "photo")]


def test_frames_come_in_order_with_their_times(tmp_path: Path) -> None:
    (source,) = find_sources([str(video(tmp_path / "clip.mp4", 8))])
    assert source.kind == "video"
    frames = list(pictures(source, every=3))
    assert [frame.name for frame in frames] == ["clip/000000", "clip/000003", "clip/000006"]
    assert [frame.seconds for frame in frames] == pytest.approx([0.0, 0.3, 0.6])
    assert [round(float(frame.load().mean()) / 20) for frame in frames] == [0, 3, 6]
    assert len(list(pictures(source, limit=2))) == 2


def test_what_is_no_video_or_camera_is_an_error(tmp_path: Path) -> None:
    pytest.importorskip("av")
    (tmp_path / "clip.mp4").write_bytes(b"not a video")
    (picture,) = pictures(find_sources([str(tmp_path / "clip.mp4")])[0])
    with pytest.raises(ArtifactError, match="as a video"):
        picture.load()
    (picture,) = pictures(Source("webcam_77", "webcam:77", None, "webcam"))
    with pytest.raises(ArtifactError, match="the camera"):
        picture.load()
