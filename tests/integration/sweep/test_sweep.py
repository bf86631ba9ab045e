"""Sweeps over a small pipeline of the same form as the real one, with the real DVC, Hydra and Git."""

import contextlib
import fcntl
import json
import os
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from leanface import paths
from leanface.errors import ConfigError, LeanFaceError
from leanface.sweep.app import main
from leanface.sweep.experiments import apply_experiment, read_tree
from leanface.sweep.progress import seconds_left
from leanface.sweep.trials import Trial, read_trials

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")

Ran = Callable[[], dict[str, int]]
Start = Callable[..., subprocess.Popen[str]]


def waiting() -> list[dict]:
    """What MLflow would get."""
    return [json.loads(path.read_text()) for path in Path(".cache/mlflow-outbox").glob("*.json")]


def test_what_git_keeps_is_shared_too_where_it_is_a_metric(toy: Path, ran: Ran) -> None:
    """As `benchmark` is in dvc.yaml: another sweep with the same parameters measures nothing."""
    pipeline = yaml.safe_load(Path("dvc.yaml").read_text())
    pipeline["stages"]["report"]["metrics"] = pipeline["stages"]["report"].pop("outs")
    Path("dvc.yaml").write_text(yaml.safe_dump(pipeline))
    for name in ("one", "two"):
        main(["-m", "prune.ratio=0.3", f"name={name}"])
        subprocess.run(["git", "commit", "-q", "--allow-empty", "-am", "what changes no stage"], check=True)
    assert ran() == {"configure": 2, "teacher": 1, "prune": 1, "distill": 1, "probe": 2, "report": 1}
    (first,), (second,) = read_trials("one"), read_trials("two")
    assert first.name != second.name
    assert first.values == second.values == pytest.approx([1.7])


def test_what_another_sweep_computed_is_taken_over_without_running_a_stage(
    toy: Path, ran: Ran, capfd: pytest.CaptureFixture[str]
) -> None:
    main(["-m", "prune.ratio=0.3", "distill.temperature=1,2", "name=one"])
    before = ran()
    arguments = ["-m", "prune.ratio=0.3", "distill.temperature=2,3", "name=two"]
    main([*arguments, "--dry-run"])
    assert "1 trials to run, 1 finished" in capfd.readouterr().out
    main(arguments)
    assert ran() == {name: count + (name not in ("teacher", "prune")) for name, count in before.items()}
    (_, done), (same, other) = read_trials("one"), read_trials("two")
    assert [same.status, other.status] == ["finished"] * 2
    assert same.values == done.values
    assert same.stages == {}
    assert read_tree(paths.PARAMS, same.name) == read_tree(paths.PARAMS, done.name)
    record = {record["name"]: record for record in waiting()}[same.name]
    assert record["status"] == "FINISHED"
    assert {name: value for name, value, *_ in record["metrics"]}["quantized_int8/truth_vertex_mm"] == 1.5
    apply_experiment(same.name)
    assert Path("distill.txt").read_text() == "0.3 2"


def test_what_was_computed_on_another_machine_is_not_taken_over(toy: Path, ran: Ran) -> None:
    """DVC is asked, whose stages know which of them depend on the machine."""
    stage = Path("stage.py")
    stage.write_text(stage.read_text().replace("describe_device()", '{"cpu": "another"}'))
    for name in ("one", "two"):
        main(["-m", "prune.ratio=0.3", f"name={name}"])
    assert ran()["probe"] == 2
    assert ran()["distill"] == 1


def test_a_grid_runs_shared_stages_once_goes_on_after_failures_and_does_not_run_twice(
    toy: Path, ran: Ran, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = ["-m", "prune.ratio=0.3,0.5", "distill.temperature=2,13", "name=grid"]
    with pytest.raises(LeanFaceError, match=r"2 of 4 trials failed[\s\S]*loss is NaN"):
        main(arguments)
    first = ran()
    assert first["teacher"] == 1
    assert first["prune"] == 2
    assert first["distill"] == 4
    assert first["report"] == 2
    trials = read_trials("grid")
    assert [trial.status for trial in trials] == ["finished", "failed", "finished", "failed"]
    assert trials[1].reason == "stage distill: ValueError: loss is NaN"
    assert trials[0].varied == {"prune.ratio": 0.3, "distill.temperature": 2}
    assert trials[0].values == [1.5]
    assert set(trials[0].stages) == set(first)  # seconds of what it executed itself
    assert set(trials[2].stages) == set(first) - {"teacher"}
    assert subprocess.run(["git", "status", "--porcelain"], capture_output=True, check=True).stdout == b""

    with pytest.raises(LeanFaceError, match="2 of 4 trials failed"):
        main(arguments)  # what failed is tried again, what is finished is not
    second = ran()
    assert second["report"] == 2
    assert second["distill"] == 6
    assert second["teacher"] == 1

    said = capfd.readouterr()
    assert "grid: 4 of 4, 2 failed" in said.out + said.err
    assert "Stage 'distill' is done" not in said.out, "DVC's own output is in a file"
    records = waiting()
    by_name = {record["name"]: record for record in records}
    assert by_name["sweep grid"]["params"] == {"prune.ratio": "0.3,0.5", "distill.temperature": "2,13"}
    finished = by_name[trials[0].name]
    assert finished["params"] == {"prune.ratio": "0.3", "distill.temperature": "2"}
    assert finished["status"] == "FINISHED"
    assert {name: value for name, value, *_ in finished["metrics"]}["quantized_int8/truth_vertex_mm"] == 1.5
    assert by_name[trials[1].name]["status"] == "FAILED"
    assert "loss is NaN" in by_name[trials[1].name]["note"]

    capfd.readouterr()
    main([*arguments, "--dry-run"])
    assert "2 trials to run, 2 finished" in capfd.readouterr().out
    assert ran() == second


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_sweep_leaves_no_process_and_no_lock_and_goes_on(
    toy: Path, ran: Ran, start: Start, number: int
) -> None:
    asleep = Path(os.environ["COUNT"]).with_name("asleep-0.5")
    process = start("-m", "distill.temperature=2,99", "name=stop")
    deadline = time.monotonic() + 120
    while not asleep.exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.1)
    sleeper = int(asleep.read_text())
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert output.endswith("\nstopped.\n")
    assert "to go on:\n  leanface sweep -m distill.temperature=2,99 name=stop" in output
    assert not psutil.pid_exists(sleeper)
    assert [trial.status for trial in read_trials("stop")] == ["finished", "interrupted"]
    assert not list(Path(".dvc/tmp/exps/standalone").glob("tmp*"))
    before = ran()
    main(["-m", "distill.temperature=2,3", "name=stop"])
    assert ran()["distill"] == before["distill"] + 1
    assert ran()["teacher"] == 1


@pytest.mark.parametrize("name", ["a b", "../x", "x.lock", "-x", ""])
def test_a_name_that_git_would_not_take_is_refused(toy: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="a sweep's name is"):
        main(["-m", "prune.ratio=0.3,0.5", f"name='{name}'"])


def test_an_objective_that_is_not_measured_is_named(toy: Path) -> None:
    with pytest.raises(ConfigError, match=r"objectives \['speed'\] are not in reports/summary.json; it has"):
        main(["-m", "prune.ratio=0.3", "objectives=[speed]", "name=o"])


def test_optuna_searches_goes_on_and_learns_of_failures(toy: Path, ran: Ran) -> None:
    pytest.importorskip("optuna")
    sweeper = [
        "hydra/sweeper=optuna", "hydra.sweeper.directions=[minimize,minimize]", "name=search",
        "objectives=[truth_vertex_mm,latency_ms]", "prune.ratio=interval(0.2,0.6)", "distill.temperature=1,13",
    ]  # fmt: skip
    with pytest.raises(LeanFaceError, match="trials failed"):
        main(["-m", *sweeper, "hydra.sweeper.n_trials=4"])
    trials = read_trials("search")
    assert len(trials) == 4
    assert {trial.status for trial in trials} == {"finished", "failed"}
    assert all(0.2 <= trial.varied["prune.ratio"] <= 0.6 for trial in trials)
    with pytest.raises(LeanFaceError, match="trials failed"):
        main(["-m", *sweeper, "hydra.sweeper.n_trials=5"])
    assert len(read_trials("search")) == 5


def test_a_terminal_shows_one_table_and_dvc_writes_to_a_file(toy: Path) -> None:
    terminal, inside = os.openpty()
    fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 120, 0, 0))
    command = [sys.executable, "-m", "leanface.sweep", "-m", "prune.ratio=0.3,0.5", "distill.temperature=2", "name=w"]
    environment = os.environ | {"TERM": "xterm"}
    with subprocess.Popen(command, stdout=inside, stderr=inside, env=environment, start_new_session=True) as process:
        os.close(inside)
        seen = b""
        with contextlib.suppress(OSError):  # the terminal ends with the process
            while part := os.read(terminal, 65536):
                seen += part
    os.close(terminal)
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", seen.decode())
    assert process.returncode == 0, text
    assert "w: 0 of 2" in text
    assert "waits" in text
    assert re.search(r"w-\w{7} +0\.3 +(configure|teacher|prune|distill|probe|report) +\d+ s", text), text
    last = text[text.rindex("w: 2 of 2") :]
    assert len(re.findall(r"w-\w{7} +0\.[35] +finished", last)) == 2
    assert "Running stage" not in text
    assert "HYDRA" not in text
    assert all("Running stage" in log.read_text() for log in Path("multirun/w").glob("*/dvc.log"))


def test_the_time_left_is_that_of_the_trials_so_far() -> None:
    def trial(status: Any, started: float, ended: float | None) -> Trial:
        return Trial("x", [], {}, status, started=started, ended=ended, stages={"distill": 1.0})

    done = [trial("finished", 0.0, 60.0), trial("failed", 0.0, 5.0)]
    assert seconds_left(done, 4) == 120.0
    late = trial("running", time.time() - 1000.0, None)
    assert seconds_left([*done, late], 4) == 60.0, "one waits, and one is late"
    assert seconds_left([*done, late, late], 5) == 30.0, "two run at a time"
    assert seconds_left(done, 2) is None
    assert seconds_left([], 2) is None
