"""Results travel by a DVC remote: another clone takes them and runs no stage."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.servers import s3_server

Ran = Callable[[], dict[str, int]]


def dvc(*arguments: str) -> str:
    done = subprocess.run([sys.executable, "-m", "dvc", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def s3_url() -> Iterator[str]:
    """An S3-compatible server on this machine."""
    pytest.importorskip("dvc_s3", reason="dvc-s3 is not installed: `pip install dvc-s3 'moto[server]'`")
    with s3_server("results") as url:
        yield url


def _travels(toy: Path, ran: Ran, clone: Path) -> None:
    dvc("repro")
    subprocess.run(["git", "add", "-A"], check=True)
    subprocess.run(["git", "commit", "-qm", "results"], check=True)
    dvc("push")
    before = ran()
    subprocess.run(["git", "clone", "-q", str(toy), str(clone)], check=True)
    os.chdir(clone)
    assert not (clone / "distill.txt").exists()
    dvc("repro", "--pull")
    assert ran() == before | {"probe": before["probe"] + 1}  # which looks at the machine, always
    assert (clone / "distill.txt").read_text() == (toy / "distill.txt").read_text()


def test_through_a_folder(toy: Path, ran: Ran, tmp_path: Path) -> None:
    dvc("remote", "add", "-d", "store", str(tmp_path / "store"))
    _travels(toy, ran, tmp_path / "clone")


@pytest.mark.filterwarnings("default")
def test_through_s3(toy: Path, ran: Ran, tmp_path: Path, s3_url: str) -> None:
    dvc("remote", "add", "-d", "store", "s3://results/leanface")
    dvc("remote", "modify", "store", "endpointurl", s3_url)
    _travels(toy, ran, tmp_path / "clone")
