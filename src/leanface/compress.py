"""Compress one network: name its task, or what it may cost, in params.yaml, and let DVC run what is due."""

import io
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from leanface import bundle, paths
from leanface.catalog import BASELINE, DEPLOYED, DEPLOYED_ON_CPU, MEASURES, RUNTIMES
from leanface.composition import Composer
from leanface.config import Search
from leanface.errors import LeanFaceError
from leanface.files import atomic_write, read_text
from leanface.inputs import record_inputs
from leanface.metrics.measurements import fastest_first, read_benchmark, read_evaluation
from leanface.networks.graph import trace
from leanface.params import read_params
from leanface.search.targets import COSTS, Target, parse_targets
from leanface.task import adapt, network_of

STOP_SECONDS = 20.0
"""What a stage that is stopped has to keep what it has."""


def compress(network: str) -> None:
    """Run the pipeline for a task, or for the network in a bundle; params.yaml says from then on which.

    Args:
        network: a task's name, FILE.py:CLASS, or a bundle's folder.

    Raises:
        ConfigError: the task or the configuration that comes out is not valid; nothing was changed.
        ArtifactError: the bundle cannot be read; nothing was changed.
        NetworkError: the network has operations that cannot be compressed; nothing was changed.
        LeanFaceError: the pipeline failed.
    """
    folder = Path(network)
    changes: dict[str, Any] = {"task": _from_root(network)}
    if folder.is_dir():
        changes = {
            "task": bundle.load_spec(folder).task,
            "teacher": {"source": "checkpoint", "path": _from_root(network)},
        }
    config = Composer(paths.CONF).compose(read_params(paths.PARAMS) | changes, f"leanface compress {network}")
    task = adapt(record_inputs(config, paths.CONFIG)).task
    trace(network_of(task.name, task.name_sha256).build())
    _write(changes)
    _reproduce()


def auto(search: dict[str, Any]) -> list[str]:
    """Run the pipeline for targets, which params.yaml has from then on; return what became of each.

    Args:
        search: keys of section `search`.

    Raises:
        ConfigError: the section is not valid; nothing was changed.
        LeanFaceError: the pipeline failed, the targets cannot be met, or the finished network misses one.
    """
    given = read_params(paths.PARAMS)
    changes = {"search": {**given.get("search", {}), **search}}
    config = Composer(paths.CONF).compose({**given, **changes}, "leanface auto")
    adapt(record_inputs(config, paths.CONFIG))
    errors = [name.removeprefix("truth_") for name in MEASURES if name.startswith("truth_")]
    targets = parse_targets(config.search.targets, errors)
    _write(changes)
    _reproduce()
    verdicts = [_verdict(target, config.search) for target in targets]
    lines = [f"{'met' if met else 'MISSED'}: {line}" for met, line in verdicts]
    if not all(met for met, _ in verdicts):
        raise LeanFaceError("\n".join(["the finished network misses a target:", *lines]))
    return lines


def _verdict(target: Target, search: Search) -> tuple[bool, str]:
    """Say whether the finished network meets a target on this machine and on the test split."""
    variant = {"fp32": "distilled_fp32", "fp16": "distilled_fp16"}.get(search.precision, DEPLOYED)
    if search.precision == "int8" and not RUNTIMES[search.runtime].on_gpu:
        variant = DEPLOYED_ON_CPU
    value, original = None, 0.0
    if target.measure in COSTS:
        rows = read_benchmark(paths.BENCHMARK).rows
        found = fastest_first(rows, variant=variant, runtime=search.runtime, batch=search.batch, streams=1)
        if found:
            size_mb = (found[0].size_bytes or 0) / 1e6
            value = size_mb if target.measure == "size_mb" else getattr(found[0], target.measure)
    else:
        ours, theirs = (read_evaluation(paths.evaluation_dir(name) / "metrics.json") for name in (variant, BASELINE))
        truth = f"truth_{target.measure}"
        against = truth if ours.mean(truth) is not None else f"teacher_{target.measure}"  # photos have no truth
        value, original = ours.mean(against), theirs.mean(against) or 0.0
    if value is None:
        return False, f"{target.title} was not measured, see reports/report.html"
    limit = target.text(target.allowed(original))
    return target.is_met(value, original), f"{target.title}: {target.text(value)}, asked {limit}"


def _reproduce() -> None:
    """Run `dvc repro`.

    Raises:
        LeanFaceError: it failed.
        KeyboardInterrupt: after DVC and its stage have ended: the stage keeps what it has, and DVC its records.
    """
    command = [sys.executable, "-P", "-m", "dvc", "repro"]
    environment = os.environ | {"PYTHONSAFEPATH": "1"}
    with subprocess.Popen(command, env=environment, start_new_session=True) as process:
        try:
            status = process.wait()
        except KeyboardInterrupt:
            for number in (signal.SIGINT, signal.SIGTERM):  # SIGINT may be ignored, as in a shell's background
                with suppress(ProcessLookupError, subprocess.TimeoutExpired):
                    os.killpg(process.pid, number)
                    process.wait(STOP_SECONDS)
                    break
            raise
    if status:
        raise LeanFaceError("the pipeline did not finish, see above; `dvc repro` goes on from there.")


def _from_root(network: str) -> str:
    """Write a path in the project as params.yaml should have it: the same for whoever clones the project."""
    root = f"{Path.cwd().resolve()}/"
    return network.removeprefix(root)


def _write(changes: dict[str, Any]) -> None:
    """Change keys of params.yaml, and leave its comments as they are."""
    yaml: Any = YAML()
    yaml.preserve_quotes = True
    tree: Any = yaml.load(read_text(paths.PARAMS))
    tree.update(changes)
    text = io.StringIO()
    yaml.dump(tree, text)
    atomic_write(paths.PARAMS, text.getvalue())
