"""Trials side by side: they share stages and divide the cores, and whatever stops them leaves nothing behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from leanface import paths
from leanface.errors import ConfigError
from leanface.files import read_json, write_json
from leanface.sweep.app import main
from leanface.sweep.experiments import CHECKOUTS, cache_folder, clear_leftovers, read_tree
from leanface.sweep.shared import share_record, shared_record
from leanface.sweep.trials import SWEEP_FILE, read_trials, sweep_folder

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")

Ran = Callable[[], dict[str, int]]
Start = Callable[..., subprocess.Popen[str]]

LAUNCHERS = {
    "joblib": ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"],
    "ray": ["hydra/launcher=ray", "hydra.launcher.num_cpus=2"],
    "submitit_local": ["hydra/launcher=submitit_local", "hydra.launcher.cpus_per_task=1"],
}


def needs(launcher: str) -> None:
    pytest.importorskip({"ray": "ray", "submitit_local": "submitit"}.get(launcher, "joblib"))


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_parallel_trials_share_stages_and_divide_the_cores(toy: Path, ran: Ran, start: Start, launcher: str) -> None:
    needs(launcher)
    stage = Path("stage.py")
    stage.write_text(
        stage.read_text().replace('{ratio} {temperature}"', '{ratio} {temperature} " + os.environ["OMP_NUM_THREADS"]')
    )
    subprocess.run(["git", "commit", "-qam", "threads"], check=True)
    process = start("-m", *LAUNCHERS[launcher], "distill.temperature=1,2", "name=p")
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 0, output
    trials = read_trials("p")
    assert [trial.status for trial in trials] == ["finished"] * 2
    assert trials[1].started < (trials[0].ended or 0)  # side by side
    assert ran()["teacher"] == 1
    assert ran()["prune"] == 1
    assert ran()["distill"] == 2
    for trial in trials:
        assert read_tree(paths.SUMMARY, trial.name)["variants"]["quantized_int8"]["truth_vertex_mm"] == trial.values[0]


def asleep(process: subprocess.Popen[str], count: int) -> set[int]:
    """Process ids of so many stages that sleep."""
    folder = Path(os.environ["COUNT"]).parent
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        found = {int(path.read_text()) for path in folder.glob("asleep-*")}
        if len(found) >= count:
            return found
        time.sleep(0.1)
    raise AssertionError(process.communicate(timeout=60)[0])


def gone(sleepers: set[int], seconds: float) -> bool:
    """Whether all of them end within this time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not any(psutil.pid_exists(pid) for pid in sleepers):
            return True
        time.sleep(0.1)
    return False


@pytest.mark.parametrize(("launcher", "from_terminal"), [("joblib", True), ("ray", False), ("submitit_local", True)])
def test_ctrl_c_leaves_no_process_and_no_lock_and_the_sweep_goes_on(
    toy: Path, ran: Ran, start: Start, launcher: str, from_terminal: bool
) -> None:
    needs(launcher)
    arguments = ["-m", *LAUNCHERS[launcher], "prune.ratio=0.3,0.5", "name=stop"]
    process = start(*arguments, "distill.temperature=99")
    sleepers = asleep(process, 2)
    if from_terminal:
        os.killpg(process.pid, signal.SIGINT)  # which sends it to all in the foreground
    else:
        process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "\nstopped.\n" in output  # after it launchers say what they have to say
    assert "to go on:\n  leanface sweep -m" in output
    assert not any(psutil.pid_exists(pid) for pid in sleepers)
    assert [trial.status for trial in read_trials("stop")] == ["interrupted"] * 2
    assert not list(CHECKOUTS.glob("tmp*"))
    before = ran()
    main(["-m", "prune.ratio=0.3,0.5", "distill.temperature=2", "name=stop"])
    assert ran()["distill"] == before["distill"] + 2
    assert ran()["prune"] == before["prune"]


def test_a_sweep_that_is_killed_outright_takes_its_trials_along(toy: Path, ran: Ran, start: Start) -> None:
    process = start("-m", "distill.temperature=99", "name=stop")
    sleepers = asleep(process, 1)
    clear_leftovers()
    assert len(list(CHECKOUTS.glob("tmp*"))) == 1  # it is in use
    process.kill()
    assert gone(sleepers, 30)
    assert [trial.status for trial in read_trials("stop")] == ["running"]
    main(["-m", "distill.temperature=2", "name=stop"])
    assert sorted(trial.status for trial in read_trials("stop")) == ["finished", "interrupted"]


def test_what_was_killed_with_all_that_would_have_cleared_up_is_cleared_by_the_next_sweep(
    toy: Path, start: Start
) -> None:
    process = start("-m", "distill.temperature=99", "name=stop")
    asleep(process, 1)
    for child in [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]:
        child.kill()
    process.wait()
    assert len(list(CHECKOUTS.glob("tmp*"))) == 1
    main(["-m", "distill.temperature=2", "name=stop"])
    assert not list(CHECKOUTS.glob("tmp*"))


def test_a_machine_that_does_not_share_folder_and_cache_is_refused(toy: Path) -> None:
    folder = sweep_folder("far")
    with pytest.raises(ConfigError, match=r"does not see multirun/far/sweep\.json"):
        shared_record(folder)
    share_record(folder, {"name": "far"})
    assert shared_record(folder)["name"] == "far"
    record = read_json(folder / SWEEP_FILE)
    for path in (folder / SWEEP_FILE, cache_folder() / "leanface-far.json"):
        write_json(path, record | {"machine": "elsewhere"})
    assert shared_record(folder)["machine"] == "elsewhere"
    subprocess.run([sys.executable, "-m", "dvc", "cache", "dir", "--local", str(toy.parent / "own")], check=True)
    with pytest.raises(ConfigError, match="does not share DVC's cache with elsewhere"):
        shared_record(folder)
