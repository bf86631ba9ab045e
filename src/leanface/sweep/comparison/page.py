"""A comparison as a table in the terminal, and as one self-contained page."""

import base64
import io
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from rich.console import Console
from rich.table import Table

from leanface.files import atomic_write
from leanface.report.tables import DASH, number, value_of
from leanface.report.templates import render
from leanface.sweep.comparison.figures import save_fronts, save_heatmaps
from leanface.sweep.comparison.trials import COSTS, RULE, Row, error_measure, front, on_one_machine, recommended

FACES_WIDTH = 760
"""Pixels; a sheet of faces is shown that wide at most."""

COLUMNS = {
    "vertex_error_mm": "Error (mm)",
    "vertex_to_original_mm": "To original (mm)",
    "ssim": "UV SSIM",
    "latency_ms_p50": "ms (p50)",
    "speedup": "Faster",
    "size_mb": "MB",
    "macs": "MACs (M)",
}
ROOMY = ("vertex_to_original_mm", "speedup", "macs")
"""Columns that a terminal of less than `ROOMY_WIDTH` characters leaves to the page."""
ROOMY_WIDTH = 110


def shown_names(rows: Sequence[Row]) -> list[str]:
    """Trials whose faces are worth showing: the recommended one, then those that nothing dominates."""
    chosen, error = recommended(rows), error_measure(rows)
    fronts = set[str]().union(*(front(on_one_machine(rows)[0], error, cost) for cost in COSTS))
    names = [row.name for row in rows if row.name in fronts]
    return list(dict.fromkeys([*([chosen.name] if chosen else []), *names]))


def differing(rows: Sequence[Row]) -> list[str]:
    """Parameters in which the trials differ."""
    keys = list(dict.fromkeys(key for row in rows for key in row.params))
    return [key for key in keys if len({str(row.params.get(key)) for row in rows}) > 1]


def print_table(rows: Sequence[Row], console: Console) -> None:
    """A line per trial, the fastest first; another machine's and failures come last."""
    chosen, error, keys = recommended(rows), error_measure(rows), differing(rows)
    comparable, others = on_one_machine(rows)
    fronts = set[str]().union(*(front(comparable, error, cost) for cost in COSTS))
    measures = [measure for measure in COLUMNS if console.width >= ROOMY_WIDTH or measure not in ROOMY]
    table = Table(box=None, header_style="dim", pad_edge=False)
    table.add_column("Trial", no_wrap=True, min_width=max(len(row.name) for row in rows))
    for key in keys:
        table.add_column(key)
    for measure in measures:
        table.add_column(COLUMNS[measure], justify="right", min_width=6)  # else a narrow terminal cuts numbers
    table.add_column("Gates")
    for row in [*_by_speed(comparable), *_by_speed(others)]:
        style = "bold green" if row == chosen else "" if row.name in fronts else "dim"
        table.add_row(row.name, *_params(row, keys), *_measures(row, measures), _gates(row), style=style)
    for row in (row for row in rows if row.reason is not None):
        table.add_row(row.name, *_params(row, keys), *[DASH] * len(measures), "failed", style="red")
    console.print(table)
    for line in [*_remarks(rows), _advice(chosen)]:
        console.print(line, markup=False, highlight=False)


def write_page(title: str, rows: Sequence[Row], faces: Mapping[str, bytes], path: Path) -> None:
    """Write the page whole or not at all.

    Args:
        faces: PNG files, by trial.
    """
    chosen, error, keys = recommended(rows), error_measure(rows), differing(rows)
    comparable, others = on_one_machine(rows)
    inlined: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "picture.png"
        save_fronts(comparable, error, chosen, picture)
        inlined["fronts"] = _inline(picture.read_bytes())
        pair = ("prune.ratio", "distill.temperature")
        if comparable and set(pair) <= set(keys):
            save_heatmaps(comparable, error, pair, picture)
            inlined["heatmaps"] = _inline(picture.read_bytes())
    fronts = set[str]().union(*(front(comparable, error, cost) for cost in COSTS))
    lines: list[dict[str, Any]] = [
        {"row": row, "params": _params(row, keys), "cells": _measures(row), "gates": _gates(row),
         "kind": "mark" if row == chosen else "" if row.name in fronts else "off"}
        for row in [*_by_speed(comparable), *_by_speed(others)]
    ]  # fmt: skip
    text = render(
        "comparison/page.html.j2",
        title=title,
        chosen=chosen,
        rule=RULE,
        advice=_advice(chosen),
        command=_command(chosen),
        keys=keys,
        columns=list(COLUMNS.values()),
        lines=lines,
        failed=[row for row in rows if row.reason is not None],
        remarks=_remarks(rows),
        pictures=inlined,
        faces={name: _inline(_smaller(png)) for name, png in faces.items()},
        params={row.name: ", ".join(f"{key} {value}" for key, value in row.params.items() if key in keys)
                for row in rows},
        chosen_cells=dict(zip(COLUMNS.values(), _measures(chosen), strict=True)) if chosen else {},
    )  # fmt: skip
    atomic_write(path, text)


def _by_speed(rows: Sequence[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: row.measures["latency_ms_p50"])


def _params(row: Row, keys: Sequence[str]) -> list[str]:
    return [str(row.params.get(key, DASH)) for key in keys]


def _measures(row: Row, measures: Iterable[str] = COLUMNS) -> list[str]:
    return [value_of(measure, row.measures.get(measure)) for measure in measures]


def _gates(row: Row) -> str:
    failed = [name for name, passed in row.gates.items() if not passed]
    return "passed" if row.passed else f"failed: {', '.join(failed)}"


def _remarks(rows: Sequence[Row]) -> list[str]:
    lines = list[str]()
    if others := on_one_machine(rows)[1]:
        lines.append(
            f"{len(others)} trials were measured on another machine ({', '.join(row.name for row in others[:5])}): "
            "they are listed, but their times are not compared, and none of them is recommended."
        )
    measured = [row for row in rows if row.reason is None]
    unstable = [row for row in measured if row.measures.get("latency_status") == "unstable"]
    if unstable:
        lines.append(
            f"{len(unstable)} of {len(measured)} latencies still varied when they were taken (unstable): compare them "
            "with care."
        )
    return lines


def _advice(chosen: Row | None) -> str:
    if chosen is None:
        return "No trial passes all gates, so none is recommended."
    speed = f"{number(chosen.measures['latency_ms_p50'])} ms"
    return f"Recommended, as {RULE}: {chosen.name} ({speed}). To take it: {_command(chosen)}"


def _command(chosen: Row | None) -> str:
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
