"""Reports of a run that never happened: plausible in shape, meaningless in their numbers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from leanface import paths
from leanface.metrics.estimate import summarize
from leanface.report.sources import PICTURES
from leanface.report.tables import AGAINST_ORIGINAL, AGAINST_TRUTH

DEVICE = {"cpu": "Imaginary 2000", "cores": 2, "gpus": [], "runtimes": {"torch": "2.0", "tensorrt": None}}
SIZES = dict(zip(paths.VARIANTS, (96_000_000, 24_000_000, 12_000_000, 6_000_000), strict=True))
BATCHES = (1, 8)
MEMORY_MB = 120.0


def row(variant: str, runtime: str, batch: int, p50_ms: float | None, **fields: Any) -> dict[str, Any]:
    numbers = dict.fromkeys(("p50_ms", "p90_ms", "p95_ms", "p99_ms", "images_per_second", "memory_mb", "spread"))
    if p50_ms is not None:
        numbers = {name: p50_ms * (1 + index / 10) for index, name in enumerate(numbers)}
        numbers |= {"images_per_second": 1e3 * batch / p50_ms, "memory_mb": MEMORY_MB, "spread": 0.02}
    status = (
        {"status": "not_run", "reason": "no supported GPU"} if p50_ms is None else {"status": "stable", "reason": None}
    )
    known = {
        "variant": variant,
        "runtime": runtime,
        "batch": batch,
        "streams": 1,
        "copies": False,
        "windows": 3,
        "cold_start_ms": None,
        "energy_mj": None,
        "energy_source": None,
        "energy_reason": "an imaginary processor needs none",
        "size_bytes": SIZES.get(variant),
    }
    return known | numbers | status | fields


def latencies(batch: int) -> list[dict[str, Any]]:
    """The original takes 40 ms in PyTorch, the light network 5 ms, the INT8 file 2 ms, in OpenVINO."""
    rows = [
        row("original_fp32", "torch", batch, 40.0 * batch),
        row("distilled_fp32", "torch", batch, 15.0 * batch),
    ]
    for variant, ort_ms, openvino_ms in zip(paths.VARIANTS, (20, 5, 12, 9), (25, 6, 7, 2), strict=True):
        rows += [
            row(variant, "onnxruntime", batch, float(ort_ms * batch)),
            row(variant, "openvino", batch, float(openvino_ms * batch)),
            row(variant, "tensorrt", batch, None),
        ]
    return rows


def evaluation(variant: str) -> dict[str, Any]:
    random = np.random.default_rng(len(variant))
    samples = {name: random.uniform(0.98, 0.99, 20) for name in AGAINST_ORIGINAL if name.startswith("ssim")}
    samples |= {name: random.uniform(0.001, 0.003, 20) for name in AGAINST_ORIGINAL if name.startswith("mse")}
    rest = [name for name in (*AGAINST_ORIGINAL, *AGAINST_TRUTH) if name not in samples]
    samples |= {name: random.uniform(0.5, 3.0, 20) for name in rest}
    return {
        "variant": variant,
        "runtime": "onnxruntime",
        "count": 20,
        "image_size": 112,
        "better_runtimes": {"tensorrt": "no supported GPU"},
        "measures": summarize(samples),
        "undefined": {},
        "mean_face": dict.fromkeys(AGAINST_TRUTH, 3.37),
        "photos": {"names": ["someone"], "measures": dict.fromkeys(AGAINST_ORIGINAL, 0.5), "undefined": {}},
    }


def exported(variant: str) -> dict[str, Any]:
    rows = [
        {
            "runtime": runtime, "input": name, "shape": [1, 3, 112, 112],
            "relative_l2": off, "worst_relative_l2": 2 * off,
            "worst_sample": 0, "largest_difference": 0.1, "tolerance": 0.2,
        }
        for runtime in ("as written", "openvino")
        for name, off in (("faces", 0.06), ("black", 0.05), ("white", 0.07))
    ]  # fmt: skip
    metadata = {
        "version": "0.1.0",
        "precision": variant.rpartition("_")[2],
        "input": json.dumps({"size": 112, "colour": "RGB", "range": [0.0, 1.0], "layout": "NCHW"}),
        "coefficients": json.dumps({"identity": [0, 80], "rest": [80, 257]}),
        "licence": "imaginary",
    }
    return {
        "variant": variant,
        "bundle_sha256": "f00d",
        "opset": 19,
        "inputs": [{"name": "images", "dtype": "float32", "shape": ["batch", 3, "height", "width"]}],
        "metadata": {f"leanface.{name}": value for name, value in metadata.items()},
        "parity": {"rows": rows, "not_run": {"onnxruntime_cuda": "there is no such GPU"}},
    }


CONFIG = """
seed: 0
scale: imaginary
data: {train_count: 2400, val_count: 160, yaw_max_rad: 1.05}
teacher: {source: pretrained}
prune: {importance: {name: hessian}, ratio: 0.5, target: null}
distill: {streamed: false, freeze_batch_norm: true, start_from: null, optimizer: {steps: 400, batch_size: 16}}
quantize: {method: qat, calibration: percentile}
"""


def write_json(path: Path, contents: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(contents))


def write_picture(path: Path, width: int = 60) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((30, width, 3), 200, np.uint8)).save(path)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project folder, entered, in which every stage before `report` has left its outputs."""
    monkeypatch.chdir(tmp_path)
    write_json(paths.DEVICE, DEVICE)
    paths.CONFIG.write_text(CONFIG)
    write_json(
        paths.BENCHMARK,
        {
            "device": DEVICE,
            "settings": {
                "image_size": 112, "batches": BATCHES, "streams": (1,), "warmup": 10, "window": 30,
                "windows_max": 20, "stability": 0.05, "threads": 2,
            },
            "files": SIZES,
            "rows": [entry for batch in BATCHES for entry in latencies(batch)],
            "end_to_end": [row("original_fp32", "torch", 1, 50.0), row("quantized_int8", "openvino", 1, 6.0)],
        },
    )  # fmt: skip
    for variant in paths.VARIANTS:
        write_json(paths.evaluation_dir(variant) / "metrics.json", evaluation(variant))
        for sheet in ("faces", "photos", "worst", "heatmap"):
            write_picture(paths.evaluation_dir(variant) / f"{sheet}.png")
        write_json(paths.onnx_path(variant).with_suffix(".json"), exported(variant))
        write_json(paths.engine_path(variant).with_suffix(".json"), {"library": "imaginary", "status": "built"})
    for picture in PICTURES:
        write_picture(picture.path, 400)
    for stage in (paths.TEACHER_REPORT, paths.PRUNE_REPORT, paths.DISTILL_REPORT):
        write_json(stage / "metrics.json", {"identity_mm": 1.2, "layers": {"conv1": [3, 32]}})
    return tmp_path
