"""The command line as a process: signals and pipes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_command_in_one_line(tmp_path: Path, number: signal.Signals) -> None:
    photo = tmp_path / "photo.jpg"
    os.mkfifo(photo)
    command = [sys.executable, "-m", "tools.studies", "load", "--photo", str(photo)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        with photo.open("wb"):  # returns once the command has opened it, too
            process.send_signal(number)
            assert process.communicate(timeout=60) == ("", "\nstopped.\n")
        assert process.returncode == 128 + number


def test_a_signal_waits_for_the_stage_that_runs(tmp_path: Path) -> None:
    """`leanface auto` runs DVC, which runs the stage: all of them end, and the stage keeps what it has."""
    stage = "trap 'sleep 1; touch kept; exit 130' INT; touch begun; while :; do sleep 0.1; done"
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"endless": {"cmd": stage}}}))
    subprocess.run([sys.executable, "-m", "dvc", "init", "--no-scm", "--quiet"], cwd=tmp_path, check=True)
    program = (
        "import sys\nfrom leanface import cli, compress\nsys.exit(cli.guarded(lambda _: compress._reproduce(), []))"
    )
    with subprocess.Popen([sys.executable, "-c", program], cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        while not (tmp_path / "begun").exists():
            assert process.poll() is None
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=60)[1].endswith("\nstopped.\n")
    assert process.returncode == 128 + signal.SIGTERM
    assert (tmp_path / "kept").exists()


def test_python_m_leanface_is_the_same_command() -> None:
    command = [sys.executable, "-m", "leanface", "stage", "nothing"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "invalid choice: 'nothing'" in done.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["reconstruct", "--help"], ["--version"]])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_closed_pipe_is_no_traceback(arguments: list[str], unbuffered: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "leanface", *arguments]
    environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, env=environment, check=False)
    os.close(writing)
    assert done.returncode in (0, 141)
    assert done.stderr == ""
