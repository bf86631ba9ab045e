"""`leanface compare` and `leanface promote`: from a sweep's experiments to the network that is deployed."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from leanface import catalog, paths, tracking
from leanface.errors import ArtifactError
from leanface.report.gate import gate_lines, require_gates
from leanface.report.summary import Summary
from leanface.sweep.comparison.page import print_table, shown_names, write_page
from leanface.sweep.comparison.trials import TrialResult, subject_of, trial_result
from leanface.sweep.experiments import apply_experiment, cache_folder, experiment_names, read_output, read_tree
from leanface.sweep.trials import read_trials

FACES_MAX = 8
"""Trials whose faces the page shows."""


def compare(names: Sequence[str], sweep: str | None, console: Console) -> Path:
    """Print the table and write the page; returns where the page is.

    Args:
        names: experiments; without them and without a sweep, all.
        sweep: its recorded trials, with those that failed.

    Raises:
        ArtifactError: there is nothing to compare.
    """
    if sweep is not None:
        rows, title = _of_sweep(sweep), sweep
    else:
        rows = [row for name in names or experiment_names() if (row := _of_experiment(name, bool(names))) is not None]
        title = "experiments"
    if not rows:
        raise ArtifactError("there is no experiment to compare; `leanface sweep -m prune.ratio=0.3,0.5` makes some.")
    print_table(rows, console)
    sheet = paths.evaluation_dir(catalog.DEPLOYED) / subject_of(rows).picture
    shown, cache = shown_names(rows)[:FACES_MAX], cache_folder()
    faces = {name: png for name in shown if (png := read_output(sheet, name, cache)) is not None}
    if absent := [name for name in shown if name not in faces]:
        console.print(
            f"Without the faces of {', '.join(absent)}, which are not in DVC's cache here; `dvc exp pull origin NAME` "
            "fetches them.",
            highlight=False,
        )
    page = paths.COMPARISONS / f"{title}.html"
    write_page(title, rows, faces, page)
    console.print(f"Written: {page}", highlight=False)
    return page


def promote(name: str) -> list[str]:
    """Apply an experiment that passes its gates, and make its network MLflow's champion; returns a line per gate.

    Raises:
        GateError: a gate failed; nothing was changed.
        LeanFaceError: there is no such experiment, or DVC could not apply it.
        TrackingError: it is applied, but MLflow is out of reach.
    """
    found = Summary.parse(read_tree(paths.SUMMARY, name), name)
    gate_lines(found.gates)
    apply_experiment(name)
    lines = require_gates(paths.SUMMARY)  # of what lies here now
    summary, config = read_tree(paths.SUMMARY, name), read_tree(paths.CONFIG, name)
    pages = [paths.CONFIG, paths.SUMMARY, paths.REPORT_HTML, paths.REPORT_MD]
    pages.append(paths.evaluation_dir(catalog.DEPLOYED) / found.subject.picture)
    tags = {tracking.PROMOTED_TAG: name}
    tracking.log_summary(summary, config, pages, tags, paths.onnx_path(catalog.DEPLOYED))
    tracking.deliver()
    return lines


def _of_sweep(sweep: str) -> list[TrialResult]:
    rows = list[TrialResult]()
    for trial in read_trials(sweep):
        if trial.status == "finished":
            rows.append(trial_result(trial.name, trial.varied, read_tree(paths.SUMMARY, trial.name)))
        elif trial.status == "failed":
            rows.append(TrialResult(trial.name, trial.varied, None, trial.reason))
    return rows


def _of_experiment(name: str, asked: bool) -> TrialResult | None:
    try:
        summary, params = read_tree(paths.SUMMARY, name), read_tree(paths.PARAMS, name)
        return trial_result(name, dict(_flat(params)), summary)
    except ArtifactError:
        if asked:
            raise
        return None  # one that `dvc exp save`, a partial run or another version left


def _flat(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in tree.items():
        found += _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else [(f"{prefix}{key}", value)]  # pyright: ignore[reportUnknownArgumentType]
    return found
