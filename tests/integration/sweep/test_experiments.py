"""An experiment runs itself and nothing else, whatever DVC has waiting."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from dvc.repo import Repo

from leanface.sweep import dvc_executor
from leanface.sweep.experiments import experiment_names, experiment_revision, read_text, run_experiment

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")

Ran = Callable[[], dict[str, int]]


def run(name: str, *overrides: str) -> None:
    run_experiment(name, overrides, seconds={}, log=Path("multirun/x/dvc.log"), environment={}, stop=Path("stop"))


def stashed(reference: str) -> list[str]:
    done = subprocess.run(["git", "reflog", reference], capture_output=True, text=True, check=False)
    return done.stdout.splitlines()


def test_it_leaves_another_that_starts_to_the_process_that_started_it(toy: Path, ran: Ran) -> None:
    with Repo() as repo:
        queue = repo.experiments.tempdir_queue
        repo.experiments.queue_one(queue, name="other", params={"params.yaml": ["distill.temperature=3"]})
    run("mine", "distill.temperature=2")
    assert experiment_names() == ["mine"]
    assert ran()["distill"] == 1
    assert len(stashed(queue.ref)) == 1
    # As `dvc exp run` would not: it runs what it finds.
    subprocess.run([sys.executable, "-m", "dvc", "exp", "run", "--temp", "-n", "third"], check=True)
    assert sorted(experiment_names()) == ["mine", "other", "third"]


def test_it_starts_anew_after_a_start_that_was_killed(toy: Path, ran: Ran) -> None:
    with Repo() as repo:
        queue = dvc_executor.OwnQueue(repo, "mine")
        repo.experiments.queue_one(queue, name="mine", params={"params.yaml": ["distill.temperature=3"]})
    run("mine", "distill.temperature=2")
    assert ran()["distill"] == 1
    assert not stashed(queue.ref)


def test_it_waits_for_the_repository_as_long_as_it_takes(toy: Path, ran: Ran) -> None:
    with Repo() as repo:
        repo.lock.lock()
        command = [sys.executable, "-m", dvc_executor.__name__, "mine", "distill.temperature=2"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(10)  # `dvc` gives up after 3 seconds
        repo.lock.unlock()
    assert process.wait(60) == 0
    assert experiment_names() == ["mine"]


def test_it_writes_what_dvc_would(toy: Path, ran: Ran) -> None:
    run("mine", "distill.temperature=2")
    subprocess.run(
        [sys.executable, "-m", "dvc", "exp", "run", "--temp", "-n", "plain", "-S", "distill.temperature=2"], check=True
    )
    for path in ("dvc.lock", "params.yaml"):
        assert read_text(Path(path), "mine") == read_text(Path(path), "plain")


def test_a_shallow_clone_keeps_its_experiments_and_stays_a_shallow_clone(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subprocess.run(["git", "commit", "-q", "--allow-empty", "-m", "second"], check=True)
    clone = tmp_path / "shallow"
    subprocess.run(["git", "clone", "-q", "--depth", "1", toy.as_uri(), clone], check=True)
    monkeypatch.chdir(clone)
    for number, temperature in enumerate((2, 3)):
        run(f"trial-{number}", f"distill.temperature={temperature}")
    assert sorted(experiment_names()) == ["trial-0", "trial-1"]
    assert (clone / ".git/shallow").read_text().split() == [
        subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    ]
    subprocess.run(["git", "fsck", "--connectivity-only"], check=True)


def test_without_an_identity_git_is_given_one(toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))  # no .gitconfig
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    (toy / "stage.py").write_text((toy / "stage.py").read_text() + "\n")  # DVC stashes what is not committed
    run("mine", "distill.temperature=2")
    author = ["git", "log", "-1", "--format=%an", str(experiment_revision("mine"))]
    assert subprocess.run(author, capture_output=True, text=True, check=True).stdout == "LeanFace\n"
