"""The tables of a GPU's run: ratios to the original in the same run, and what did not run."""

import json
from pathlib import Path

import pytest
from PIL import Image

from leanface import paths
from leanface.catalog import DASH, TIMES
from leanface.config import Benchmark
from leanface.errors import ArtifactError
from leanface.metrics.measurements import BenchmarkRecord, Measurement, read_benchmark
from leanface.metrics.ratio import MedianEstimate
from leanface.runtime.benchmark import plan
from tests.unit.report.conftest import record, write_record
from tools.gpu_box.results import lines_of, write_results

BATCHES = (1, 256)
DEVICE = {"cpu": "Imaginary 2000", "gpus": [{"name": "Imaginary GPU"}], "runtimes": {"torch": "2.0"}}
SPEED = {"torch_cuda": 1.0, "torch_cuda_graph": 12.0, "onnxruntime_cuda": 20.0}
"""Times the original in eager FP32, for each runtime; light networks are twice as fast again."""

TRAFFIC = [
    {"variant": "teacher_fp32", "runtime": "torch_cuda", "batch": 256, "mb_per_image": 300.0, "kernels": 200},
    {"variant": "distilled_fp16", "runtime": "torch_cuda_graph", "batch": 256, "mb_per_image": 30.0, "kernels": 60},
]


SETTINGS = Benchmark(
    runtimes="gpu", batches=BATCHES, streams=(1, 4, 8), warmup=3, window=10, windows_max=9, interval=0.05, threads=8,
    energy_seconds=1,
)  # fmt: skip


def row(variant: str, runtime: str, batch: int, streams: int, copies: bool) -> Measurement:
    key = {"variant": variant, "runtime": runtime, "batch": batch, "streams": streams, "copies": copies}
    if runtime not in SPEED:
        return Measurement(**key, not_run=f"there is no {runtime}")
    gain = SPEED[runtime] * (2 if variant.startswith(("distilled", "quantized")) else 1)
    ms = 4.0 * (1 if batch == 1 else 20) / gain * (1.5 if copies else 1)
    return Measurement(
        **key,
        latency=MedianEstimate(ms, ms, ms, 9),
        speedup=MedianEstimate(gain, 0.98 * gain, 1.02 * gain, 9),
        images_per_second=1e3 * batch * streams / ms,
        device_memory_mb=800 / gain,
        energy_mj=None if copies else 900 / gain,
        windows=9,
    )


@pytest.fixture
def benchmark() -> BenchmarkRecord:
    rows = [
        row(entry.variant, entry.runtime, batch, streams, copies)
        for entry in plan(SETTINGS)
        for batch in BATCHES
        for streams in entry.streams
        for copies in ((False, True) if streams == 1 else (True,))
    ]
    end_to_end = (row("teacher_fp32", "torch_cuda", 1, 1, True), row("distilled_fp16", "torch_cuda_graph", 1, 1, True))
    return record(
        rows, device=DEVICE, settings=SETTINGS, image_size=224, baseline_runtime="torch_cuda", end_to_end=end_to_end
    )


def test_ratios_are_to_the_original_in_eager_fp32(benchmark: BenchmarkRecord) -> None:
    lines = {(line.variant, line.runtime, line.batch): line for line in lines_of(benchmark)}
    assert lines["teacher_fp32", "torch_cuda", 1].speedup.value == 1
    light = lines["distilled_fp16", "onnxruntime_cuda", 256]
    assert light.speedup.value == light.energy_ratio == light.memory_ratio == pytest.approx(40)
    assert light.latency_ms == pytest.approx(2)
    assert light.copied_ms == pytest.approx(3)
    assert ("quantized_int8", "tensorrt", 1) not in lines


def test_without_the_original_there_is_nothing_to_compare_with(benchmark: BenchmarkRecord) -> None:
    rows = tuple(entry for entry in benchmark.rows if entry.variant != "teacher_fp32")
    with pytest.raises(ArtifactError, match="gpu_box shipped"):
        lines_of(benchmark.model_copy(update={"rows": rows}))


def test_the_page_has_all_that_ran_and_all_that_did_not(benchmark: BenchmarkRecord, tmp_path: Path) -> None:
    layers = [
        {"name": f"layer{i}", "time_us": 10.0 + i, "size_bytes": 1, "operations": 1, "floor_us": 10.0}
        for i in range(12)
    ]
    errors = dict.fromkeys(("truth_identity_mm", "truth_vertex_mm", "truth_rotation_deg", "truth_albedo_levels"), 2.0)
    shipped = {
        "traffic": {"rows": TRAFFIC},
        "layers": {
            "images": 128, "bytes_per_second": 4e12, "int8_operations_per_second": 9e14, "layers": layers,
            "time_us": 500.0, "floor_us": 250.0,
        },
        "agreement": {
            "faces": 50, "errors": {"triton_int8": errors, "onnxruntime": errors},
            "ratios": dict.fromkeys(errors, 1.0025), "relative_difference": 0.09,
        },
        "original_given_bytes": {"batch": 256, "latency_ms": 75.25},
    }  # fmt: skip
    write_record(benchmark, tmp_path / paths.BENCHMARK)
    (tmp_path / "shipped.json").write_text(json.dumps(shipped))
    folder = tmp_path / "page"
    write_results(tmp_path, folder, "abc123")
    page = (folder / "README.md").read_text()
    for text in (
        "# On Imaginary GPU",
        "commit abc123",
        f"| Light FP16 | ONNX Runtime, CUDA | 2.00 | 40.0{TIMES} | 39.2{TIMES} {DASH} 40.8{TIMES} |",
        "there is no tensorrt",
        "| 300 | 200 |",
        "75.2 ms for 256",
        "500 µs",
        "| layer11 | 21.0 | 10.0 |",
        "1.0025",
    ):
        assert text in page, text
    assert "| layer3 |" not in page
    assert page.count("\n### Batch ") == len(BATCHES)
    with Image.open(folder / "speed.png") as picture:
        assert picture.width > 800
    assert json.loads((folder / "shipped.json").read_text()) == shipped
    assert read_benchmark(folder / "benchmark.json") == benchmark
