"""Takes over a run from a machine without DVC and MLflow: checked, kept, put in its place, recorded."""

import json
import logging
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from leanface import paths, tracking
from leanface.errors import ArtifactError, ConfigError, TrackingError
from leanface.files import write_json
from tools.gpu_box.mlflow_records import adopt
from tools.gpu_box.pack import put, unpack
from tools.gpu_box.record import Run
from tools.gpu_box.steps import MANIFEST, object_id, read_steps

logger = logging.getLogger(__name__)

INSTALLED = ("teacher", "analyze", "prune", "distill", "quantize")
"""Steps whose results are taken over, if they came. The rest is made from them, or holds for one machine alone."""

COMMITS = 500
"""Number of commits in which the run's sources are looked for."""

FACES = str(paths.FACES)

RECIPE = ("seed", "batch", "image_size", "data", "morphable_model_sha256")
"""What faces are made from, in their manifest: their bytes may differ between processors."""


def import_run(folder: Path, name: str, *, keep_only: bool = False) -> Path:
    """Unpack a run into runs/NAME, take its results for the pipeline's, and record its steps in MLflow.

    Weights, and the reports of the steps that made them, become what `dvc repro` would have made here: so the
    configuration, the code and the other inputs must be the same here. DVC then takes them for committed.

    Args:
        folder: what came back, see `tools.gpu_box.pack`.
        keep_only: leave the pipeline as it is.

    Raises:
        ArtifactError: a part is missing or damaged, the run is there already, or its inputs are others than here.
        ConfigError: its configuration is another than here.
    """
    if name in ("", ".", "..") or Path(name).name != name:
        raise ConfigError(f"--name is the name of a new folder in {paths.RUNS}/, got {name!r}.")
    target = paths.RUNS / name
    if os.path.lexists(target):
        raise ArtifactError(f"{target} exists already; choose another --name, or remove it.")
    run = unpack(folder, target)
    try:
        taken = [] if keep_only else whole(run)
        differences = {} if keep_only else check(target, run, taken)
    except Exception:
        shutil.rmtree(target)
        raise
    commit = commit_of(run)
    if commit is None:
        logger.warning("no commit has the sources of this run: commit them where they are, so that it can be repeated")
    provenance = {
        "commit": commit,
        "device": run.device,
        "outputs": {path: digest for done in run.steps.values() for path, digest in done.outputs.items()},
        "installed": taken,
        "differences": differences,
    }
    write_json(target / "provenance.json", provenance)
    for title in taken:
        for path in map(Path, run.steps[title].outputs):
            put(target / path, path)

    from tools.gpu_box import versioning  # DVC takes a second to import

    versioning.add([target])
    versioning.commit(taken)
    names = [gpu["name"] for gpu in run.device.get("gpus", [])] or [run.device.get("cpu", "")]
    tags = {"device": ", ".join(names), "git_commit": commit or "", "run": name}
    recorded = adopt(target / paths.RECORDS, {key: value for key, value in tags.items() if value})
    logger.info("recorded in MLflow: %s", ", ".join(recorded) or "nothing")
    try:
        tracking.deliver()
    except TrackingError as error:  # all else is done
        logger.warning("%s", error)
    return target


def whole(run: Run) -> list[str]:
    """Which of `INSTALLED` came with all their outputs; those that came with some, if none did."""
    came = [title for title in INSTALLED if title in run.steps and run.steps[title].outputs]
    steps = read_steps()
    complete = [title for title in came if set(map(str, steps[title].outputs)) <= run.steps[title].outputs.keys()]
    if complete and (reports := [title for title in came if title not in complete]):
        logger.info("only in %s, without their weights: the reports of %s", paths.RUNS, ", ".join(reports))
    return complete or came


def check(target: Path, run: Run, titles: Sequence[str]) -> dict[str, str]:
    """Refuse steps that would not have come out of this working tree; returns harmless differences, by input.

    Raises:
        ConfigError: a section of the configuration is another than here.
        ArtifactError: code or another input is another than here, or missing.
    """
    if not titles:
        raise ArtifactError(f"this run brought no results of {', '.join(INSTALLED)}; keep it alone with --keep-only.")
    here: Any = yaml.safe_load(paths.CONFIG.read_text()) if paths.CONFIG.is_file() else {}
    made = {path: digest for title in titles for path, digest in run.steps[title].outputs.items()}
    differences: dict[str, str] = {}
    wrong: list[str] = []
    steps = read_steps()
    for title in titles:
        step, done = steps[title], run.steps[title]
        if done.status != "finished":
            raise ArtifactError(
                f"{title} did not finish ({done.error or 'its time was over'}): run it to its end first."
            )
        if absent := [str(path) for path in step.outputs if str(path) not in done.outputs]:
            raise ArtifactError(f"{title} came without {', '.join(absent)}: pack it whole, or use --keep-only.")
        for section, theirs in done.sections.items():
            if here.get(section) != theirs:
                raise ConfigError(
                    f"{title} ran with {section} = {_different(here.get(section), theirs)}; {paths.CONFIG} differs. "
                    f"Set it in {paths.PARAMS} and run `leanface stage configure`, or use --keep-only."
                )
        for path in map(str, step.inputs):
            theirs = done.inputs.get(path)
            if theirs == made.get(path, object_id(Path(path))):
                continue
            if path == FACES and _recipe(Path(path)) == _recipe(target / path) is not None:
                differences[path] = "the same recipe, other bytes: rendered on another processor"
            elif path not in wrong:
                wrong.append(path)
    if wrong:
        raise ArtifactError(
            f"this run read other versions of {', '.join(wrong)} than are here. Check out the commit that it ran from "
            f"({commit_of(run) or 'none has its sources'}) and run `dvc repro` up to these, or use --keep-only."
        )
    return differences


def commit_of(run: Run) -> str | None:
    """The last commit that has every source that this run read; None if there is none."""
    sources = {p: d for done in run.steps.values() for p, d in done.inputs.items() if p.startswith("src/")}
    listed = _git("rev-list", f"--max-count={COMMITS}", "--all").split()
    queries = [f"{commit}:{path}" for commit in listed for path in sources]
    found = _git("cat-file", "--batch-check=%(objectname)", stdin="\n".join(queries)).splitlines()
    for number, commit in enumerate(listed):
        if found[number * len(sources) : (number + 1) * len(sources)] == list(sources.values()):
            return commit
    return None


def _git(*arguments: str, stdin: str = "") -> str:
    done = subprocess.run(["git", *arguments], input=stdin, capture_output=True, text=True, check=False)
    return done.stdout


def _recipe(folder: Path) -> dict[str, Any] | None:
    path = folder / MANIFEST
    if not path.is_file():
        return None
    manifest = json.loads(path.read_text())
    return {key: manifest.get(key) for key in RECIPE}


def _different(here: Any, there: Any) -> Any:
    """What of `there` is not so here."""
    if isinstance(here, dict) and isinstance(there, dict):
        return {key: _different(here.get(key), value) for key, value in there.items() if here.get(key) != value}  # pyright: ignore
    return there
