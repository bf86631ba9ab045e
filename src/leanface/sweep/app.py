"""`leanface sweep -m prune.ratio=0.3,0.5 distill.temperature=2,4`: one DVC experiment per combination.

The keys are those of params.yaml (`+data.train_count=500` adds one). A file in conf/sweep/ keeps a sweep:
`leanface sweep --config-name ratio_temperature`. A sweep that was stopped goes on when it is
started again with the same `name`. See docs/sweeps.md.
"""

import json
import logging
import math
import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console

from leanface import paths, tracking
from leanface.device import THREAD_VARIABLES
from leanface.errors import ArtifactError, ConfigError
from leanface.files import Json, read_json
from leanface.machine_lock import MACHINE_LOCK
from leanface.report.summary import Summary
from leanface.sweep.experiments import (
    Stages,
    TrialError,
    clear_leftovers,
    experiment_revision,
    project_state,
    read_tree,
    run_experiment,
    same_experiment,
    take_over,
    untouched_workspace,
)
from leanface.sweep.plan import OWN_KEYS, Plan, check_trials, jobs_of, print_plan, threads_of, understand
from leanface.sweep.progress import progress, shown
from leanface.sweep.shared import share_record, shared_record
from leanface.sweep.supervise import PATIENCE
from leanface.sweep.trials import (
    LOG,
    RESULT,
    STOP,
    SWEEP_FILE,
    Trial,
    find_trial,
    read_trials,
    save_trial,
    sweep_folder,
    trial_name,
)

logger = logging.getLogger(__name__)

ERROR = "error"
"""Stands among objectives for the error of the task, as `Summary.error` has it."""

OBJECTIVES = (ERROR,)
"""What a job returns to Hydra, of the smallest variant's row in summary.json; lower is better."""


def main(arguments: Sequence[str]) -> None:
    """Run Hydra's command line over params.yaml.

    Raises:
        ConfigError: an option or a key is unknown, or a trial is not valid; nothing was run.
        LeanFaceError: a trial failed; the others were run all the same.
        KeyboardInterrupt: it was stopped.
    """
    rest = [argument for argument in arguments if argument != "--dry-run"]
    try:
        params = _store_params()
        os.environ["HYDRA_FULL_ERROR"] = "1"  # errors reach the lines below
        conf = str((paths.CONF / "sweep").resolve())
        chosen = understand(rest, conf, params)
        if chosen is None:  # --help, --cfg job: Hydra answers
            _hydra(rest, conf)
            return
        folder = sweep_folder(chosen.name)
        check_trials(chosen, params)
        if len(rest) < len(arguments):
            jobs = jobs_of(chosen, params)
            state = project_state()
            todo = [job for job in jobs if not _is_finished(trial_name(chosen.name, job.params, state))]
            print_plan(chosen, Stages(), todo, len(jobs) - len(todo), params)
            return
        named = any(argument.startswith("name=") for argument in rest)
        _sweep(rest if named else [*rest, f"name={chosen.name}"], conf, chosen, folder, params)
    except FileNotFoundError as error:
        raise ConfigError(f"{error.filename} is missing: run this in the project's root folder.") from None
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(str(error)) from None


def _sweep(arguments: Sequence[str], conf: str, chosen: Plan, folder: Path, params: Json) -> None:
    """Run it within its record: a file in its folder, and a run in MLflow that the trials' runs are children of."""
    begun = time.time()
    clear_leftovers()
    (folder / STOP).unlink(missing_ok=True)
    _interrupted(folder)
    shared = sorted(Stages().shared(chosen.varied))
    old = read_json(folder / SWEEP_FILE) if (folder / SWEEP_FILE).is_file() else {}
    run = tracking.begin_run(
        f"sweep {chosen.name}", chosen.varied, {tracking.SWEEP_TAG: chosen.name},
        run_id=old.get("mlflow_run"),
    )  # fmt: skip
    command, console = " ".join(["leanface sweep", *arguments]), Console()
    state = project_state()
    varied = list(chosen.varied)
    jobs = {trial_name(chosen.name, job.params, state): _varied(job.params, varied) for job in jobs_of(chosen, params)}
    count = len(jobs) or len(list(folder.glob(f"*/{RESULT}"))) + (chosen.trials or 0)
    record = {"name": chosen.name, "command": command, "varied": varied, "shared": shared, "jobs": jobs,
              "count": count, "table": console.is_terminal}  # fmt: skip
    share_record(folder, record | {"mlflow_run": run.record.run_id})
    status = "FAILED"
    try:
        with _Interruptible(folder, others=chosen.threads is not None), shown(folder, jobs, count, console):
            _hydra(arguments, conf)
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        _interrupted(folder)
        logger.info("What is finished is kept; to go on:\n  %s", command)
        raise
    finally:
        run.finish(status)
    trials = [trial for trial in read_trials(chosen.name) if (trial.ended or 0) >= begun or trial.status == "finished"]
    failed = [trial for trial in trials if trial.status == "failed"]
    ended = f"{len(trials) - len(failed)} trials finished, {len(failed)} failed."
    print(ended, f"Compare them: leanface compare --sweep {chosen.name}")
    if failed:
        lines = [f"{trial.name} ({' '.join(trial.overrides)}): {trial.reason}" for trial in failed]
        raise TrialError(f"{len(failed)} of {len(trials)} trials failed:\n  " + "\n  ".join(lines))


def _running(folder: Path) -> list[Trial]:
    """List the trials that run, or were killed and could not say so."""
    trials = [Trial(**read_json(path)) for path in folder.glob(f"*/{RESULT}")]
    return [trial for trial in trials if trial.status == "running"]


def _interrupted(folder: Path) -> None:
    """Say it for the trials that could not; nothing of the sweep runs any more."""
    for trial in _running(folder):
        trial.status = "interrupted"
        save_trial(trial, folder)


def _hydra(arguments: Sequence[str], conf: str) -> None:
    sys.argv = ["leanface sweep", *arguments]
    hydra.main(conf, "params", "1.3")(run_job)()


class _Interruptible:
    """SIGTERM and SIGHUP end a sweep as Ctrl-C does.

    Trials in other processes, wherever these are, are told by a file, and given the time to clear up. At the second
    signal nobody waits for them.
    """

    def __init__(self, folder: Path, others: bool) -> None:
        self.folder, self.others = folder, others

    def __enter__(self) -> None:
        self.before = {number: signal.signal(number, self._stop)
                       for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}  # fmt: skip

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _stop(self, number: int, frame: object) -> None:
        if self.others and not (self.folder / STOP).exists():
            (self.folder / STOP).touch()
            deadline = time.monotonic() + PATIENCE
            while time.monotonic() < deadline and _running(self.folder):
                time.sleep(0.2)
        raise KeyboardInterrupt


def run_job(job: DictConfig) -> float | tuple[float, ...]:
    """Run one combination as a DVC experiment, unless it was; returns its objectives, NaN if it failed.

    Raises:
        ConfigError: an objective is not in summary.json, or this machine does not share what it must.
    """
    tree: Any = OmegaConf.to_container(job, resolve=True)
    own = {key: tree.pop(key) for key in OWN_KEYS}
    folder, settings = sweep_folder(own["name"]), HydraConfig.get()
    sweep = shared_record(folder)
    if (folder / STOP).exists():
        raise KeyboardInterrupt
    with untouched_workspace():
        name, overrides = trial_name(own["name"], tree, project_state()), list(changes(_params(), tree))
    trial = find_trial(folder, name) or Trial(name, overrides, _varied(tree, sweep["varied"]))
    trial.scale = tree.get("scale")
    if experiment_revision(name) is None:
        trial.status, trial.started, trial.ended, trial.reason = "running", time.time(), None, None
        run = tracking.begin_run(
            name, trial.varied, {tracking.EXPERIMENT_TAG: name, tracking.SWEEP_TAG: own["name"]},
            parent=sweep["mlflow_run"], run_id=trial.mlflow_run,
        )  # fmt: skip
        trial.mlflow_run = run.record.run_id
        save_trial(trial, folder)
        if not sweep["table"]:
            logger.info("%s: %s", name, " ".join(trial.overrides) or "as params.yaml is")
        finished = _run_trial(trial, run, folder, sweep, settings)
    else:
        logger.info("%s: %s, is finished", name, " ".join(trial.overrides) or "as params.yaml is")
        trial.status, trial.ended, finished = "finished", trial.ended or trial.started, True
    if finished:
        trial.values = values = _objectives(read_tree(paths.SUMMARY, name), own["objectives"])
        save_trial(trial, folder)
    else:
        values = [math.nan] * len(own["objectives"])
    return values[0] if len(values) == 1 else tuple(values)


def _run_trial(trial: Trial, run: tracking.Run, folder: Path, sweep: Json, settings: Any) -> bool:
    """Run and record it; whether it finished. A failure is part of the record, an interruption passes through."""
    alone = threads_of(settings.launcher) is None
    log = folder / trial.name / LOG
    environment = {tracking.PARENT_RUN: trial.mlflow_run or "", **_share(settings.launcher)}
    status, note = "FINISHED", None
    try:
        if (same := same_experiment(trial.name)) is not None:
            logger.info("%s: the same as %s, which is finished", trial.name, Path(same).name)
            take_over(same, trial.name)
        else:
            run_experiment(
                trial.name,
                trial.overrides,
                seconds=trial.stages,
                log=log,
                environment=environment,
                stop=folder / STOP,
                shared=() if alone else sweep["shared"],
                show=_follow(trial, folder, quiet=sweep["table"]),
            )
        trial.status = "finished"
        tracking.log_headline(run, read_tree(paths.SUMMARY, trial.name))
    except (TrialError, ArtifactError) as error:
        trial.status, trial.reason = "failed", str(error)
        status, note = "FAILED", trial.reason
        if not sweep["table"]:
            logger.error("%s failed: %s\nAll that DVC said is in %s; the sweep goes on.", trial.name, error, log)
    except BaseException:
        trial.status, status = "interrupted", "KILLED"
        raise
    finally:
        trial.ended, trial.stage = time.time(), None
        save_trial(trial, folder)
        run.finish(status, note)
        if not sweep["table"]:
            logger.info("%s: %s", sweep["name"], progress(folder, sweep["jobs"], sweep["count"]))
    return status == "FINISHED"


def _follow(trial: Trial, folder: Path, *, quiet: bool) -> Callable[[str], None]:
    """Return what takes each line that DVC says: it records the stage, and prints it unless a table shows it."""

    def show(line: str) -> None:
        if found := re.match(r"Running stage '([^']+)'", line):
            trial.stage = found[1]
            save_trial(trial, folder)
        if not quiet and re.match(r"Running stage|ERROR", line):
            print(f"{trial.name}: {line}", flush=True)

    return show


def _share(launcher: Mapping[str, Any]) -> dict[str, str]:
    """Return settings that keep parallel trials from taking all cores each, and from disturbing measurements."""
    threads = threads_of(launcher)
    if threads is None:
        return {}
    lock = Path(tempfile.gettempdir()) / f"leanface-{os.getuid()}.lock"  # one per machine, whose time it guards
    return {name: str(threads) for name in THREAD_VARIABLES} | {"OMP_WAIT_POLICY": "PASSIVE", MACHINE_LOCK: str(lock)}


def _objectives(summary: Json, objectives: Sequence[str]) -> list[float]:
    found = Summary.parse(summary, str(paths.SUMMARY))
    row = {**found.deployed.measures, ERROR: found.deployed.measures.get(found.error)}
    known = {measure for measure, value in row.items() if isinstance(value, int | float)}
    if unknown := sorted(set(objectives) - known):
        raise ConfigError(f"objectives {unknown} are not in {paths.SUMMARY}; it has {', '.join(sorted(known))}")
    return [float(row[objective] or 0.0) for objective in objectives]


def _is_finished(name: str) -> bool:
    """Tell whether a trial's experiment is there, or another sweep's that is the same."""
    return experiment_revision(name) is not None or same_experiment(name) is not None


def _varied(tree: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    return {key: OmegaConf.select(OmegaConf.create(dict(tree)), key.replace("/", ".")) for key in keys}


def changes(base: Mapping[str, Any], tree: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Return what `dvc exp run -S` needs to turn `base` into `tree`, which has no fewer keys."""
    for key, value in tree.items():
        old = base.get(key, {})
        if _is_mapping(value) and _is_mapping(old):
            yield from changes(old, value, f"{prefix}{key}.")
        elif key not in base:
            yield f"+{prefix}{key}={json.dumps(value)}"
        elif value != old:
            yield f"{prefix}{key}={json.dumps(value)}"


def _is_mapping(value: object) -> TypeGuard[dict[str, Any]]:
    return isinstance(value, dict)


def _params() -> dict[str, Any]:
    tree: Any = OmegaConf.to_container(OmegaConf.load(paths.PARAMS), resolve=True)
    return tree


def _store_params() -> dict[str, Any]:
    """Make params.yaml, and a sweep's own keys, the configuration that Hydra sweeps; return params.yaml."""
    settings = {
        "run": {"dir": "multirun/${name}"},
        "sweep": {"dir": "multirun/${name}", "subdir": "hydra/${hydra.job.num}"},
    }
    own = {"objectives": list(OBJECTIVES), "name": time.strftime("%Y%m%d-%H%M%S")}
    params = _params()
    ConfigStore.instance().store("params", {**params, **own, "hydra": settings})
    return params
