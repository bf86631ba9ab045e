"""Turn what was measured into the report's tables: rows of text, laid out in the templates."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from leanface.catalog import (
    BASELINE,
    BASELINE_RUNTIMES,
    DASH,
    DEPLOYED,
    EVALUATED,
    MEASURES,
    Measure,
    number,
    runtime_title,
    variant_title,
)
from leanface.files import Json
from leanface.metrics.measurements import Evaluation, Measurement, fastest_first
from leanface.metrics.ratio import MedianEstimate
from leanface.report.sources import Sources
from leanface.report.summary import Summary, baseline

STEPS = (
    ("Pruned", "prune", "pruned/"),
    ("Re-fitted in closed form", "prune", "compensated/"),
    ("Distilled", "distill", "distilled/"),
    ("INT8, calibrated (PTQ)", "quantize", "calibrated/"),
    ("INT8, trained (QAT)", "quantize", "trained/"),
    ("INT8, rounded with feedback (GPTQ)", "quantize", "rounded/"),
    ("INT8, with parts in floating point", "quantize", "mixed/"),
)
"""What is done to the network, the stage that does it, and that state's prefix in the stage's metrics."""


@dataclass(frozen=True)
class Rung:
    """One step of the ladder; an unknown number is None.

    Attributes:
        not_run: why it was not run.
        bar: its latency as a share of the slowest.
    """

    name: str
    detail: str
    not_run: str | None
    latency_ms: float | None
    bar: float
    speedup: MedianEstimate | None
    size_mb: float | None
    size_ratio: float | None
    memory_mb: float | None
    images_per_second: float | None
    likeness: float | None
    error: float | None


def ladder(sources: Sources, summary: Summary) -> list[Rung]:
    """List the steps from the original in PyTorch to the INT8 network in its best runtime, then TensorRT."""
    rows = sources.benchmark.rows
    exported = [row for row in rows if row.runtime not in (*BASELINE_RUNTIMES, "tensorrt")]
    best = {name: fastest_first(exported, variant=name, batch=1, streams=1)[:1] for name in EVALUATED}
    steps: list[tuple[str, Measurement]] = [(variant_title(BASELINE), baseline(sources.benchmark, 1))]
    steps += [(f"{variant_title(BASELINE)}, exported", row) for row in best[BASELINE]]
    steps += [(variant_title(name), row) for name in EVALUATED if name != BASELINE for row in best[name]]
    steps += [
        ("TensorRT INT8", row)
        for row in rows
        if (row.runtime, row.variant, row.batch, row.streams, row.copies) == ("tensorrt", DEPLOYED, 1, 1, False)
    ]
    slowest_ms = max(row.latency_ms or 0.0 for _, row in steps)
    return [_rung(name, row, slowest_ms, sources, summary) for name, row in steps]


def _rung(name: str, row: Measurement, slowest_ms: float, sources: Sources, summary: Summary) -> Rung:
    benchmark, measures = sources.benchmark, summary.variants[row.variant].measures
    largest = max(benchmark.settings.batches)
    bulk = fastest_first(benchmark.rows, variant=row.variant, runtime=row.runtime, batch=largest)
    # The file that would be deployed; a bundle is only what PyTorch reads here.
    size_bytes = row.size_bytes if row.runtime == "tensorrt" else benchmark.files[row.variant]
    return Rung(
        name=name,
        detail=runtime_title(row.runtime),
        not_run=row.not_run,
        latency_ms=row.latency_ms,
        bar=(row.latency_ms or 0.0) / slowest_ms,
        speedup=row.speedup,
        size_mb=None if size_bytes is None else size_bytes / 1e6,
        size_ratio=benchmark.files[BASELINE] / size_bytes if size_bytes else None,
        memory_mb=row.memory_mb,
        images_per_second=max((other.images_per_second or 0.0 for other in bulk), default=None),
        # An engine that did not run was not evaluated either, whatever its ONNX file scores elsewhere; and the
        # original in PyTorch is what the others are compared with.
        likeness=measures[summary.subject.likeness] if row.ran and row.runtime not in BASELINE_RUNTIMES else None,
        error=measures[summary.error] if row.ran else None,
    )


@dataclass(frozen=True)
class ParityLine:
    """How closely one file in one runtime agrees with PyTorch: on samples, and on the input where it is farthest off.

    `reason` says why it, or each of several files, was not compared; then there are no numbers.
    """

    name: str
    runtime: str
    samples: float | None = None
    worst_input: str = DASH
    worst: float | None = None
    worst_sample: float | None = None
    tolerance: float | None = None
    inputs: int = 0
    reason: str | None = None


def parity(exports: Mapping[str, Json]) -> list[ParityLine]:
    """Write a line per exported file and way to run it, then those that could not be compared here."""
    lines: list[ParityLine] = []
    absent: dict[tuple[str, str], list[str]] = {}  # by runtime and reason: most are the same for all
    for variant, description in exports.items():
        name, rows = variant_title(variant), description["parity"]["rows"]
        for runtime in dict.fromkeys(str(row["runtime"]) for row in rows):
            ours = [row for row in rows if row["runtime"] == runtime]
            worst = max(ours, key=lambda row: row["relative_l2"])
            lines.append(
                ParityLine(
                    name,
                    runtime_title(runtime),
                    ours[0]["relative_l2"],
                    worst["input"],
                    worst["relative_l2"],
                    max(row["worst_relative_l2"] for row in ours),
                    worst["tolerance"],
                    len(ours),
                )
            )
        not_run: dict[str, str] = description["parity"]["not_run"]
        for runtime, reason in not_run.items():
            absent.setdefault((runtime_title(runtime), reason), []).append(name)
    return lines + [ParityLine(", ".join(names), runtime, reason=reason) for (runtime, reason), names in absent.items()]


def not_run(summary: Summary) -> list[tuple[str, str]]:
    """List (networks and runtime, why they were not run), then (measure, why it was not taken)."""
    lines = [
        (f"{', '.join(map(variant_title, row.variants))} in {runtime_title(row.runtime)}", row.reason)
        for row in summary.not_run
    ]
    return lines + [(MEASURES[name].title, reason) for name, reason in summary.not_measured.items()]


def evaluated(evaluations: Mapping[str, Evaluation]) -> list[tuple[str, str, dict[str, str]]]:
    """List (networks, runtime, better runtimes and why they were not used), a line per runtime and set of reasons."""
    names: dict[tuple[str, tuple[tuple[str, str], ...]], list[str]] = {}
    for variant, evaluation in evaluations.items():
        reasons = tuple((runtime_title(name), why) for name, why in evaluation.better_runtimes.items())
        names.setdefault((runtime_title(evaluation.runtime), reasons), []).append(variant_title(variant))
    return [(", ".join(group), runtime, dict(reasons)) for (runtime, reasons), group in names.items()]


@dataclass(frozen=True)
class QualityLine:
    """One line of a quality table: a cell per variant, each (mean, 95 % interval and what the mean leaves out)."""

    key: str
    name: str
    cells: list[tuple[str, str]]


def quality(evaluations: Mapping[str, Evaluation], measures: Mapping[str, Measure]) -> list[QualityLine]:
    """Write mean and interval of each measure that was taken, a cell per variant in the order given."""
    return [
        QualityLine(key, measure.heading, [_mean_and_interval(key, evaluation) for evaluation in evaluations.values()])
        for key, measure in measures.items()
        if all(key in evaluation.measures for evaluation in evaluations.values())
    ]


def _mean_and_interval(key: str, evaluation: Evaluation) -> tuple[str, str]:
    found, left_out = evaluation.measures[key], evaluation.undefined.get(key, 0)
    if found is None:
        return ("undefined", "")
    without = f", without {left_out} of {evaluation.count}" if left_out else ""
    return (MEASURES[key].text(found.mean), MEASURES[key].interval_text((found.low, found.high)) + without)


def ratio_text(ratio: MedianEstimate | None) -> tuple[str, str]:
    """Write a speed-up, and beside it its interval or why it has none."""
    measure = MEASURES["speedup"]
    if ratio is None:
        return (DASH, "")
    if ratio.low is None or ratio.high is None:
        return (measure.text(ratio.value), f"{ratio.count} windows: too few for an interval")
    if ratio.low == ratio.high:
        return (measure.text(ratio.value), "")
    interval = measure.interval_text((ratio.low, ratio.high))
    return (measure.text(ratio.value), f"{interval}, too wide to compare" if ratio.too_wide else interval)


def steps(stages: Mapping[str, Json], measures: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Write how far off the network is after each of `STEPS` that was taken: a cell per measure."""
    return [
        (name, [MEASURES[measure].text(stages[stage].get(prefix + measure)) for measure in measures])
        for name, stage, prefix in STEPS
        if stage in stages and any(prefix + measure in stages[stage] for measure in measures)
    ]


def flatten(tree: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield (dotted name, text) of every scalar in JSON; a list of scalars counts as one."""
    if isinstance(tree, dict):
        for key, value in cast(Json, tree).items():
            yield from flatten(value, f"{prefix}.{key}" if prefix else key)
    elif isinstance(tree, list):
        items = cast(list[Any], tree)
        if any(isinstance(item, dict | list) for item in items):
            for index, value in enumerate(items):
                yield from flatten(value, f"{prefix}.{index}")
        else:
            yield prefix, ", ".join(_scalar(item) for item in items)
    else:
        yield prefix, _scalar(tree)


def _scalar(value: Any) -> str:
    if value is None:
        return "not known"
    return number(value) if isinstance(value, float) else str(value)
