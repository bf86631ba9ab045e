"""`leanface compare` and `leanface promote`: from a sweep's experiments to the network that is deployed."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from leanface import catalog, paths, tracking
from leanface.errors import ArtifactError
from leanface.report.gate import gate_lines, require_gates
from leanface.report.summary import Summary
from leanface.sweep.comparison.page import print_table, shown_names, write_page
from leanface.sweep.comparison.trials import TrialResult, subject_of, trial_result
from leanface.sweep.experiments import (
    LOADER,
    apply_experiment,
    cache_folder,
    cached_file,
    experiment_names,
    read_text,
    read_texts,
    read_tree,
)
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
        rows, title = _of_experiments(names), "experiments"
    if not rows:
        raise ArtifactError("there is no experiment to compare; `leanface sweep -m prune.ratio=0.3,0.5` makes some.")
    print_table(rows, console)
    sheet = paths.evaluation_dir(catalog.DEPLOYED) / subject_of(rows).picture
    shown, cache = shown_names(rows)[:FACES_MAX], cache_folder()
    locks = read_texts(Path("dvc.lock"), [row.name for row in rows])
    files = {name: cached_file(sheet, locks.get(name, ""), cache) for name in shown}
    faces = {name: file.read_bytes() for name, file in files.items() if file is not None}
    if absent := [name for name in shown if name not in faces]:
        console.print(
            f"Without the faces of {', '.join(absent)}, which are not in DVC's cache here; `dvc exp pull origin NAME` "
            "fetches them.",
            highlight=False,
        )
    page = paths.COMPARISONS / f"{title}.html"
    write_page(title, rows, faces, page, _link_reports(locks, cache, page.with_suffix("")))
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


def _link_reports(locks: Mapping[str, str], cache: Path, folder: Path) -> dict[str, str]:
    """Link the trials' reports, which DVC's cache has, from beside the page; return where each is, by trial."""
    links: dict[str, str] = {}
    for name, lock in locks.items():
        if (report := cached_file(paths.REPORT_HTML, lock, cache)) is not None:
            link = folder / f"{name}.html"
            folder.mkdir(parents=True, exist_ok=True)
            if not link.exists():
                link.unlink(missing_ok=True)  # to a file that the cache has lost
                link.symlink_to(report.absolute())
            links[name] = f"{folder.name}/{link.name}"
    return links


def _of_sweep(sweep: str) -> list[TrialResult]:
    trials, rows = read_trials(sweep), list[TrialResult]()
    summaries = read_texts(paths.SUMMARY, [trial.name for trial in trials if trial.status == "finished"])
    for trial in trials:
        if trial.status == "finished":
            text = summaries.get(trial.name) or read_text(paths.SUMMARY, trial.name)  # which says what is wrong
            rows.append(trial_result(trial.name, trial.varied, json.loads(text)))
        elif trial.status == "failed":
            rows.append(TrialResult(trial.name, trial.varied, None, trial.reason))
    return rows


def _of_experiments(names: Sequence[str]) -> list[TrialResult]:
    """Read experiments, all of them unless some are named; of all, leave out those that have no results.

    `dvc exp save`, a partial run or another version may have left them.
    """
    asked, rows = names or experiment_names(), list[TrialResult]()
    summaries, params = (read_texts(path, asked) for path in (paths.SUMMARY, paths.PARAMS))
    for name in asked:
        try:
            summary = summaries.get(name) or read_text(paths.SUMMARY, name)
            varied = yaml.load(params.get(name) or read_text(paths.PARAMS, name), Loader=LOADER)
            rows.append(trial_result(name, dict(_flat(varied)), json.loads(summary)))
        except ArtifactError:
            if names:
                raise
    return rows


def _flat(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in tree.items():
        found += _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else [(f"{prefix}{key}", value)]  # pyright: ignore[reportUnknownArgumentType]
    return found
