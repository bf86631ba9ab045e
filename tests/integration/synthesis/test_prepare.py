"""Preparing faces: in a process of its own, killed, short of disk space, and measured; by more and fewer threads."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from leanface.config import Data
from leanface.face.morphable_model import MorphableModel
from leanface.synthesis.dataset import COEFFICIENTS, IMAGES, LANDMARKS, FaceDataset
from leanface.synthesis.prepare import prepare_faces
from tests.file_trees import manifest_of, sha256
from tests.settings import DATA

PREPARE = """
import resource, sys
from pathlib import Path
from leanface.config import Data
from leanface.synthesis.prepare import prepare_faces
from leanface.face.morphable_model import load_morphable_model

data, folder, workers, limit = sys.argv[1:]
if int(limit):
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
prepare_faces(load_morphable_model(), Data.model_validate_json(data), 0, Path(folder), int(workers))
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(int(status["VmHWM"].split()[0]) / 1024)
"""
"""A process of its own, which can be killed, measured (it prints its peak in MiB) and limited (bytes per file)."""


def start(data: Data, folder: Path, workers: int = 2, limit: int = 0) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PREPARE, data.model_dump_json(), str(folder), str(workers), str(limit)]
    # Large blocks go back when they are freed: the peak is what was in use, not how the heap was cut up.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(2**17)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT])
def test_an_interrupted_run_costs_nothing(model: MorphableModel, faces: Path, tmp_path: Path, sent: int) -> None:
    folder = tmp_path / "faces"
    first = prepare_faces(model, DATA, 1, folder)
    process = start(DATA.model_copy(update={"train_count": 100_000}), folder)
    while not (written := list(tmp_path.glob(f".*/new/train/{IMAGES}"))) or written[0].stat().st_size < 500_000:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(sent)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == -sent
    assert "Exception in thread" not in errors
    left = [entry.name for entry in tmp_path.iterdir() if entry != folder]
    assert len(left) == (1 if sent == signal.SIGKILL else 0)
    assert manifest_of(folder) == first
    FaceDataset(folder / "train")

    assert prepare_faces(model, DATA, 0, folder) == manifest_of(faces)
    assert [entry.name for entry in tmp_path.iterdir()] == ["faces"]
    assert sha256(folder / "train" / IMAGES) == sha256(faces / "train" / IMAGES)


def test_a_full_disk_is_a_clear_error_and_costs_nothing(faces: Path) -> None:
    before = {path: sha256(path) for path in faces.rglob("*.*")}
    process = start(DATA, faces, limit=300_000)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "ArtifactError: cannot write" in errors
    assert "File too large" in errors
    assert {path: sha256(path) for path in faces.rglob("*.*")} == before
    assert [entry.name for entry in faces.parent.iterdir()] == ["faces"]


def test_memory_does_not_grow_with_the_count(tmp_path: Path) -> None:
    peaks_mib: list[float] = []
    few, many = 96, 320
    for count in (few, many):
        data = DATA.model_copy(update={"train_count": count, "image_size": 128, "augment": 0.0})
        output, errors = start(data, tmp_path / "faces", workers=1).communicate(timeout=120)
        assert output, errors
        peaks_mib.append(float(output))
    written_mib = (many - few) * 128 * 128 * 3 / 2**20
    assert peaks_mib[1] - peaks_mib[0] < written_mib / 4


@pytest.mark.parametrize(("workers", "threads"), [(1, 1), (3, 2)])
def test_the_bytes_depend_on_neither_workers_nor_threads(
    model: MorphableModel, faces: Path, tmp_path: Path, workers: int, threads: int
) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        again = prepare_faces(model, DATA, 0, tmp_path / "faces", workers)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert again == manifest_of(faces) == manifest_of(tmp_path / "faces")
    for name, entry in again["splits"].items():
        files = {file.name: sha256(file) for file in (tmp_path / "faces" / name).iterdir()}
        assert files == entry["sha256"]
        assert set(files) == {IMAGES, COEFFICIENTS, LANDMARKS}


def test_another_seed_gives_other_faces_and_another_model_another_hash(
    model: MorphableModel, faces: Path, tmp_path: Path
) -> None:
    small = DATA.model_copy(update={"train_count": 1, "val_count": 1})
    other = prepare_faces(model, small, 1, tmp_path / "faces")
    assert other["splits"]["test"]["sha256"] != manifest_of(faces)["splits"]["test"]["sha256"]
    assert other["morphable_model_sha256"] == manifest_of(faces)["morphable_model_sha256"]
    paler = MorphableModel(**{**dict(model.named_buffers()), "mean_albedo": model.mean_albedo + 0.01})
    changed = prepare_faces(paler, small, 1, tmp_path / "faces")
    assert changed["morphable_model_sha256"] != other["morphable_model_sha256"]
