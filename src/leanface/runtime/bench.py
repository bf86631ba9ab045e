"""`leanface bench`: one exported file in every runtime that reads it, measured as stage benchmark does, as a table.

Beside it, on request, the original in PyTorch, whose windows are interleaved with the file's.
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

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
    "speedup": ("Faster", "{:.1f}x"),
    "p90_ms": ("p90", "{:.2f}"),
    "p95_ms": ("p95", "{:.2f}"),
    "p99_ms": ("p99", "{:.2f}"),
    "images_per_second": ("img/s", "{:.0f}"),
    "cold_start_ms": ("Cold ms", "{:.0f}"),
    "memory_mb": ("MB", "{:.0f}"),
    "device_memory_mb": ("GPU MB", "{:.0f}"),
    "energy_mj": ("mJ/img", "{:.0f}"),
}
"""Heading and format of each field of `Row` that is shown, and of `speedups`."""

ORIGINAL = "original"
"""Stands for the variant in the rows of the original."""


def bench_file(
    path: Path, settings: Benchmark, *, original: Path | None = None, image_size: int | None = None
) -> list[Row]:
    """Measure an ONNX file.

    Args:
        original: the bundle that it came from, to be measured in PyTorch as well.
        image_size: other than the one that the file was exported for (px).

    Raises:
        ArtifactError: a file is missing, damaged, or was not exported by LeanFace.
    """
    exported = read_onnx(path)
    entries = [Entry(path.stem, runtime, path, settings.streams) for runtime in ONNX_READERS]
    if original is not None:
        entries.insert(0, Entry(ORIGINAL, "torch", original, (1,)))
    return benchmark_networks(entries, settings, image_size or exported.image_size)


def speedups(rows: Sequence[Row]) -> dict[int, float]:
    """By a row's index: the original's median latency at the same batch size over the row's, times its streams."""
    original_ms = {row.batch: row.p50_ms for row in rows if row.variant == ORIGINAL}
    return {
        index: row.streams * baseline_ms / row.p50_ms
        for index, row in enumerate(rows)
        if row.p50_ms is not None and (baseline_ms := original_ms.get(row.batch))
    }


def print_rows(rows: Sequence[Row], console: Console) -> None:
    """A table of what ran, and below it what is not measured, with the reason of each."""
    faster = speedups(rows)
    cells: list[dict[str, Any]] = [{**asdict(row), "speedup": faster.get(index)} for index, row in enumerate(rows)]
    for row in cells:
        row["runtime"] += " (original)" if row["variant"] == ORIGINAL else ""
        row["runtime"] += ", with copies" if row["copies"] else ""
    # Energy, a GPU's memory and speed-ups have no column where there are none.
    shown = [name for name in COLUMNS if any(row[name] is not None for row in cells if row["status"] != "not_run")]
    table = Table(box=box.SIMPLE_HEAD, padding=0, pad_edge=False)
    for name in shown:
        table.add_column(COLUMNS[name][0], justify="left" if name == "runtime" else "right", no_wrap=True)
    for row in cells:
        if row["status"] != "not_run":
            table.add_row(*("" if row[name] is None else COLUMNS[name][1].format(row[name]) for name in shown))
    console.print(table)
    for variant, size_bytes in {row.variant: row.size_bytes for row in rows}.items():
        console.print(f"{variant}: {(size_bytes or 0) / 1e6:.2f} MB", highlight=False)
    # Reasons repeat for every batch size; each is told once.
    reasons = {f"{row.runtime} not run: {row.reason}" for row in rows if row.status == "not_run"}
    reasons |= {
        f"{row.runtime}, batch {row.batch}, streams {row.streams}, is {row.status}: {row.reason}"
        for row in rows
        if row.reason and row.status != "not_run"
    }
    reasons |= {f"energy not measured: {row.energy_reason}" for row in rows if row.energy_reason and row.streams == 1}
    for reason in sorted(reasons):
        console.print(reason, markup=False, highlight=False, soft_wrap=True)
