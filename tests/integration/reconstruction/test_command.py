"""The reconstruct command in a pipe."""

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from leanface.photos.load import load_photo


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


def test_from_standard_input_to_standard_output(exported: Any) -> None:
    content = io.BytesIO()
    Image.fromarray(load_photo("astronaut")).save(content, "PNG")
    command = [sys.executable, "-m", "leanface", "reconstruct", "-", "--out", "-", "--texture", "64"]
    command += ["--model", str(exported.fp32)]
    done = subprocess.run(command, input=content.getvalue(), capture_output=True, check=True)
    assert done.stdout[:4] == b"glTF"
    assert int.from_bytes(done.stdout[8:12], "little") == len(done.stdout)
