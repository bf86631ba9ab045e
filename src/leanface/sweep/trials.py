"""What is known of each trial of a sweep: a small file per trial, in the sweep's folder below multirun/.

A trial is named after what it computes: its parameters, and the state of the project that it starts from. So a sweep
that is started again, or extended, finds the trials that it has already, whatever their number was.
"""

import hashlib
import json
import re
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from leanface.errors import ArtifactError, ConfigError
from leanface.files import read_json, write_json

SWEEPS = Path("multirun")
SWEEP_FILE = "sweep.json"
RESULT = "trial.json"
LOG = "dvc.log"
STOP = "stop"
"""A file that stops a sweep's trials, wherever they run."""

Status = Literal["running", "finished", "failed", "interrupted"]


@dataclass
class Trial:
    """One combination of parameters.

    Attributes:
        name: of its DVC experiment.
        overrides: what `dvc exp run -S` got.
        varied: the sweep's keys and their values here, also where params.yaml has the same value.
        reason: why it failed.
        started, ended: Unix seconds.
        stages: seconds that each executed stage took.
        values: the objectives.
        scale: which stages' times can be compared; None in records of earlier versions.
        mlflow_run: id of its run, if MLflow was in reach.
        stage: what it runs now.
    """

    name: str
    overrides: list[str]
    varied: dict[str, Any]
    status: Status = "running"
    reason: str | None = None
    started: float = field(default_factory=time.time)
    ended: float | None = None
    stages: dict[str, float] = field(default_factory=dict[str, float])
    values: list[float] = field(default_factory=list[float])
    mlflow_run: str | None = None
    scale: str | None = None
    stage: str | None = None

    @property
    def seconds(self) -> float:
        """How long it took, so far."""
        return (self.ended or time.time()) - self.started


def sweep_folder(name: str) -> Path:
    """Return where a sweep keeps its records.

    Raises:
        ConfigError: the name would not do for a folder and for Git references.
    """
    if not re.fullmatch(r"[A-Za-z0-9](?:[\w-]|\.(?=[\w-]))*", name) or name.endswith(".lock"):
        raise ConfigError(f"a sweep's name is letters, digits, dots, '_' and '-', such as overnight; got {name!r}")
    return SWEEPS / name


def trial_name(sweep: str, tree: Mapping[str, Any], state: str) -> str:
    """Return SWEEP-1a2b3c4, the same for the same parameters and state of the project."""
    text = json.dumps([tree, state], sort_keys=True)
    return f"{sweep}-{hashlib.sha256(text.encode()).hexdigest()[:7]}"


def save_trial(trial: Trial, folder: Path) -> None:
    write_json(folder / trial.name / RESULT, asdict(trial))


def find_trial(folder: Path, name: str) -> Trial | None:
    """Find the record of one trial; None if there is none."""
    path = folder / name / RESULT
    return Trial(**read_json(path)) if path.is_file() else None


def read_trials(sweep: str) -> list[Trial]:
    """Read a sweep's trials, in the order in which they were started.

    Raises:
        ArtifactError: there is no such sweep, or it has none.
    """
    trials = [Trial(**read_json(path)) for path in sweep_folder(sweep).glob(f"*/{RESULT}")]
    if not trials:
        known = sorted({path.parent.parent.name for path in SWEEPS.glob(f"*/*/{RESULT}")})
        raise ArtifactError(f"no trial of a sweep {sweep!r} is recorded here; known: {', '.join(known) or 'none'}")
    return sorted(trials, key=lambda trial: trial.started)


def typical_seconds(scale: str) -> dict[str, float]:
    """Return the seconds that each stage took when it was last executed at this scale, in any sweep here."""
    found: list[Trial] = [Trial(**read_json(path)) for path in SWEEPS.glob(f"*/*/{RESULT}")]
    times: dict[str, float] = {}
    for trial in sorted(found, key=lambda trial: trial.started):
        times |= trial.stages if trial.scale == scale else {}
    return times
