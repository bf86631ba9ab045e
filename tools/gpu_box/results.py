"""A GPU's run as tables and pictures: speed against the original in PyTorch FP32 there, and quality."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from leanface import paths
from leanface.catalog import (
    BASELINE,
    DEPLOYED,
    EVALUATED,
    FACE,
    MEASURES,
    RUNTIMES,
    VARIANTS,
    measures_against,
    runtime_title,
    variant_title,
)
from leanface.errors import ArtifactError
from leanface.files import Json, atomic_write, copy_file, read_json, write_json
from leanface.metrics.measurements import BenchmarkRecord, Measurement, fastest_first, read_benchmark
from leanface.metrics.ratio import MedianEstimate
from leanface.report import tables
from leanface.report.sheet import save_figure
from leanface.report.sources import STAGE_REPORTS
from leanface.report.templates import render
from tools.gpu_box.goals import ERRORS, check_goals, ratio, ratios, read_evaluations

BASELINE_RUNTIME = "torch_cuda"

SHIPPED = Path("shipped.json")
"""What `tools.gpu_box.shipped` measured besides the benchmark, in a run of it."""

COMPRESSED = ("distilled_fp32", "distilled_fp16", "quantized_int8")


@dataclass(frozen=True)
class Target:
    """What the best way to run a compressed network is to reach against the original in PyTorch FP32 in the same run.

    Attributes:
        of: the number of a line that is to reach the limit; a measured ratio does with the lower end of its interval.
        largest: at the largest batch, else at the smallest.
        variants: the networks that count.
    """

    title: str
    limit: float
    of: Callable[["Line"], float | MedianEstimate | None]
    largest: bool = True
    variants: tuple[str, ...] = COMPRESSED


TARGETS = {
    "speedup_batch_1": Target("Times faster, smallest batch", 20.0, lambda line: line.speedup, largest=False),
    "throughput_ratio": Target("Times the images per second, largest batch", 32.0, lambda line: line.speedup),
    "throughput_copied": Target("The same with copies from and to host memory", 28.0, lambda line: line.copied_speedup),
    "throughput_fp16": Target(
        "Times the images per second in FP16, largest batch", 17.0, lambda line: line.speedup,
        variants=("distilled_fp16",),
    ),
    "energy_saved": Target("Energy per image saved, largest batch", 0.96, lambda line: _saved(line.energy_ratio)),
    "memory_ratio": Target("Times less GPU memory, largest batch", 15.0, lambda line: line.memory_ratio),
    "streams_4": Target(
        "Times one stream's images per second with four, smallest batch", 2.3, lambda line: line.gains.get(4),
        largest=False,
    ),
    "streams_8": Target(
        "The same with eight", 4.0, lambda line: line.gains.get(8), largest=False,
    ),
    "traffic_saved": Target("Bytes per image to and from memory saved", 0.85, lambda line: _saved(line.traffic_ratio)),
}  # fmt: skip

TEACHER_PICTURES = {
    "teacher_photos": (
        paths.TEACHER_REPORT / "reconstructions.png",
        "What the original predicts of photos and faces",
    ),
    "teacher_errors": (paths.TEACHER_REPORT / "errors.png", "Errors of the original by yaw and by image size"),
}

SPEED_CAPTION = (
    "Left: images per second; right: times the original's in PyTorch FP32 at the same batch. "
    "A color per network, a dash per runtime."
)

PROOF_PICTURES = {
    "faces": "Test faces: the original beside Light INT8",
    "photos": "Photos: the original beside Light INT8",
    "heatmap": "Where on the face Light INT8 differs",
}
"""Of stage evaluate's folder of the deployed network."""


@dataclass(frozen=True)
class Ask:
    """One target, goal or gate as the page shows it: numbers as text, a dash for what was not measured."""

    name: str
    network: str
    reached: str
    asked: str
    verdict: Literal["met", "missed", "not measured"]


@dataclass(frozen=True)
class Line:
    """One network in one runtime, alone on the GPU; ratios are to the original in PyTorch FP32 at the same batch.

    `memory_mb` is of the GPU, without the CUDA context; `traffic_mb` is what an image moves to and from that memory;
    `gains` are the images per second of several streams over one stream's, copies included, by the number of streams.
    An unknown number is None; without a latency it was not run.
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
    traffic_mb: float | None
    traffic_ratio: float | None
    gains: Mapping[int, float]


def write_results(run: Path, folder: Path, cpu: Path | None = None) -> Json:
    """Write README.md, speed.png, summary.json and the raw records of a GPU's run; returns the summary.

    Quality and pictures of faces too, if the run has the reports of stages evaluate and teacher.

    Args:
        run: a folder that `python -m tools.gpu_box import` made, or a project's own.
        cpu: benchmark.json of the same networks on a CPU, to stand beside it; kept as benchmark_cpu.json.

    Raises:
        ArtifactError: a record is missing, or the baseline was not run on the GPU.
    """
    benchmark = read_benchmark(run / paths.BENCHMARK)
    provenance = read_json(run / "provenance.json") if (run / "provenance.json").is_file() else {}
    stages = {
        name: read_json(run / path / "metrics.json")
        for name, path in STAGE_REPORTS.items()
        if (run / path / "metrics.json").is_file()
    }
    cpu_benchmark = None if cpu is None else read_benchmark(cpu)
    evaluations = read_evaluations(run)
    config: Json = yaml.safe_load((run / paths.CONFIG).read_text()) if (run / paths.CONFIG).is_file() else {}
    shipped: Json = read_json(run / SHIPPED) if (run / SHIPPED).is_file() else {}
    lines = lines_of(benchmark, shipped.get("traffic", {}).get("rows", []))
    summary: Json = {
        "device": benchmark.device,
        "commit": provenance.get("commit"),
        "image_size": benchmark.image_size,
        "targets": check_targets(lines),
        "goals": check_goals(evaluations, config.get("evaluate", {}).get("gates")),
        "ratios": ratios(evaluations),
        "quality": {name: evaluation.model_dump()["measures"] for name, evaluation in evaluations.items()},
        "stages": stages,
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_speed(lines, folder / "speed.png")
    compressed = {name: evaluation for name, evaluation in evaluations.items() if name != BASELINE}
    context: dict[str, Any] = {
        "summary": summary,
        "lines": lines,
        "shipped": shipped,
        "worst_layers": worst_layers(shipped),
        "compared": {name: MEASURES[name].full_heading for name in ERRORS},
        "batches": benchmark.settings.batches,
        "settings": benchmark.settings,
        "config": config,
        "streams": streams_of(benchmark.rows),
        "not_run": sorted({(row.runtime, row.not_run) for row in benchmark.rows if row.not_run is not None}),
        "end_to_end": benchmark.end_to_end,
        "cpu": [] if cpu_benchmark is None else cpu_rows(cpu_benchmark),
        "cpu_name": "" if cpu_benchmark is None else cpu_benchmark.device["cpu"],
        "asks": asks(summary),
        "speed_caption": SPEED_CAPTION,
        "steps": tables.steps(stages, FACE.steps),
        "step_measures": [MEASURES[name].full_heading for name in FACE.steps],
        "evaluations": evaluations,
        "qualities": [
            (title, list(found), tables.quality(found, measures))
            for title, found, measures in (
                ("Against the original", compressed, measures_against("teacher")),
                ("Against truth", evaluations, measures_against("truth")),
            )
            if found
        ],
        "ratio_names": {measure: MEASURES[measure].heading for measure in ERRORS},
        "pictures": copy_pictures(run, folder),
        "device": list(tables.flatten(benchmark.device)),
        "variant_title": variant_title,
        "runtime_title": runtime_title,
        "ratio_text": tables.ratio_text,
    }
    atomic_write(folder / "README.md", render("results.md.j2", "tools.gpu_box", **context))
    atomic_write(folder / "benchmark.json", benchmark.model_dump_json(indent=1) + "\n")
    if cpu_benchmark is not None:
        atomic_write(folder / "benchmark_cpu.json", cpu_benchmark.model_dump_json(indent=1) + "\n")
    if provenance:
        write_json(folder / "provenance.json", provenance)
    if evaluations:
        write_json(folder / "evaluations.json", {name: found.model_dump() for name, found in evaluations.items()})
    if (run / paths.CONFIG).is_file():
        copy_file(run / paths.CONFIG, folder / "config.yaml")
    if shipped:
        write_json(folder / SHIPPED, shipped)
    write_json(folder / "summary.json", summary)
    return summary


def copy_pictures(run: Path, folder: Path) -> dict[str, str]:
    """Copy the run's pictures of faces into `folder`; their file names and captions."""
    proof = run / paths.evaluation_dir(DEPLOYED)
    wanted = {name: (run / path, caption) for name, (path, caption) in TEACHER_PICTURES.items()}
    wanted |= {name: (proof / f"{name}.png", caption) for name, caption in PROOF_PICTURES.items()}
    copied: dict[str, str] = {}
    for name, (path, caption) in wanted.items():
        if path.is_file():
            copy_file(path, folder / f"{name}.png")
            copied[f"{name}.png"] = caption
    return copied


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


def lines_of(benchmark: BenchmarkRecord, traffic: Sequence[Json] = ()) -> list[Line]:
    """List what was planned to run alone on the GPU, at every batch size.

    Args:
        traffic: rows as `tools.gpu_box.shipped.measure_traffic` returns them.

    Raises:
        ArtifactError: the original in PyTorch FP32 was not measured there.
    """
    rows = [row for row in benchmark.rows if RUNTIMES[row.runtime].on_gpu and row.streams == 1]
    found = {(row.variant, row.runtime, row.batch, row.copies): row for row in rows}
    moved = {(row["variant"], row["runtime"], row["batch"]): row["mb_per_image"] for row in traffic}
    gains: dict[tuple[str, str, int], dict[int, float]] = defaultdict(dict)
    for row, gain in streams_of(benchmark.rows):
        if gain is not None:
            gains[row.variant, row.runtime, row.batch][row.streams] = gain
    lines: list[Line] = []
    for (variant, runtime, batch, copies), row in found.items():
        if copies or not any(other.ran for other in rows if (other.variant, other.runtime) == (variant, runtime)):
            continue  # why it did not run is told below the tables
        base = found.get((BASELINE, BASELINE_RUNTIME, batch, False))
        if base is None or not base.ran:
            raise ArtifactError(
                f"{paths.BENCHMARK} has no row of {BASELINE} in {BASELINE_RUNTIME} at batch {batch}, to which all else "
                "is relative: run stage benchmark with `benchmark: gpu` on a machine with a GPU."
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
                moved.get((variant, runtime, batch)),
                ratio(moved.get((BASELINE, BASELINE_RUNTIME, batch)), moved.get((variant, runtime, batch))),
                gains[variant, runtime, batch],
            )
        )
    return lines


def check_targets(lines: list[Line]) -> dict[str, Json]:
    """Each of `TARGETS` with the best value of a compressed network, and which one that is; None if not measured."""
    smallest, largest = (pick(line.batch for line in lines) for pick in (min, max))
    reached: dict[str, Json] = {}
    for name, target in TARGETS.items():
        batch = largest if target.largest else smallest
        values = [
            (*_with_lower_end(value), line)
            for line in lines
            if line.variant in target.variants and line.batch == batch
            if (value := target.of(line)) is not None
        ]
        best = max(values, key=lambda found: found[:2]) if values else None
        reached[name] = {
            "limit": target.limit,
            "value": best and best[0],
            "passed": best is not None and best[1] >= target.limit,
            "batch": batch,
            "variant": best and best[2].variant,
            "runtime": best and best[2].runtime,
        }
    return reached


def _with_lower_end(value: float | MedianEstimate) -> tuple[float, float]:
    if isinstance(value, MedianEstimate):
        return value.value, value.value if value.low is None else value.low
    return value, value


def _saved(times_less: float | None) -> float | None:
    return None if times_less is None else 1 - 1 / times_less


def asks(summary: Json) -> list[Ask]:
    """Every target of `TARGETS`, then every goal and gate on quality, of what `write_results` returned."""
    listed: list[Ask] = []
    for name, target in summary["targets"].items():
        network = tables.DASH
        if target["variant"] is not None:
            network = f"{variant_title(target['variant'])}, {runtime_title(target['runtime'])}"
        listed.append(_ask(f"{TARGETS[name].title} ({target['batch']})", network, {**target, "at_least": True}))
    listed += [_ask(goal["name"], variant_title(goal["variant"]), goal) for goal in summary["goals"]]
    return listed


def _ask(name: str, network: str, checked: Json) -> Ask:
    """Of one entry with value, limit, at_least and passed."""
    value, limit = checked["value"], checked["limit"]
    asked = f"{'≥' if checked['at_least'] else '≤'} {limit:.4g}"
    if value is None:
        return Ask(name, network, tables.DASH, asked, "not measured")
    # As many digits as it takes to see on which side of the limit it lies.
    texts = (f"{value:.{digits}g}" for digits in range(4, 18))
    side = value < limit, value > limit
    reached = next(text for text in texts if (float(text) < limit, float(text) > limit) == side)
    return Ask(name, network, reached, asked, "met" if checked["passed"] else "missed")


def cpu_rows(benchmark: BenchmarkRecord) -> list[Measurement]:
    """List the fastest runtime of each network on a CPU, and the original in PyTorch first; batch 1."""
    rows = [row for row in benchmark.rows if not RUNTIMES[row.runtime].on_gpu]
    base = fastest_first(rows, variant=BASELINE, runtime="torch", batch=1, streams=1)
    best = [fastest_first(rows, variant=name, batch=1, streams=1)[:1] for name in EVALUATED]
    return [row for found in (base[:1], *best) for row in found]


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
