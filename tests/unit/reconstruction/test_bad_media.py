"""The command on folders as people have them: what cannot be read is said, all else is done."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from leanface.cli import main
from leanface.photos.load import load_photo

av: Any = pytest.importorskip("av")

FRAMES = 6


def clip(path: Path, **options: str) -> Path:
    picture = np.ascontiguousarray(load_photo("astronaut")[:256, 64:320])
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream("mpeg4", rate=Fraction(25))
        stream.width = stream.height = 256
        stream.pix_fmt, stream.bit_rate, stream.gop_size = "yuv420p", 4_000_000, 1
        for _ in range(FRAMES):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def test_cut_empty_and_wrong_files_stop_nothing_and_are_named(exported: Any, tmp_path: Path, caplog: Any) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    Image.fromarray(load_photo("astronaut")).resize((256, 256)).save(folder / "good.avif")
    whole = clip(folder / "whole.mkv").read_bytes()
    (folder / "headless.mkv").write_bytes(whole[:300])
    content = clip(tmp_path / "all.mp4", movflags="faststart").read_bytes()
    (folder / "half.mp4").write_bytes(content[: len(content) * 2 // 3])
    (folder / "start.mp4").write_bytes(content[:40])
    (folder / "empty.mov").write_bytes(b"")
    (folder / "text.png").write_text("no photo")
    (folder / "raw.NEF").write_bytes(b"II*\0")
    (folder / "notes.txt").write_text("")
    caplog.set_level("INFO")
    command = ["reconstruct", str(folder), "--out", str(out), "--mesh", "none", "--texture", "0", "--no-pictures"]
    assert main([*command, "--model", str(exported.fp32), "--threads", "1"]) == 1

    said = {line.split(":")[0]: line for line in caplog.messages if line.startswith("left out")}
    assert set(said) == {f"left out {name}" for name in ("empty", "headless", "start", "text", f"of {folder}")}
    (cut,) = [line for line in caplog.messages if line.startswith("half is not complete")]
    assert {path.parent.name for path in out.glob("*/reconstruction.json")} == {"good", "whole", "half"}
    frames = {name: len((out / name / "person_1.csv").read_text().splitlines()) - 1 for name in ("whole", "half")}
    assert frames["whole"] == FRAMES
    assert 0 < frames["half"] < FRAMES
    assert f"only {frames['half']} of {FRAMES} frames" in cut
    assert "1 .nef (camera raw" in said[f"left out of {folder}"]
    assert any("1 .txt" in line for line in caplog.messages)
