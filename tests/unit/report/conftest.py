"""Reports of a run that never happened: plausible in shape, meaningless in their numbers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from leanface import catalog, paths
from leanface.config import Benchmark
from leanface.metrics.estimate import estimates
from leanface.metrics.measurements import BenchmarkRecord, Evaluation, Measurement, PhotoScores
from leanface.metrics.ratio import MedianEstimate
from leanface.report.sources import PICTURES

GATES = {"ssim_min": 0.982, "mse_max": 0.005, "size_ratio_min": 15.0, "speedup_min": 10.0}
DEVICE = {"cpu": "Imaginary 2000", "cores": 2, "gpus": [], "runtimes": {"torch": "2.0", "tensorrt": None}}
SIZES = dict(zip(catalog.EVALUATED, (96_000_000, 24_000_000, 12_000_000, 6_500_000, 6_000_000), strict=True))
BATCHES = (1, 8)
BASE_MS = 40.0
MEMORY_MB = 120.0
NO_GPU = "no supported GPU"
SETTINGS = Benchmark(
    batches=BATCHES, streams=(1,), warmup=10, window=30, windows_max=20, interval=0.05, threads=2, energy_seconds=1
)


def around(value: float) -> MedianEstimate:
    """An estimate whose interval is 5 % to either side."""
    return MedianEstimate(value, 0.95 * value, 1.05 * value, 9)


def row(variant: str, runtime: str, batch: int, latency_ms: float | None, **fields: Any) -> Measurement:
    """A measurement; without a latency it was not run. The original takes `BASE_MS` for each image."""
    known = {
        "variant": variant,
        "runtime": runtime,
        "batch": batch,
        "energy_reason": "an imaginary processor needs none",
        "size_bytes": SIZES.get(variant),
    }
    if latency_ms is None:
        return Measurement(**known | {"not_run": NO_GPU} | fields)
    numbers = {
        "latency": around(latency_ms),
        "speedup": around(BASE_MS * batch / latency_ms),
        "p90_ms": 1.1 * latency_ms,
        "p95_ms": 1.2 * latency_ms,
        "p99_ms": 1.3 * latency_ms,
        "images_per_second": 1e3 * batch / latency_ms,
        "memory_mb": MEMORY_MB,
        "windows": 9,
    }
    return Measurement(**known | numbers | fields)


def latencies(batch: int) -> list[Measurement]:
    """The original takes 40 ms in PyTorch, the light network 5 ms, the INT8 file 2 ms, in OpenVINO."""
    rows = [
        row("teacher_fp32", "torch", batch, BASE_MS * batch),
        row("distilled_fp32", "torch", batch, 15.0 * batch),
    ]
    for variant, ort_ms, openvino_ms in zip(catalog.EVALUATED, (20, 5, 12, 8, 9), (25, 6, 7, 3, 2), strict=True):
        rows += [
            row(variant, "onnxruntime", batch, float(ort_ms * batch)),
            row(variant, "openvino", batch, float(openvino_ms * batch)),
        ]
        rows += [row(variant, "tensorrt", batch, None)] if variant in catalog.ENGINES else []
    return rows


def record(rows: list[Measurement], **fields: Any) -> BenchmarkRecord:
    known: dict[str, Any] = {
        "device": DEVICE,
        "image_size": 112,
        "settings": SETTINGS,
        "clocks_mhz": {},
        "baseline_runtime": "torch",
        "files": SIZES,
        "rows": tuple(rows),
        "end_to_end": (row("teacher_fp32", "torch", 1, 50.0), row("quantized_int8", "openvino", 1, 6.0)),
    }
    return BenchmarkRecord(**known | fields)


def write_record(benchmark: BenchmarkRecord, path: Path = paths.BENCHMARK) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(benchmark.model_dump_json())


def evaluation(variant: str) -> Evaluation:
    random = np.random.default_rng(len(variant))
    against_teacher, against_truth = (
        [name for name in catalog.measures_against(it) if name not in catalog.CLASSIFICATION_MEASURES]
        for it in ("teacher", "truth")
    )
    samples = {name: random.uniform(0.5, 3.0, 20) for name in (*against_teacher, *against_truth)}
    samples |= {name: random.uniform(0.98, 0.99, 20) for name in against_teacher if name.startswith("ssim")}
    samples |= {name: random.uniform(0.001, 0.003, 20) for name in against_teacher if name.startswith("mse")}
    return Evaluation(
        variant=variant,
        runtime="onnxruntime",
        better_runtimes={"tensorrt": NO_GPU},
        count=20,
        image_size=112,
        measures=estimates(samples),
        undefined={},
        constant={"ssim": 0.965, **dict.fromkeys(against_truth, 3.37)},
        photos=PhotoScores(names=("someone",), measures=dict.fromkeys(against_teacher, 0.5), undefined={}),
    )


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
        "input": json.dumps({"size": 112, "color": "RGB", "range": [0.0, 1.0], "layout": "NCHW"}),
        "outputs": json.dumps({"identity": [0, 80], "rest": [80, 257]}),
        "license": "imaginary",
    }
    return {
        "variant": variant,
        "bundle_sha256": "f00d",
        "opset": 19,
        "outputs": [{"name": "coefficients", "dtype": "float32", "shape": ["batch", 257]}],
        "inputs": [{"name": "images", "dtype": "float32", "shape": ["batch", 3, "height", "width"]}],
        "metadata": {f"leanface.{name}": value for name, value in metadata.items()},
        "parity": {"rows": rows, "not_run": {"onnxruntime_cuda": "there is no such GPU"}},
    }


CONFIG = """
seed: 0
scale: imaginary
data: {train_count: 2400, val_count: 160, yaw_max_rad: 1.05}
teacher: {source: pretrained}
search: {targets: {}}
prune: {importance: {name: hessian}, ratio: 0.5, target: null}
distill: {streamed: false, freeze_batch_norm: true, start_from: null, optimizer: {steps: 400, batch_size: 16}}
quantize: {method: qat, calibration: percentile}
"""


def write_json(path: Path, contents: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(contents))


def write_evaluation(contents: Evaluation) -> None:
    path = paths.evaluation_dir(contents.variant) / "metrics.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(contents.model_dump_json())


def write_picture(path: Path, width: int = 60) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((30, width, 3), 200, np.uint8)).save(path)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project folder, entered, in which every stage before `report` has left its outputs."""
    monkeypatch.chdir(tmp_path)
    leave_outputs()
    return tmp_path


def leave_outputs() -> None:
    """Write into the current folder what every stage before `report` leaves."""
    write_json(paths.DEVICE, DEVICE)
    paths.CONFIG.write_text(CONFIG)
    write_record(record([entry for batch in BATCHES for entry in latencies(batch)]))
    for variant in catalog.EVALUATED:
        write_evaluation(evaluation(variant))
        for sheet in ("faces", "photos", "worst", "heatmap"):
            write_picture(paths.evaluation_dir(variant) / f"{sheet}.png")
        write_json(paths.onnx_path(variant).with_suffix(".json"), exported(variant))
        write_json(paths.engine_path(variant).with_suffix(".json"), {"library": "imaginary", "status": "built"})
    for picture in PICTURES:
        write_picture(picture.path, 400)
    for stage in (paths.TEACHER_REPORT, paths.PRUNE_REPORT, paths.DISTILL_REPORT):
        write_json(stage / "metrics.json", {"identity_mm": 1.2, "layers": {"conv1": [3, 32]}})
