"""The report's tables as rows of text: numbers are rounded and named here, and laid out in the templates."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from leanface import paths
from leanface.report.files import Json
from leanface.report.sources import Sources
from leanface.report.summary import BASELINE, GATED, baseline, measured

DASH = "\N{EN DASH}"
TIMES = "\N{MULTIPLICATION SIGN}"

VARIANT_NAMES = {
    "original_fp32": "Original",
    "distilled_fp32": "Light",
    "distilled_fp16": "Light FP16",
    "quantized_int8": "Light INT8",
}

RUNTIME_NAMES = {
    "torch": "PyTorch",
    "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO",
    "tensorrt": "TensorRT",
}

GATE_NAMES = {
    "ssim": ("UV SSIM", "texture and position maps, against the original"),
    "mse": ("Render MSE", "re-rendered faces, against the original"),
    "size_ratio": ("Times smaller", "ONNX file, against the original's"),
    "speedup": ("Times faster", "batch 1, against the original in PyTorch FP32"),
}

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


@dataclass(frozen=True)
class Rung:
    """One step of the ladder; `bar` is its latency as a share of the slowest; a number that is not known is None."""

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
        name: measured((row for row in rows if row["runtime"] not in ("torch", "tensorrt")), variant=name, batch=1)
        for name in paths.VARIANTS
    }
    tensorrt = [row for row in rows if row["runtime"] == "tensorrt" and row["variant"] == GATED and row["batch"] == 1]
    steps: list[tuple[str, Json]] = [("Original", torch_row)]
    steps += [("Original, exported", row) for row in best[BASELINE[0]][:1]]
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
    size_mb = None if row["size_bytes"] is None else row["size_bytes"] / 1e6
    return Rung(
        name=name,
        detail=RUNTIME_NAMES[row["runtime"]],
        status=row["status"],
        reason=row["reason"],
        latency_ms=latency_ms,
        bar=latency_ms / slowest_ms if latency_ms else 0.0,
        speedup=baseline(sources.benchmark, 1)["p50_ms"] / latency_ms if latency_ms else None,
        size_mb=size_mb,
        size_ratio=summary["variants"][BASELINE[0]]["size_mb"] / size_mb if size_mb else None,
        memory_mb=row["memory_mb"],
        images_per_second=bulk[0]["images_per_second"] if bulk else None,
        # An engine that did not run was not evaluated either, whatever its ONNX file scores elsewhere.
        ssim=variant["ssim"] if ran else None,
        vertex_mm=variant["vertex_error_mm"] if ran else None,
    )


@dataclass(frozen=True)
class Measure:
    """One line of a quality table: a cell per variant, each (mean, 95 % interval)."""

    key: str
    name: str
    cells: list[tuple[str, str]]


def quality(evaluations: Mapping[str, Json], measures: Mapping[str, str]) -> list[Measure]:
    """Mean and interval of each measure that was taken, a cell per variant in the order given."""
    return [
        Measure(key, name, [_interval(evaluation["measures"][key]) for evaluation in evaluations.values()])
        for key, name in measures.items()
        if all(key in evaluation["measures"] for evaluation in evaluations.values())
    ]


def _interval(found: Json | None) -> tuple[str, str]:
    if found is None:
        return ("undefined", "")
    return (number(found["mean"]), f"{number(found['low'])} {DASH} {number(found['high'])}")


def number(value: float | None) -> str:
    """Three significant digits, or a decimal more where the value is close to 1; a dash for None."""
    if value is None:
        return DASH
    if value == 0:
        return "0"
    if 0.9 <= abs(value) < 1:
        return f"{value:.4f}"
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
    """(dotted name, text) of every scalar in nested objects and lists."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from flatten(value, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(tree, list) and any(isinstance(item, dict | list) for item in tree):
        for index, value in enumerate(tree):
            yield from flatten(value, f"{prefix}.{index}")
    elif isinstance(tree, list):
        yield prefix, ", ".join(str(item) for item in tree)
    elif isinstance(tree, float):
        yield prefix, number(tree)
    else:
        yield prefix, "not known" if tree is None else str(tree)
