"""Trials side by side: they share stages and divide the cores, and whatever stops them leaves nothing behind."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from leanface import paths
from leanface.sweep.experiments import read_tree
from leanface.sweep.trials import read_trials

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
        assert read_tree(paths.SUMMARY, trial.name)["variants"]["quantized_int8"]["vertex_error_mm"] == trial.values[0]
