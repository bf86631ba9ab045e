"""`leanface bench`: one exported file in every runtime that reads it, measured as stage benchmark does, as a table."""

from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from leanface.config import Benchmark
from leanface.runtime import ONNX_READERS
from leanface.runtime.benchmark import Entry, Row, benchmark_networks
from leanface.runtime.engine import read_onnx

COLUMNS = {
    "runtime": ("Runtime", "{}"),
    "batch": ("Batch", "{}"),
    "streams": ("Streams", "{}"),
    "p50_ms": ("p50 ms", "{:.2f}"),
    "p90_ms": ("p90", "{:.2f}"),
    "p95_ms": ("p95", "{:.2f}"),
    "p99_ms": ("p99", "{:.2f}"),
    "images_per_second": ("img/s", "{:.0f}"),
    "cold_start_ms": ("Cold ms", "{:.0f}"),
    "memory_mb": ("MB", "{:.0f}"),
    "device_memory_mb": ("GPU MB", "{:.0f}"),
    "energy_mj": ("mJ/img", "{:.0f}"),
}
"""Heading and format of each field of `Row` that is shown."""


def bench_file(path: Path, settings: Benchmark) -> list[Row]:
    """Measure an ONNX file at the image size that it was exported for.

    Raises:
        ArtifactError: it is missing, damaged, or was not exported by LeanFace.
    """
    entries = [Entry(path.stem, runtime, path, settings.streams) for runtime in ONNX_READERS]
    return benchmark_networks(entries, settings, read_onnx(path).image_size)


def print_rows(rows: Sequence[Row], console: Console) -> None:
    """A table of what ran, and below it what is not measured, with the reason of each."""
    ran = [row for row in rows if row.status != "not_run"]
    # Energy and a GPU's memory have no column where nothing counts them.
    shown = [name for name in COLUMNS if any(getattr(row, name) is not None for row in ran)]
    table = Table(box=box.SIMPLE_HEAD, padding=0, pad_edge=False)
    for name in shown:
        table.add_column(COLUMNS[name][0], justify="left" if name == "runtime" else "right", no_wrap=True)
    for row in ran:
        table.add_row(*(_cell(row, name) for name in shown))
    console.print(table)
    # Reasons repeat for every batch size; each is told once.
    reasons = {f"{row.runtime} not run: {row.reason}" for row in rows if row.status == "not_run"}
    reasons |= {
        f"{row.runtime}, batch {row.batch}, streams {row.streams}, is {row.status}: {row.reason}"
        for row in ran
        if row.reason
    }
    reasons |= {f"energy not measured: {row.energy_reason}" for row in ran if row.energy_reason and row.streams == 1}
    for reason in sorted(reasons):
        console.print(reason, markup=False, highlight=False, soft_wrap=True)


def _cell(row: Row, name: str) -> str:
    value = getattr(row, name)
    if name == "runtime" and row.copies:
        return f"{value}, with copies"
    return "" if value is None else COLUMNS[name][1].format(value)
