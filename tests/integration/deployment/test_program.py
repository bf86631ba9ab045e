"""The bundle's program in C++: it builds, and reads what LeanFace reads."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import openvino
import pytest
from PIL import Image

from leanface import LeanFace, load_photo
from leanface.photos.load import photo_path

TOLERANCE = 0.06
"""Relative L2 distance of the coefficients: the program runs the face detector in OpenVINO, too."""


def run(*command: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, timeout=240)


@pytest.fixture(scope="module")
def program(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle's program in C++, built as its README says."""
    if shutil.which("cmake") is None or not any(map(shutil.which, ("c++", "g++", "clang++"))):
        pytest.skip("no cmake, or no C++ compiler")
    build = tmp_path_factory.mktemp("build")
    headers = Path(openvino.__path__[0]) / "cmake"
    configured = run("cmake", "-S", folder / "cpp", "-B", build, f"-DOpenVINO_DIR={headers}")
    if "Could NOT find JPEG" in configured.stderr:
        pytest.skip("libjpeg's headers are not installed (Debian, Ubuntu: libjpeg-dev)")
    assert configured.returncode == 0, configured.stderr
    built = run("cmake", "--build", build)
    assert built.returncode == 0, built.stderr
    return build / "read_face"


def test_the_program_reads_photos_as_leanface_does(program: Path, folder: Path, exported, tmp_path: Path) -> None:
    Image.fromarray(load_photo("astronaut")).save(tmp_path / "astronaut.jpg", quality=95)
    with LeanFace.load(exported.int8, "openvino") as lean_face:
        for photo in (tmp_path / "astronaut.jpg", photo_path("grace_hopper")):
            done = run(program, photo, folder)
            assert done.returncode == 0, done.stderr
            found = np.array(done.stdout.split(), float)
            (crop,) = lean_face.crop(load_photo(photo), "largest")
            (expected,) = lean_face.read(crop.crop[None])
            assert found.shape == (257,)
            assert np.linalg.norm(found - expected) < TOLERANCE * np.linalg.norm(expected)


def test_the_program_refuses_what_it_cannot_read(program: Path, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "letter.jpg").write_bytes(b"not a photo")
    Image.new("RGB", (300, 200), "gray").save(tmp_path / "gray.jpg")
    Image.fromarray(np.rot90(load_photo("astronaut"))).save(tmp_path / "lying.jpg")
    for name, words in {
        "letter.jpg": "not a JPEG",
        "gray.jpg": "no face found",
        "lying.jpg": "the face is tilted",
        "absent.jpg": "cannot open",
    }.items():
        done = run(program, tmp_path / name, folder)
        assert (done.returncode, done.stdout) == (1, "")
        assert words in done.stderr
    assert "alignment.txt is missing" in run(program, tmp_path / "gray.jpg", tmp_path).stderr
