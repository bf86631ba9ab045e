"""Where ModelScope's snapshot is looked for. Its client reads the environment once, so each case is a process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from leanface.modelscope_hub import BASEL_MODEL, CHECKPOINT

SCRIPT = """
from leanface.errors import ArtifactError
from leanface.modelscope_hub import find_snapshot
try:
    print(find_snapshot())
except ArtifactError as error:
    print("ArtifactError:", error)
"""


def find(cache: Path) -> str:
    # Nobody answers at port 9.
    environment = os.environ | {"MODELSCOPE_CACHE": str(cache), "MODELSCOPE_ENDPOINT": "http://localhost:9"}
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize(
    "place",
    [
        "models/damo--cv_resnet50_face-reconstruction/snapshots/master",
        "hub/models/damo/cv_resnet50_face-reconstruction",
    ],
)
def test_a_cached_snapshot_is_found_without_network(tmp_path: Path, place: str) -> None:
    for file in (CHECKPOINT, BASEL_MODEL):
        (tmp_path / place / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place / file).write_bytes(b"")
    assert find(tmp_path) == str(tmp_path / place)


def test_without_network_and_with_half_a_snapshot_the_error_says_what_to_do(tmp_path: Path) -> None:
    place = tmp_path / "models/damo--cv_resnet50_face-reconstruction/snapshots/master"
    place.mkdir(parents=True)
    (place / CHECKPOINT).write_bytes(b"")
    said = find(tmp_path)
    assert said.startswith("ArtifactError: damo/cv_resnet50_face-reconstruction is neither in ModelScope's cache nor")
    assert "conf/teacher/modelscope.yaml" in said
