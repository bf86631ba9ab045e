"""Write a comparison as a table in the terminal, and as one self-contained page."""

import base64
import io
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from rich.console import Console
from rich.table import Table

from leanface.catalog import DASH, MEASURES, Subject
from leanface.files import atomic_write
from leanface.report.templates import render
from leanface.sweep.comparison.figures import save_fronts, save_heatmaps
from leanface.sweep.comparison.trials import (
    COSTS,
    RULE,
    TrialResult,
    by_speed,
    error_measure,
    front,
    on_one_machine,
    recommended,
    subject_of,
)

FACES_WIDTH = 760
"""Pixels; a sheet of faces is shown that wide at most."""

MAP_CELLS_MAX = 8
"""Along each side of a map of two parameters."""

ROWS_MAX = 50
"""Trials in the terminal's table, and failed ones below them."""

ROOMY_WIDTH = 110
"""Characters of a terminal that shows all columns; a narrower one leaves some to the page."""


def columns(subject: Subject, *, narrow: bool = False) -> tuple[str, ...]:
    """List the measures that are compared."""
    shown = (subject.error, subject.teacher_error, subject.likeness, "speedup", "latency_ms", "size_mb", "macs")
    left = (subject.teacher_error, "latency_ms", "macs") if narrow else ()
    return tuple(name for name in shown if name not in left)


def shown_names(trials: Sequence[TrialResult]) -> list[str]:
    """Choose the trials whose faces are worth showing: the recommended one, then those that nothing dominates."""
    chosen, fronts = recommended(trials), _on_a_front(trials)
    names = [trial.name for trial in trials if trial.name in fronts]
    return list(dict.fromkeys([*([chosen.name] if chosen else []), *names]))


def differing(trials: Sequence[TrialResult]) -> list[str]:
    """List the parameters in which the trials differ."""
    keys = list(dict.fromkeys(key for trial in trials for key in trial.params))
    return [key for key in keys if len({str(trial.params.get(key)) for trial in trials}) > 1]


def print_table(trials: Sequence[TrialResult], console: Console) -> None:
    """Print a line per trial, the fastest first; another machine's and failures come last."""
    chosen, keys, fronts = recommended(trials), differing(trials), _on_a_front(trials)
    comparable, others = on_one_machine(trials)
    measures = columns(subject_of(trials), narrow=console.width < ROOMY_WIDTH)
    table = Table(box=None, header_style="dim", pad_edge=False)
    ranked, failures = [*by_speed(comparable), *by_speed(others)], [each for each in trials if each.reason is not None]
    table.add_column("Trial", no_wrap=True, min_width=max(len(trial.name) for trial in trials))
    for key in keys:
        table.add_column(key)
    for measure in measures:
        # Else a narrow terminal cuts numbers.
        table.add_column(MEASURES[measure].short_heading, justify="right", min_width=6)
    table.add_column("Gates")
    for trial in ranked[:ROWS_MAX]:
        style = "bold green" if trial == chosen else "" if trial.name in fronts else "dim"
        cells = [_cell(trial, measure) for measure in measures]
        table.add_row(trial.name, *_params(trial, keys), *cells, _gates(trial), style=style)
    for trial in failures[:ROWS_MAX]:
        table.add_row(trial.name, *_params(trial, keys), *[DASH] * len(measures), "failed", style="red")
    console.print(table)
    if (left_out := sum(max(0, len(each) - ROWS_MAX) for each in (ranked, failures))) > 0:
        console.print(f"and {left_out} more, which are on the page", highlight=False)
    for line in [*_remarks(trials), _advice(chosen)]:
        console.print(line, markup=False, highlight=False)


def write_page(
    title: str,
    trials: Sequence[TrialResult],
    faces: Mapping[str, bytes],
    path: Path,
    reports: Mapping[str, str] | None = None,
) -> None:
    """Write the page whole or not at all.

    Args:
        faces: PNG files, by trial.
        reports: where each trial's own report is, seen from the page.
    """
    chosen, error, keys, fronts = recommended(trials), error_measure(trials), differing(trials), _on_a_front(trials)
    comparable, others = on_one_machine(trials)
    subject = subject_of(trials)
    measures = columns(subject)
    inlined: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "picture.png"
        save_fronts(comparable, error, chosen, picture)
        inlined["fronts"] = _inline(picture.read_bytes())
        pair = ("prune.ratio", "distill.temperature")
        if comparable and set(pair) <= set(keys) and _is_grid(comparable, pair):
            save_heatmaps(comparable, (error, "speedup", subject.likeness), pair, picture)
            inlined["heatmaps"] = _inline(picture.read_bytes())
    lines: list[dict[str, Any]] = [
        {
            "name": trial.name,
            "params": _params(trial, keys),
            "cells": [(_cell(trial, measure), _interval(trial, measure)) for measure in measures],
            "gates": _gates(trial),
            "passed": trial.passed,
            "report": (reports or {}).get(trial.name),
            "kind": "mark" if trial == chosen else "" if trial.name in fronts else "off",
        }
        for trial in [*by_speed(comparable), *by_speed(others)]
    ]
    text = render(
        "sweep/comparison/page.html.j2",
        title=title,
        samples=subject.samples,
        chosen=chosen,
        rule=RULE,
        command=_command(chosen),
        chosen_report=None if chosen is None else (reports or {}).get(chosen.name),
        keys=keys,
        columns=[MEASURES[measure].short_heading for measure in measures],
        lines=lines,
        failed=[trial for trial in trials if trial.reason is not None],
        remarks=_remarks(trials),
        pictures=inlined,
        faces={name: _inline(_smaller(png)) for name, png in faces.items()},
        params={
            trial.name: ", ".join(f"{key} {value}" for key, value in trial.params.items() if key in keys)
            for trial in trials
        },
        cards=[
            (MEASURES[measure].short_heading, _cell(chosen, measure), _interval(chosen, measure))
            for measure in ("speedup", "latency_ms", "size_mb", subject.error)
            if chosen is not None
        ],
    )
    atomic_write(path, text)


def _is_grid(trials: Sequence[TrialResult], keys: Sequence[str]) -> bool:
    """Tell whether a map of two parameters has few enough cells to be read."""
    return all(len({str(trial.params.get(key)) for trial in trials}) <= MAP_CELLS_MAX for key in keys)


def _on_a_front(trials: Sequence[TrialResult]) -> set[str]:
    """Name the trials that nothing dominates, at one cost or another."""
    comparable, error = on_one_machine(trials)[0], error_measure(trials)
    return set[str]().union(*(front(comparable, error, cost) for cost in COSTS))


def _params(trial: TrialResult, keys: Sequence[str]) -> list[str]:
    return [str(trial.params.get(key, DASH)) for key in keys]


def _cell(trial: TrialResult, measure: str) -> str:
    return MEASURES[measure].text(trial.value(measure))


def _interval(trial: TrialResult, measure: str) -> str:
    return "" if trial.deployed is None or measure != "speedup" else trial.deployed.interval_text(measure)


def _gates(trial: TrialResult) -> str:
    return "passed" if trial.passed else f"failed: {', '.join(trial.failed_gates)}"


def _remarks(trials: Sequence[TrialResult]) -> list[str]:
    """Say what limits the comparison."""
    warnings = [trial.summary.warning for trial in trials if trial.summary is not None]
    lines = list(dict.fromkeys(filter(None, warnings)))
    if others := on_one_machine(trials)[1]:
        lines.append(
            f"{len(others)} trials were measured on another machine ({', '.join(trial.name for trial in others[:5])}): "
            "they are listed, but their times are not compared, and none of them is recommended."
        )
    measured = [trial.deployed for trial in trials if trial.deployed is not None]
    if wide := [deployed for deployed in measured if deployed.speedup_too_wide]:
        lines.append(
            f"{len(wide)} of {len(measured)} speed-ups have a 95 % interval that is too wide to compare them by; "
            "measure them again on an idle machine, or for longer (benchmark.windows_max, benchmark.seconds)."
        )
    return lines


def _advice(chosen: TrialResult | None) -> str:
    if chosen is None:
        return "No trial passes all gates, so none is recommended."
    speed = " ".join(filter(None, (_cell(chosen, "speedup"), _interval(chosen, "speedup"))))
    return f"Recommended, as {RULE}: {chosen.name} ({speed}). To use it:\n{_command(chosen)}"


def _command(chosen: TrialResult | None) -> str:
    return "" if chosen is None else f"leanface promote {chosen.name}"


def _smaller(png: bytes) -> bytes:
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    if picture.width > FACES_WIDTH:
        picture = picture.resize((FACES_WIDTH, picture.height * FACES_WIDTH // picture.width))
    target = io.BytesIO()
    picture.quantize(128).save(target, "PNG", optimize=True)
    return target.getvalue()


def _inline(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()
