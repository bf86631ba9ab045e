"""The page of the networks that ship, measured on a GPU: beside the original in PyTorch FP32 there."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from leanface import paths
from leanface.catalog import BASELINE, MEASURES, RUNTIMES, VARIANTS, runtime_title, variant_title
from leanface.errors import ArtifactError
from leanface.files import Json, atomic_write, read_json, write_json
from leanface.metrics.measurements import BenchmarkRecord, Measurement, read_benchmark
from leanface.metrics.ratio import MedianEstimate
from leanface.report import tables
from leanface.report.sheet import save_figure
from leanface.report.templates import render
from tools.gpu_box.shipped import COMPARED, FILE

BASELINE_RUNTIME = "torch_cuda"

SPEED_CAPTION = (
    "Left: images per second; right: times the original's in PyTorch FP32 at the same batch. "
    "A color per network, a dash per runtime."
)


@dataclass(frozen=True)
class Line:
    """One network in one runtime, alone on the GPU; ratios are to the original in PyTorch FP32 at the same batch.

    `memory_mb` is of the GPU, without the CUDA context. An unknown number is None; without a latency it was not run.
    """

    variant: str
    runtime: str
    batch: int
    latency_ms: float | None
    speedup: MedianEstimate | None
    images_per_second: float | None
    energy_mj: float | None
    energy_ratio: float | None
    memory_mb: float | None
    memory_ratio: float | None
    copied_ms: float | None
    copied_speedup: MedianEstimate | None


def write_results(run: Path, folder: Path, commit: str) -> None:
    """Write README.md, speed.png and the raw records of what `tools.gpu_box.shipped` measured.

    Args:
        run: the folder that it wrote.
        commit: what the page says was measured.

    Raises:
        ArtifactError: a record is missing, or the baseline was not run on the GPU.
    """
    benchmark, shipped = read_benchmark(run / paths.BENCHMARK), read_json(run / FILE)
    lines = lines_of(benchmark)
    folder.mkdir(parents=True, exist_ok=True)
    save_speed(lines, folder / "speed.png")
    context: dict[str, Any] = {
        "benchmark": benchmark,
        "commit": commit,
        "lines": lines,
        "shipped": shipped,
        "worst_layers": worst_layers(shipped),
        "compared": {name: MEASURES[name].full_heading for name in COMPARED},
        "streams": streams_of(benchmark.rows),
        "not_run": sorted({(row.runtime, row.not_run) for row in benchmark.rows if row.not_run is not None}),
        "speed_caption": SPEED_CAPTION,
        "device": list(tables.flatten(benchmark.device)),
        "variant_title": variant_title,
        "runtime_title": runtime_title,
        "ratio_text": tables.ratio_text,
    }
    atomic_write(folder / "README.md", render("results.md.j2", "tools.gpu_box", **context))
    atomic_write(folder / "benchmark.json", benchmark.model_dump_json(indent=1) + "\n")
    write_json(folder / FILE, shipped)


def streams_of(rows: Sequence[Measurement]) -> list[tuple[Measurement, float | None]]:
    """Return the rows of several streams, each with its images per second over one stream's, with copies too."""
    alone = {
        (row.variant, row.runtime, row.batch): row.images_per_second for row in rows if row.streams == 1 and row.copies
    }
    found: list[tuple[Measurement, float | None]] = []
    for row in rows:
        if row.streams > 1 and row.images_per_second is not None:
            one = alone.get((row.variant, row.runtime, row.batch))
            found.append((row, None if one is None else row.images_per_second / one))
    return found


def worst_layers(shipped: Json, count: int = 8) -> list[Json]:
    """List the layers that take longest beyond what the GPU would need at least."""
    layers: list[Json] = shipped.get("layers", {}).get("layers", [])
    return sorted(layers, key=lambda layer: layer["floor_us"] - layer["time_us"])[:count]


def lines_of(benchmark: BenchmarkRecord) -> list[Line]:
    """List what was planned to run alone on the GPU, at every batch size.

    Raises:
        ArtifactError: the original in PyTorch FP32 was not measured there.
    """
    rows = [row for row in benchmark.rows if RUNTIMES[row.runtime].on_gpu and row.streams == 1]
    found = {(row.variant, row.runtime, row.batch, row.copies): row for row in rows}
    lines: list[Line] = []
    for (variant, runtime, batch, copies), row in found.items():
        if copies or not any(other.ran for other in rows if (other.variant, other.runtime) == (variant, runtime)):
            continue  # why it did not run is told below the tables
        base = found.get((BASELINE, BASELINE_RUNTIME, batch, False))
        if base is None or not base.ran:
            raise ArtifactError(
                f"{paths.BENCHMARK} has no row of {BASELINE} in {BASELINE_RUNTIME} at batch {batch}, to which all else "
                "is relative: run `python -m tools.gpu_box shipped` on a machine with a GPU."
            )
        copied = found.get((variant, runtime, batch, True))
        lines.append(
            Line(
                variant,
                runtime,
                batch,
                row.latency_ms,
                row.speedup,
                row.images_per_second,
                row.energy_mj,
                ratio(base.energy_mj, row.energy_mj),
                row.device_memory_mb,
                ratio(base.device_memory_mb, row.device_memory_mb),
                None if copied is None else copied.latency_ms,
                None if copied is None else copied.speedup,
            )
        )
    return lines


def ratio(one: float | None, other: float | None) -> float | None:
    """Divide; None where either is undefined, or there is nothing to divide by."""
    return None if one is None or not other else one / other


def save_speed(lines: list[Line], path: Path) -> None:
    """Images per second over the batch size, and how many times the original's that is."""
    figure = Figure(figsize=(10, 3.8), dpi=140, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    for variant, runtime in dict.fromkeys((line.variant, line.runtime) for line in lines):
        ran = [line for line in lines if (line.variant, line.runtime) == (variant, runtime) and line.latency_ms]
        label = f"{VARIANTS[variant].title}, {RUNTIMES[runtime].title}"
        for axes, values in (
            (left, [line.images_per_second for line in ran]),
            (right, [line.speedup and line.speedup.value for line in ran]),
        ):
            axes.plot(
                [line.batch for line in ran],
                values,
                linestyle=RUNTIMES[runtime].dash,
                color=VARIANTS[variant].color,
                marker="o",
                markersize=4,
                label=label if ran else None,
            )
    for axes, name in ((left, "images per second"), (right, "times the original in PyTorch FP32")):
        axes.set_xscale("log", base=2)
        axes.set_xticks(
            sorted({line.batch for line in lines}), [str(b) for b in sorted({line.batch for line in lines})]
        )
        axes.set_xlabel("images in a batch")
        axes.set_title(name, fontsize=10)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    left.set_yscale("log")
    right.set_ylim(bottom=0)
    figure.legend(*left.get_legend_handles_labels(), loc="outside right center", frameon=False, fontsize=8)
    save_figure(figure, path)
