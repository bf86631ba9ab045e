"""What counts as a photo or a video, and how the rest is told."""

import logging
from pathlib import Path

import pytest
from PIL import Image

from leanface.photos import kinds
from leanface.photos.kinds import PHOTO_SUFFIXES, RAW_SUFFIXES, VIDEO_SUFFIXES, is_video, kind_of, pick

NOT_PHOTOS = {".pdf", ".eps", ".hdf", ".ico", ".wmf", ".mpg"}


def test_no_suffix_has_two_kinds() -> None:
    assert not PHOTO_SUFFIXES & VIDEO_SUFFIXES
    assert not RAW_SUFFIXES & (PHOTO_SUFFIXES | VIDEO_SUFFIXES)
    assert all(suffix == suffix.lower() and suffix.startswith(".") for suffix in PHOTO_SUFFIXES | VIDEO_SUFFIXES)
    assert not NOT_PHOTOS & PHOTO_SUFFIXES


def test_pillow_reads_every_kind_of_photo() -> None:
    Image.init()
    named_otherwise = {".jif", ".jfi"}
    assert PHOTO_SUFFIXES - kinds.HEIF_SUFFIXES - named_otherwise <= set(Image.registered_extensions())


@pytest.mark.parametrize(("name", "kind"), [("a.JPG", "photo"), ("a.MoV", "video"), ("a.txt", None), ("a", None)])
def test_a_name_tells_the_kind(tmp_path: Path, name: str, kind: str | None) -> None:
    assert kind_of(tmp_path / name) == kind


@pytest.mark.parametrize("suffix", [".ts", ".mts"])
def test_typescript_is_no_video(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"file{suffix}"
    path.write_text("export const answer = 42;\n" * 20)
    assert kind_of(path) is None
    path.write_bytes((b"G" + bytes(187)) * 3)
    assert kind_of(path) == "video"
    path.write_bytes((bytes(4) + b"G" + bytes(187)) * 3)
    assert kind_of(path) == "video"
    path.write_bytes(b"G")
    assert kind_of(path) is None


@pytest.mark.parametrize(
    ("head", "video"),
    [
        (b"\0\0\0\x18ftypisom", True),
        (b"\0\0\0\x18ftypqt  ", True),
        (b"\0\0\0\x18ftypheic", False),
        (b"\0\0\0\x18ftypavif", False),
        (b"\x1aE\xdf\xa3", True),
        (b"RIFF\0\0\0\0AVI LIST", True),
        (b"RIFF\0\0\0\0WEBPVP8 ", False),
        (b"\xff\xd8\xff\xe0", False),
        (b"GIF89a", False),
        (b"", False),
    ],
)
def test_content_tells_videos(head: bytes, video: bool) -> None:
    assert is_video(head) == video


def test_what_is_left_out_is_counted_by_kind(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kinds, "reads_heif", lambda: False)
    caplog.set_level(logging.INFO)
    names = ["a.jpg", "b.cr2", "c.CR2", "d.nef", "e.heic", "f.txt", "g.txt", "h", "i.mp4", ".hidden.txt", "j.jxl"]
    assert [path.name for path in pick([tmp_path / name for name in names], "holiday")] == ["a.jpg", "i.mp4"]
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert warnings == [
        "left out of holiday: 2 .cr2, 1 .nef (camera raw: export it as JPEG or TIFF)",
        "left out of holiday: 1 .heic (HEIC photos need pi-heif: `pip install 'leanface[heic]'`)",
        "left out of holiday: 1 .jxl (JPEG XL: convert it to JPEG or PNG)",
    ]
    assert "passed over in holiday, for being no photo or video: 2 .txt, 1 without a suffix" in caplog.messages
    assert [path.name for path in pick([tmp_path / name for name in names], "holiday", ("photo",))] == ["a.jpg"]
    assert "2 .txt, 1 .mp4, 1 without a suffix" in caplog.text
