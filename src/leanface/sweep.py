"""Hydra multirun over DVC experiments: `leanface sweep -m prune.ratio=0.3,0.5 distill.temperature=2,4`.

The keys are those of params.yaml (`+data.train_count=500` adds one). Each job runs as `dvc exp run --temp`,
so that stages which a job does not change come from the cache and the workspace stays as it is. A file in
conf/sweep/ keeps a sweep: `leanface sweep --config-name ratio_temperature`.
"""

import collections
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard, cast

import hydra
import yaml
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from leanface import paths, tracking, versioning
from leanface.errors import ConfigError, LeanFaceError

logger = logging.getLogger(__name__)

OBJECTIVES = ("vertex_error_mm",)
"""What a job returns to Hydra, of the smallest variant's row in summary.json; lower is better."""

ERROR_LINES = 12


def main(arguments: Sequence[str]) -> None:
    """Run Hydra's command line over params.yaml.

    Raises:
        ConfigError: an option or a key is unknown.
        LeanFaceError: a job failed; with what DVC said.
    """
    folder = "multirun/${now:%Y%m%d-%H%M%S}"
    settings = {"run": {"dir": folder}, "sweep": {"dir": folder, "subdir": "${hydra.job.num}"}}
    try:
        tree = {**_params(), "objectives": list(OBJECTIVES), "hydra": settings}
        ConfigStore.instance().store("params", tree)
        os.environ["HYDRA_FULL_ERROR"] = "1"  # errors reach the lines below
        sys.argv = ["leanface sweep", *arguments]
        hydra.main(str((paths.CONF / "sweep").resolve()), "params", "1.3")(run_job)()
    except FileNotFoundError as error:
        raise ConfigError(f"{error.filename} is missing: run this in the project's root folder.") from None
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(f"{error}\nThe keys are those of {paths.PARAMS}; +key=value adds one.") from None


def run_job(job: DictConfig) -> float | tuple[float, ...]:
    """Run one combination as a DVC experiment; returns its objectives.

    Raises:
        LeanFaceError: DVC could not reproduce the pipeline with these parameters.
    """
    tree: Any = OmegaConf.to_container(job, resolve=True)
    objectives: list[str] = tree.pop("objectives")
    overrides = list(changes(_params(), tree))
    name = _experiment_name()
    logger.info("%s: %s", name, " ".join(overrides) or "as params.yaml is")
    _reproduce(name, overrides)
    summary = _read(paths.SUMMARY, name)
    if not tracking.has_summary(name):  # its last stage came from the cache
        tracking.log_summary(summary, _read(paths.CONFIG, name), [], {tracking.EXPERIMENT_TAG: name})
    row: Mapping[str, float | str | None] = summary["variants"][paths.VARIANTS[-1]]
    known = {measure for measure, value in row.items() if value is not None}
    if unknown := sorted(set(objectives) - known):
        raise ConfigError(f"objectives {unknown} are not in {paths.SUMMARY}; it has {', '.join(sorted(known))}")
    values = tuple(float(cast(float, row[objective])) for objective in objectives)
    return values[0] if len(values) == 1 else values


def changes(base: Mapping[str, Any], tree: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """What `dvc exp run -S` needs to turn `base` into `tree`, which has no fewer keys."""
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


def _read(path: Path, experiment: str) -> dict[str, Any]:
    """A JSON or YAML file as an experiment left it."""
    return yaml.safe_load(versioning.read(path, experiment))


def _experiment_name() -> str:
    """After the job's folder: multirun/20260131-235959/0 gives sweep-20260131-235959-0."""
    settings = HydraConfig.get()
    parts = Path(settings.runtime.output_dir).parts
    return "-".join(("sweep", *parts[-2 if settings.mode == RunMode.MULTIRUN else -1 :]))


def _reproduce(name: str, overrides: Sequence[str]) -> None:
    command = [sys.executable, "-m", "dvc", "exp", "run", "--temp", "-n", name]
    command += [part for override in overrides for part in ("-S", override)]
    # dvc.yaml calls `leanface` by name: the one beside this interpreter, also where no environment is active.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    last = collections.deque[str](maxlen=ERROR_LINES)
    with subprocess.Popen(
        command,
        env={**os.environ, "PATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            if line.strip():
                last.append(line)
    if process.returncode:
        raise LeanFaceError(f"experiment {name} ({' '.join(overrides)}) failed; its last lines:\n{''.join(last)}")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except LeanFaceError as error:
        sys.exit(f"{type(error).__name__}: {error}")
