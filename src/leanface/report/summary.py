"""summary.json: the headline numbers of each variant, and whether the INT8 network passes its gates."""

from collections.abc import Iterable
from typing import Any

from leanface import paths
from leanface.config import Gates
from leanface.errors import ArtifactError
from leanface.files import Json
from leanface.report.sources import Sources

BASELINE = "original_fp32"
"""The variant that everything is relative to, measured in the same interleaved run."""

BASELINE_RUNTIMES = ("torch_cuda", "torch")
"""The original runs in PyTorch: where there is a GPU on it, for a GPU is not to be compared with a processor."""


def summarize(sources: Sources, gates: Gates) -> Json:
    """The contents of summary.json.

    Per variant: ssim, ssim_render, ssim_face and mse against the original (see leanface.metrics.fidelity);
    vertex_error_mm against ground truth, and vertex_to_original_mm; macs for one image, null if stage
    prune did not count them; size_mb of the ONNX file (10^6 bytes);
    latency_ms_p50 at batch 1 in its fastest `runtime`; speedup, throughput_ratio (at the largest batch) and
    memory_mb likewise, the ratios against the original in PyTorch FP32. energy_ratio: the original's energy per image
    over this variant's, at batch 1; null, with the reason in not_measured, where nothing counts it.

    Raises:
        ArtifactError: the baseline was not measured.
    """
    variants = {name: _variant(name, sources) for name in paths.VARIANTS}
    return {
        "device": sources.device,
        "variants": variants,
        "gates": check_gates(gates, variants),
        "not_measured": not_measured(sources),
        "not_run": not_run(sources),
    }


def check_gates(gates: Gates, variants: dict[str, Json]) -> dict[str, Json]:
    """Each gate's limit, the INT8 network's value, and whether it passes; a value that is undefined fails."""
    ours, original = variants[paths.DEPLOYED], variants[BASELINE]
    return {
        "ssim": _gate(gates.uv_ssim_min, ours["ssim"], at_least=True),
        "mse": _gate(gates.mse_max, ours["mse"], at_least=False),
        "size_ratio": _gate(gates.size_ratio_min, original["size_mb"] / ours["size_mb"], at_least=True),
        "speedup": _gate(gates.speedup_min, ours["speedup"], at_least=True),
    }


def measured(rows: Iterable[Json], **fields: Any) -> list[Json]:
    """The benchmark rows that ran and whose fields have these values, the fastest first; without copies to a GPU."""
    fields = {"copies": False, **fields}
    chosen = [
        row for row in rows if row["status"] != "not_run" and all(row[name] == value for name, value in fields.items())
    ]
    return sorted(chosen, key=lambda row: row["p50_ms"])


def baseline(benchmark: Json, batch: int) -> Json:
    """The row that speed-ups at this batch size are relative to.

    Raises:
        ArtifactError: it is not there.
    """
    for runtime in BASELINE_RUNTIMES:
        if rows := measured(benchmark["rows"], variant=BASELINE, runtime=runtime, batch=batch, streams=1):
            return rows[0]
    raise ArtifactError(
        f"{paths.BENCHMARK} has no row of {BASELINE} in PyTorch at batch {batch}, to which speeds are "
        "relative; put 1 into benchmark.batches and run `dvc repro`."
    )


def not_run(sources: Sources) -> list[Json]:
    """What was planned but could not be measured on this machine, with the reason of each."""
    variants: dict[tuple[str, str], list[str]] = {}  # by runtime and reason: most are the same for all
    for row in sources.benchmark["rows"] + sources.benchmark["end_to_end"]:
        if row["status"] == "not_run":
            known = variants.setdefault((row["runtime"], row["reason"]), [])
            known += [row["variant"]] if row["variant"] not in known else []
    return [{"variants": names, "runtime": runtime, "reason": reason} for (runtime, reason), names in variants.items()]


def not_measured(sources: Sources) -> dict[str, str]:
    """Why a value of summary.json is null for all variants."""
    reason = baseline(sources.benchmark, 1)["energy_reason"]
    return {} if reason is None else {"energy_ratio": reason}


def mean(evaluation: Json, measure: str) -> float | None:
    """A measure's mean over the test faces; None where it is undefined for all of them, or was not taken."""
    found = evaluation["measures"].get(measure)
    return None if found is None else found["mean"]


def _variant(name: str, sources: Sources) -> Json:
    rows, evaluation = sources.benchmark["rows"], sources.evaluations[name]
    largest = max(row["batch"] for row in rows)
    best = measured(rows, variant=name, batch=1, streams=1)
    if not best:
        raise ArtifactError(f"{paths.BENCHMARK} has no row of {name} at batch 1 that ran; run `dvc repro benchmark`.")
    bulk = measured(rows, variant=name, batch=largest)
    throughput = max(row["images_per_second"] for row in bulk) if bulk else None
    return {
        "ssim": mean(evaluation, "ssim"),
        "ssim_render": mean(evaluation, "ssim_render"),
        "ssim_face": mean(evaluation, "ssim_face"),
        "mse": mean(evaluation, "mse"),
        "vertex_error_mm": mean(evaluation, "truth_vertex_mm"),
        "vertex_to_original_mm": mean(evaluation, "original_vertex_mm"),
        "macs": sources.stages.get("prune", {}).get("original/macs" if name == BASELINE else "pruned/macs"),
        "size_mb": sources.benchmark["files"][name] / 1e6,
        "latency_ms_p50": best[0]["p50_ms"],
        "latency_status": best[0]["status"],
        "speedup": baseline(sources.benchmark, 1)["p50_ms"] / best[0]["p50_ms"],
        "throughput_ratio": throughput and throughput / baseline(sources.benchmark, largest)["images_per_second"],
        "memory_mb": best[0]["memory_mb"],
        "energy_ratio": _energy_ratio(baseline(sources.benchmark, 1), best[0]),
        "runtime": best[0]["runtime"],
    }


def _energy_ratio(original: Json, ours: Json) -> float | None:
    """None if either was not counted, or by another counter: a GPU's joules are not a processor's."""
    if original["energy_mj"] is None or ours["energy_source"] != original["energy_source"]:
        return None
    return original["energy_mj"] / ours["energy_mj"]


def _gate(limit: float, value: float | None, *, at_least: bool) -> Json:
    passed = value is not None and (value >= limit if at_least else value <= limit)
    return {"limit": limit, "value": value, "passed": passed, "bound": "min" if at_least else "max"}
