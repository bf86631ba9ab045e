"""The report's tables as rows of text: numbers are rounded and named here, and laid out in the templates."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

from leanface import paths
from leanface.files import Json
from leanface.report.sources import Sources
from leanface.report.summary import BASELINE, BASELINE_RUNTIMES, baseline, measured

DASH = "\N{EN DASH}"
TIMES = "\N{MULTIPLICATION SIGN}"

VARIANT_NAMES = {
    "original_fp32": "Original",
    "original_fp16": "Original FP16",
    "distilled_fp32": "Light",
    "distilled_fp16": "Light FP16",
    "quantized_int8": "Light INT8",
    "landmarks": "Finding the face and its landmarks",
}

RUNTIME_NAMES = {
    "torch": "PyTorch",
    "torch_cuda": "PyTorch, CUDA",
    "torch_cuda_graph": "PyTorch, CUDA graph",
    "torch_compiled": "torch.compile, CUDA",
    "onnxruntime": "ONNX Runtime",
    "onnxruntime_cuda": "ONNX Runtime, CUDA",
    "openvino": "OpenVINO",
    "mtcnn": "MTCNN",
    "tensorrt": "TensorRT",
}

GATE_NAMES = {
    "ssim": ("UV SSIM", "texture and position maps, against the original"),
    "mse": ("Render MSE", "re-rendered faces, against the original"),
    "size_ratio": ("Times smaller", "ONNX file, against the original's"),
    "speedup": ("Times faster", "batch 1, against the original in PyTorch FP32"),
}

UNMEASURED_NAMES = {"energy_ratio": "Energy per image"}
"""Of summary.json's `not_measured`."""

AGAINST_ORIGINAL = {
    "ssim": "UV SSIM (texture and position)",
    "ssim_texture": "UV texture SSIM",
    "ssim_position": "UV position SSIM",
    "ssim_render": "Re-rendered SSIM, whole frame",
    "ssim_face": "Re-rendered SSIM, face region",
    "mse": "Re-rendered MSE, whole frame",
    "mse_face": "Re-rendered MSE, face region",
    "mse_texture": "UV texture MSE",
    "mse_position": "UV position MSE",
    "original_vertex_mm": "Vertices, shape only (mm)",
    "original_posed_mm": "Vertices as posed (mm)",
    "original_identity_mm": "Identity (mm)",
    "original_expression_mm": "Expression (mm)",
    "original_rotation_deg": "Rotation (degrees)",
    "original_albedo_levels": "Albedo (levels of 255)",
}

AGAINST_TRUTH = {
    "truth_identity_mm": "Identity (mm)",
    "truth_expression_mm": "Expression (mm)",
    "truth_vertex_mm": "Vertices, shape only (mm)",
    "truth_posed_mm": "Vertices as posed (mm)",
    "truth_rotation_deg": "Rotation (degrees)",
    "truth_translation_mm": "Translation (mm)",
    "truth_albedo_levels": "Albedo (levels of 255)",
    "truth_nme": "NME (percent of the eye distance)",
}


STEPS = (
    ("Pruned", "prune", "pruned/"),
    ("Re-fitted in closed form", "prune", "compensated/"),
    ("Small weights set to zero", "prune", "sparse/"),
    ("Distilled", "distill", "distilled/"),
    ("8 bits, calibrated (PTQ)", "quantize", "calibrated/"),
    ("8 bits, trained on (QAT)", "quantize", "trained/"),
)
"""What is done to the network, the stage that does it, and that state's prefix in the stage's metrics."""

STEP_MEASURES = {
    "teacher/vertex_mm": "Vertices to the original (mm)",
    "teacher/rotation_deg": "Rotation to the original (degrees)",
    "truth/vertex_mm": "Vertices to truth (mm)",
    "truth/rotation_deg": "Rotation to truth (degrees)",
}


@dataclass(frozen=True)
class Rung:
    """One step of the ladder; `bar` is its latency as a share of the slowest; an unknown number is None."""

    name: str
    detail: str
    status: str
    reason: str | None
    latency_ms: float | None
    bar: float
    speedup: float | None
    size_mb: float | None
    size_ratio: float | None
    memory_mb: float | None
    images_per_second: float | None
    ssim: float | None
    vertex_mm: float | None


def ladder(sources: Sources, summary: Json) -> list[Rung]:
    """From the original in PyTorch to the INT8 network in its best runtime, then TensorRT."""
    rows = sources.benchmark["rows"]
    torch_row = baseline(sources.benchmark, 1)
    best = {
        name: measured(
            (row for row in rows if row["runtime"] not in (*BASELINE_RUNTIMES, "tensorrt")),
            variant=name,
            batch=1,
            streams=1,
        )
        for name in paths.VARIANTS
    }
    tensorrt = [
        row
        for row in rows
        if (row["runtime"], row["variant"], row["batch"], row["streams"]) == ("tensorrt", paths.DEPLOYED, 1, 1)
        and not row["copies"]
    ]
    steps: list[tuple[str, Json]] = [("Original", torch_row)]
    steps += [("Original, exported", row) for row in best[BASELINE][:1]]
    steps += [(VARIANT_NAMES[name], row) for name in paths.VARIANTS[1:] for row in best[name][:1]]
    steps += [("TensorRT INT8", row) for row in tensorrt]
    slowest = max(row["p50_ms"] for _, row in steps if row["status"] != "not_run")
    return [_rung(name, row, slowest, sources, summary) for name, row in steps]


def _rung(name: str, row: Json, slowest_ms: float, sources: Sources, summary: Json) -> Rung:
    ran = row["status"] != "not_run"
    variant = summary["variants"][row["variant"]]
    latency_ms = row["p50_ms"] if ran else None
    largest = max(sources.benchmark["settings"]["batches"])
    bulk = measured(sources.benchmark["rows"], variant=row["variant"], runtime=row["runtime"], batch=largest)
    # The file that would be deployed; a bundle is only what PyTorch reads here.
    size_bytes = row["size_bytes"] if row["runtime"] == "tensorrt" else sources.benchmark["files"][row["variant"]]
    size_mb = None if size_bytes is None else size_bytes / 1e6
    return Rung(
        name=name,
        detail=RUNTIME_NAMES[row["runtime"]],
        status=row["status"],
        reason=row["reason"],
        latency_ms=latency_ms,
        bar=latency_ms / slowest_ms if latency_ms else 0.0,
        speedup=baseline(sources.benchmark, 1)["p50_ms"] / latency_ms if latency_ms else None,
        size_mb=size_mb,
        size_ratio=summary["variants"][BASELINE]["size_mb"] / size_mb if size_mb else None,
        memory_mb=row["memory_mb"],
        images_per_second=max((other["images_per_second"] for other in bulk), default=None),
        # An engine that did not run was not evaluated either, whatever its ONNX file scores elsewhere; and
        # the original in PyTorch is what the others are compared with.
        ssim=variant["ssim"] if ran and row["runtime"] not in BASELINE_RUNTIMES else None,
        vertex_mm=variant["vertex_error_mm"] if ran else None,
    )


@dataclass(frozen=True)
class ParityLine:
    """How close one file in one runtime comes to PyTorch: on faces, and on the input on which it is farthest off.

    `reason` says why it, or each of several files, was not compared; then there are no numbers.
    """

    name: str
    runtime: str
    faces: float | None = None
    worst_input: str = DASH
    worst: float | None = None
    worst_sample: float | None = None
    tolerance: float | None = None
    inputs: int = 0
    reason: str | None = None


def parity(exports: Mapping[str, Json]) -> list[ParityLine]:
    """A line per exported file and way to run it, then those that could not be compared here."""
    lines: list[ParityLine] = []
    absent: dict[tuple[str, str], list[str]] = {}  # by runtime and reason: most are the same for all
    for variant, description in exports.items():
        name, rows = VARIANT_NAMES[variant], description["parity"]["rows"]
        for runtime in dict.fromkeys(str(row["runtime"]) for row in rows):
            ours = [row for row in rows if row["runtime"] == runtime]
            worst = max(ours, key=lambda row: row["relative_l2"])
            lines.append(
                ParityLine(
                    name,
                    RUNTIME_NAMES.get(runtime, runtime),
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
            absent.setdefault((RUNTIME_NAMES.get(runtime, runtime), reason), []).append(name)
    return lines + [ParityLine(", ".join(names), runtime, reason=reason) for (runtime, reason), names in absent.items()]


def not_run(summary: Json) -> list[tuple[str, str]]:
    """(networks and runtime, why they were not run), then (measure, why it was not taken)."""
    lines: list[tuple[str, str]] = []
    for row in summary["not_run"]:
        names = ", ".join(VARIANT_NAMES[name] for name in row["variants"])
        lines.append((f"{names} in {RUNTIME_NAMES[row['runtime']]}", row["reason"]))
    return lines + [(UNMEASURED_NAMES[name], reason) for name, reason in summary["not_measured"].items()]


def evaluated(evaluations: Mapping[str, Json]) -> list[tuple[str, str, dict[str, str]]]:
    """(networks, runtime, better runtimes and why they were not used), a line per runtime and set of reasons."""
    names: dict[tuple[str, tuple[tuple[str, str], ...]], list[str]] = {}
    for variant, evaluation in evaluations.items():
        reasons = tuple((RUNTIME_NAMES[name], why) for name, why in evaluation["better_runtimes"].items())
        names.setdefault((RUNTIME_NAMES[evaluation["runtime"]], reasons), []).append(VARIANT_NAMES[variant])
    return [(", ".join(group), runtime, dict(reasons)) for (runtime, reasons), group in names.items()]


@dataclass(frozen=True)
class Measure:
    """One line of a quality table: a cell per variant, each (mean, 95 % interval and what the mean leaves out)."""

    key: str
    name: str
    cells: list[tuple[str, str]]


def quality(evaluations: Mapping[str, Json], measures: Mapping[str, str]) -> list[Measure]:
    """Mean and interval of each measure that was taken, a cell per variant in the order given."""
    return [
        Measure(key, name, [_interval(key, evaluation) for evaluation in evaluations.values()])
        for key, name in measures.items()
        if all(key in evaluation["measures"] for evaluation in evaluations.values())
    ]


def _interval(measure: str, evaluation: Json) -> tuple[str, str]:
    found, left_out = evaluation["measures"][measure], evaluation["undefined"].get(measure, 0)
    if found is None:
        return ("undefined", "")
    mean, low, high = (value_of(measure, found[name]) for name in ("mean", "low", "high"))
    without = f", without {left_out} of {evaluation['count']}" if left_out else ""
    return (mean, f"{low} {DASH} {high}{without}")


def value_of(measure: str, value: float | None) -> str:
    """A measure's value: SSIM by its decimals, since it is the distance to 1 that counts."""
    return f"{value:.4f}" if value is not None and measure.startswith("ssim") else number(value)


def steps(stages: Mapping[str, Json]) -> list[tuple[str, list[str]]]:
    """How far off the network is after each of `STEPS` that was taken: a cell per `STEP_MEASURES`."""
    return [
        (name, [number(stages[stage].get(prefix + measure)) for measure in STEP_MEASURES])
        for name, stage, prefix in STEPS
        if stage in stages and any(prefix + measure in stages[stage] for measure in STEP_MEASURES)
    ]


def number(value: float | None) -> str:
    """Three significant digits; a dash for None."""
    if value is None:
        return DASH
    if value == 0:
        return "0"
    if abs(value) < 0.001:
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{mantissa}{TIMES}10{_superscript(int(exponent))}"
    if abs(value) >= 999.5:
        return f"{value:,.0f}"
    return f"{value:#.3g}".rstrip(".")


def _superscript(exponent: int) -> str:
    digits = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
    return str(exponent).translate(digits)


def flatten(tree: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """(dotted name, text) of every scalar in JSON; a list of scalars counts as one."""
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
