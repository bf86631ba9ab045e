"""Runs steps of dvc.yaml from a resolved configuration, in pieces of limited time; what is up to date is skipped."""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from leanface import paths
from leanface.config import load_config, parse_config
from leanface.device import describe_device
from leanface.errors import ConfigError, LeanFaceError, Unfinished
from leanface.files import atomic_write, write_json
from tools.gpu_box.record import RECORD, Run, StepRecord, begin, ids_of, load_run, same_work, save_run
from tools.gpu_box.steps import Step, choose, read_steps
from tools.gpu_box.weights import is_bundle, round_bundle

logger = logging.getLogger(__name__)

SPARE_SECONDS = 60.0
"""Of a piece's time, not for training: imports and reading before it, the last validation and saving after it."""

LEAST_SECONDS = 5.0
"""With less left, nothing is begun."""

KILL_SECONDS = 10.0
"""Between asking a process to end and ending it."""


class ProcessResult(NamedTuple):
    code: int
    last_line: str
    killed: bool


def run_offline(stages: Sequence[str], seconds: float, config: Path, changes: Sequence[str] = ()) -> Run:
    """Run the steps that are not up to date, each as `leanface stage` in a process of its own.

    A training is stopped before the time is over, with its state saved; any other step is ended, and starts over when
    this is called again. Weights are rounded as soon as they are written (see `weights`), so that what later steps read
    is what comes back.

    Args:
        stages: in whatever order; `export` stands for its every variant.
        seconds: after which nothing runs any more.
        config: a resolved configuration, say from `leanface stage configure` elsewhere.
        changes: single values of it, `prune.ratio=0.3`.

    Raises:
        Unfinished: the time was over; call it again.
        LeanFaceError: a step failed, with what it said last.
    """
    end = time.monotonic() + seconds
    steps = choose(read_steps(), stages)
    tree = resolve(config, changes)
    device = describe_device()
    write_json(paths.DEVICE, device)
    run = load_run() if RECORD.is_file() else Run()
    run.device = device
    for step in steps:
        new, old = begin(step, tree), run.steps.get(step.title)
        if old is not None and same_work(old, new):
            if old.status == "finished" and old.outputs == ids_of(step.outputs):
                logger.info("%s is up to date", step.title)
                continue
            new.seconds, new.pieces = old.seconds, old.pieces
        run.steps[step.title] = new
        _run_step(step, new, end)
        save_run(run)
        if new.status == "failed":
            raise LeanFaceError(f"{step.title} failed: {new.error}\nAll that it printed is in {log_path(step.title)}.")
        if new.status == "unfinished":
            raise Unfinished(f"the time was over during {step.title}; the same command goes on.")
    return run


def resolve(config: Path, changes: Sequence[str]) -> dict[str, Any]:
    """Write reports/config.yaml, the `config` with these changes; returns its contents.

    Raises:
        ConfigError: a change names no value of it, or is not valid.
    """
    tree = load_config(config).model_dump(mode="json")
    for change in changes:
        key, equals, value = change.partition("=")
        section: Any = tree
        *parents, last = key.split(".")
        for parent in parents:
            section = section.get(parent) if isinstance(section, dict) else None  # pyright: ignore[reportUnknownVariableType]
        if not equals or not isinstance(section, dict) or last not in section:
            raise ConfigError(f"{change!r} changes nothing; expected KEY=VALUE with a key of {config}: prune.ratio=0.3")
        section[last] = yaml.safe_load(value)
    resolved = parse_config(tree, f"{config} with {', '.join(changes)}").model_dump(mode="json")
    atomic_write(
        paths.CONFIG, "# Written by `python -m tools.gpu_box run`.\n" + yaml.safe_dump(resolved, sort_keys=False)
    )
    return resolved


def log_path(title: str) -> Path:
    """What a step printed, in all its pieces."""
    return paths.OFFLINE / "logs" / f"{title}.log"


def _run_step(step: Step, done: StepRecord, end: float) -> None:
    left = end - time.monotonic()
    if left < LEAST_SECONDS:
        return
    start = time.monotonic()
    ended = _run_stage(step, left)
    done.seconds += time.monotonic() - start
    done.pieces += 1
    if ended.code == 0:
        for output in filter(is_bundle, step.outputs):
            round_bundle(output)
        done.status, done.outputs = "finished", ids_of(step.outputs)
    elif not ended.killed and ended.code != Unfinished.exit_status:
        done.status, done.error = "failed", ended.last_line


def _run_stage(step: Step, seconds: float) -> ProcessResult:
    """Run `leanface stage` for at most so many seconds; what it prints goes to the terminal and its log."""
    command = [sys.executable, "-m", "leanface", "stage", step.stage]
    command += [] if step.variant is None else ["--variant", step.variant]
    command += ["--seconds", str(max(1.0, seconds - SPARE_SECONDS))]
    log = log_path(step.title)
    log.parent.mkdir(parents=True, exist_ok=True)
    logger.info("%s", step.title)
    last_line, killed = "", threading.Event()
    with (
        log.open("a") as file,
        # In a session of its own, so that the copies which train on further devices end with it.
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        ) as process,
    ):
        assert process.stdout is not None
        timer = threading.Timer(seconds, _end, (process.pid, killed))
        timer.start()
        try:
            for line in process.stdout:
                print(line, end="", flush=True)
                file.write(line)
                last_line = line.strip() or last_line
            process.wait()
        except KeyboardInterrupt:  # Ctrl-C does not reach another session
            os.killpg(process.pid, signal.SIGINT)
            file.write(process.communicate()[0])
            raise
        finally:
            timer.cancel()
    return ProcessResult(process.returncode, last_line, killed.is_set())


def _end(group: int, killed: threading.Event) -> None:
    killed.set()
    for number, pause in ((signal.SIGTERM, KILL_SECONDS), (signal.SIGKILL, 0.0)):
        try:
            os.killpg(group, number)
        except ProcessLookupError:
            return
        time.sleep(pause)
