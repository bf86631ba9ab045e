"""The reconstruct command in a pipe, on a video, and with two networks."""

import io
import json
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from leanface import paths
from leanface.cli import main
from leanface.photos.load import load_photo


@pytest.fixture(scope="module")
def network(exported: Any) -> list[str]:
    return ["--model", str(exported.fp32), "--threads", "1"]


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "astronaut.png"
    Image.fromarray(load_photo("astronaut")).save(path)
    return path


def test_from_standard_input_to_standard_output(exported: Any) -> None:
    content = io.BytesIO()
    Image.fromarray(load_photo("astronaut")).save(content, "PNG")
    command = [sys.executable, "-m", "leanface", "reconstruct", "-", "--out", "-", "--texture", "64"]
    command += ["--model", str(exported.fp32)]
    done = subprocess.run(command, input=content.getvalue(), capture_output=True, check=True)
    assert done.stdout[:4] == b"glTF"
    assert int.from_bytes(done.stdout[8:12], "little") == len(done.stdout)


def test_a_video_gives_a_folder_per_frame(network: list[str], tmp_path: Path) -> None:
    av: Any = pytest.importorskip("av")
    picture = load_photo("astronaut")[:256, 64:320]
    with av.open(str(tmp_path / "clip.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=Fraction(10))
        stream.width = stream.height = 256
        stream.pix_fmt, stream.bit_rate = "yuv420p", 4_000_000
        for index in range(4):
            moved = np.ascontiguousarray(np.roll(picture, 2 * index, axis=1))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(moved, format="rgb24")))
        container.mux(stream.encode(None))
    compared = tmp_path / "compared"
    command = ["reconstruct", str(tmp_path / "clip.mp4"), "--out", str(compared), "--every", "2", "--frames", "1"]
    assert main([*command, "--compare", network[1], *network]) == 0
    assert [path.name for path in sorted((compared / "clip").iterdir())] == ["000000.png"]
    out = tmp_path / "out"
    command = ["reconstruct", str(tmp_path / "clip.mp4"), "--out", str(out), "--mesh", "none", "--texture", "0"]
    command += ["--frames-as", "folders"]
    # A trained network: heads that do not fit their faces are refused.
    assert main([*command, "--frames", "3", "--model", str(paths.PACKAGED_MODEL)]) == 0
    frames = sorted((out / "clip").glob("[0-9]*"))
    assert [frame.name for frame in frames] == ["000000", "000001", "000002"]
    records = [json.loads((frame / "reconstruction.json").read_text()) for frame in frames]
    assert [record["seconds"] for record in records] == pytest.approx([0, 0.1, 0.2])
    identities = [json.loads((frame / "face_1.json").read_text())["coefficients"]["identity"] for frame in frames]
    steps = np.abs(np.diff(identities, axis=0)).mean(1)
    assert steps[1] < steps[0] or steps[0] == 0  # a running mean settles


def test_two_networks_side_by_side(exported: Any, photo: Path, network: list[str], tmp_path: Path) -> None:
    command = ["reconstruct", str(photo), "--out", str(tmp_path / "out")]
    assert main([*command, "--compare", str(exported.float_bundle), *network]) == 0
    content = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert content["networks"]["teacher"]["runtime"] == "torch"
    assert content["networks"]["student"]["runtime"] == "openvino"
    assert content["network_batch_1"]["teacher"]["latency"]["value"] > 0
    ((face,),) = content["pictures"].values()
    assert face["mean_distance_mm"] < 0.5  # the same network twice
    with Image.open(tmp_path / "out" / "astronaut.png") as sheet:
        assert sheet.width > 400
