"""Measure one exported file in every runtime that reads it, and print a table: `leanface bench`.

On request the original in PyTorch is measured in turns with it, and every row says how many times faster it is.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from leanface.catalog import MEASURES, readers_of
from leanface.config import Benchmark
from leanface.metrics.measurements import Measurement
from leanface.runtime.benchmark import Entry, benchmark_networks
from leanface.runtime.onnx_file import read_onnx

ORIGINAL = "original"
"""Stands for the variant in the rows of the original."""


def bench_file(
    network: Path | Mapping[str, Path],
    settings: Benchmark,
    *,
    original: Path | None = None,
    image_size: int | None = None,
) -> list[Measurement]:
    """Measure an ONNX file, or flavors of one network.

    Args:
        network: the file, or what each runtime reads, by its name.
        original: the bundle that it came from, to be measured in PyTorch as well.
        image_size: other than the one that the file was exported for (px).

    Raises:
        ArtifactError: a file is missing, damaged, or was not exported by LeanFace.
    """
    files = network if isinstance(network, Mapping) else dict.fromkeys(readers_of("onnx"), network)
    exported = read_onnx(next(iter(files.values())))
    entries = [Entry(path.stem, runtime, path, settings.streams) for runtime, path in files.items()]
    if original is not None:
        entries.insert(0, Entry(ORIGINAL, "torch", original, (1,)))
    return benchmark_networks(entries, settings, image_size or exported.image_size, baseline=ORIGINAL)


def print_rows(rows: Sequence[Measurement], console: Console) -> None:
    """Print a table of what ran, and below it what was not measured, with the reason of each."""
    table = Table(box=box.SIMPLE_HEAD, padding=0, pad_edge=False)
    ran = [row for row in rows if row.ran]
    # Energy, a GPU's memory and speed-ups have no column where there are none.
    shown = [(heading, cell) for heading, cell in COLUMNS.items() if any(cell(row) for row in ran)]
    for heading, _ in shown:
        table.add_column(heading, justify="left" if heading == "Runtime" else "right", no_wrap=True)
    for row in ran:
        table.add_row(*(cell(row) for _, cell in shown))
    console.print(table)
    for variant, size_bytes in {row.variant: row.size_bytes for row in rows}.items():
        console.print(f"{variant}: {(size_bytes or 0) / 1e6:.2f} MB", highlight=False)
    for remark in remarks(rows):
        console.print(remark, markup=False, highlight=False, soft_wrap=True)


def remarks(rows: Sequence[Measurement]) -> list[str]:
    """Say what was not measured, and what cannot be compared; each reason once, for most repeat for every batch."""
    lines = {f"{row.runtime} not run: {row.not_run}" for row in rows if row.not_run is not None}
    lines |= {f"energy not measured: {row.energy_reason}" for row in rows if row.energy_reason and row.streams == 1}
    wide = [row for row in rows if row.speedup is not None and row.speedup.too_wide]
    if wide:
        where = ", ".join(f"{row.runtime} at batch {row.batch}" for row in wide)
        lines.add(f"too wide an interval to compare: {where}; leave the machine idle and measure again")
    return sorted(lines)


def _runtime(row: Measurement) -> str:
    original = " (original)" if row.variant == ORIGINAL else ""
    return row.runtime + original + (", with copies" if row.copies else "")


def _latency(row: Measurement) -> str:
    return "" if row.latency_ms is None else f"{row.latency_ms:.2f}"


def _speedup(row: Measurement) -> str:
    return "" if row.speedup is None else MEASURES["speedup"].text(row.speedup.value)


def _interval(row: Measurement) -> str:
    found = row.speedup
    if found is None or found.low is None or found.high is None or found.low == found.high:
        return ""
    return MEASURES["speedup"].interval_text((found.low, found.high))


def _rounded(field: str, decimals: int) -> Callable[[Measurement], str]:
    def cell(row: Measurement) -> str:
        value: float | None = getattr(row, field)
        return "" if value is None else f"{value:.{decimals}f}"

    return cell


COLUMNS: dict[str, Callable[[Measurement], str]] = {
    "Runtime": _runtime,
    "Batch": lambda row: str(row.batch),
    "Streams": lambda row: str(row.streams),
    "p50 ms": _latency,
    "Faster": _speedup,
    "95 %": _interval,
    "p90": _rounded("p90_ms", 2),
    "p95": _rounded("p95_ms", 2),
    "p99": _rounded("p99_ms", 2),
    "img/s": _rounded("images_per_second", 0),
    "Cold ms": _rounded("cold_start_ms", 0),
    "MB": _rounded("memory_mb", 0),
    "GPU MB": _rounded("device_memory_mb", 0),
    "mJ/img": _rounded("energy_mj", 0),
}
"""What each column shows of a row; "" where there is nothing to show."""
