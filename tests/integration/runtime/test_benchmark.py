"""Networks are measured in processes of their own: every number, and every reason for a missing one."""

import io
import json
import re
from pathlib import Path

import pytest
import torch
from rich.console import Console

from leanface import catalog, paths
from leanface.bundle import new_spec, save_bundle
from leanface.catalog import RUNTIMES
from leanface.config import TaskChoice
from leanface.face.head_model import load_head_model
from leanface.files import write_json
from leanface.metrics.measurements import read_benchmark
from leanface.metrics.ratio import MedianEstimate
from leanface.networks.resnet import build_network
from leanface.networks.widths import widths_of
from leanface.photos.load import load_photo
from leanface.runtime.bench import ORIGINAL, bench_file, print_rows
from leanface.runtime.benchmark import (
    END_TO_END,
    LANDMARKS,
    Entry,
    benchmark_end_to_end,
    benchmark_networks,
    headline,
    measure_fresh,
    plan,
)
from leanface.stages.benchmark import run
from leanface.tasks.face.end_to_end import photo_journey
from tests.settings import BENCHMARK, DATA

SIZE = 64
BASE = (catalog.BASELINE, "torch")
ON_GPU = {name for name, runtime in RUNTIMES.items() if runtime.on_gpu}


def narrow(width: int, inputs: int, outputs: int, name: str) -> tuple[int, int]:
    return (3 if inputs == 3 else inputs // width, outputs if name.startswith("final") else outputs // width)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's models: real bundles and ONNX files of a narrow network; engines that no library can load."""
    import onnx

    from leanface.export.onnx import export_network

    root = tmp_path_factory.mktemp("project")
    widths = {name: narrow(8, *shape, name) for name, shape in widths_of(build_network()).items()}
    network = build_network(widths).eval()
    spec = new_spec(network, SIZE)
    model = export_network(network, spec, "fp32", 19)
    for variant, chosen in catalog.VARIANTS.items():
        save_bundle(network, spec, root / chosen.bundle)
        for path in (paths.onnx_path(variant), paths.engine_path(variant)):
            (root / path).parent.mkdir(parents=True, exist_ok=True)
        onnx.save(model, root / paths.onnx_path(variant))
        (root / paths.engine_path(variant)).write_bytes(b"engine")
        description = root / paths.engine_path(variant).with_suffix(".json")
        description.write_text(json.dumps({"library": "tensorrt"}))
    return root


def test_what_runs_has_all_its_numbers_and_what_does_not_has_its_reason(project, monkeypatch):
    monkeypatch.chdir(project)
    entries = [entry for entry in plan(BENCHMARK) if entry.variant in ("teacher_fp32", "quantized_int8")]
    rows = benchmark_networks(entries, BENCHMARK, SIZE)
    found = [(row.variant, row.runtime, row.batch, row.streams, row.copies) for row in rows]
    # On a GPU a single stream is measured with and without copies, several with copies only.
    ways = sum(1 + (entry.runtime in ON_GPU and streams == 1) for entry in entries for streams in entry.streams)
    assert len(found) == len(set(found)) == ways * len(BENCHMARK.batches)
    for row in rows:
        if not row.ran:
            assert row.runtime in ON_GPU
            assert row.latency_ms is row.memory_mb is row.images_per_second is row.speedup is row.energy_mj is None
            assert row.not_run
        else:
            assert row.latency_ms is not None
            assert row.speedup is not None
            assert (row.speedup.value, row.speedup.low) == (1.0, 1.0) or (row.variant, row.runtime) != BASE
            assert row.speedup.low is not None
            assert row.speedup.low <= row.speedup.value <= row.speedup.high
            assert row.images_per_second is not None
            assert row.images_per_second > 0
            assert row.memory_mb is not None
            assert 0 < row.memory_mb < 500
            assert (row.cold_start_ms is not None) == (row.batch == 1)
            assert (row.energy_mj is None) == (row.energy_reason is not None)
        if row.runtime == "tensorrt":
            assert not row.ran
            assert row.size_bytes == len(b"engine")
    ran = [row for row in rows if row.ran and row.streams == 1]
    assert len(headline(rows)) == len(ran) >= 10


@pytest.mark.skipif(torch.cuda.is_available(), reason="here these runtimes run")
def test_without_a_gpu_its_plan_says_why_nothing_ran(project, monkeypatch):
    monkeypatch.chdir(project)
    settings = BENCHMARK.model_copy(update={"runtimes": "gpu", "streams": (1, 2, 4), "concurrent_batches": (1,)})
    rows = benchmark_networks(plan(settings), settings, SIZE)
    assert all(row.not_run for row in rows)
    assert {(row.batch, row.copies) for row in rows if row.streams > 1} == {(1, True)}


def test_what_the_time_is_too_short_for_says_so(project, monkeypatch):
    monkeypatch.chdir(project)
    entries = [entry for entry in plan(BENCHMARK) if entry.runtime == "onnxruntime"][:1]
    (first, *_) = benchmark_networks(entries, BENCHMARK.model_copy(update={"seconds": 1e-9}), SIZE)
    assert "benchmark.seconds" in str(first.not_run)
    monkeypatch.setattr("leanface.runtime.benchmark.SHARES", {"open": 1e12, "time": 0.0, "energy": 0.0, "memory": 0.0})
    (first, *_) = benchmark_networks(entries, BENCHMARK.model_copy(update={"seconds": 1e-9, "interval": 0.01}), SIZE)
    assert (first.windows, first.memory_mb) == (1, None)
    assert first.latency is not None
    assert first.latency.low is None, "one window has no interval"
    assert "benchmark.seconds" in str(first.memory_reason)


def test_the_stage_measures_what_it_can_in_its_piece_of_time(project, monkeypatch):
    monkeypatch.chdir(project)
    write_json(paths.DEVICE, {})
    paths.MORPHABLE_MODEL.parent.mkdir(parents=True)
    paths.MORPHABLE_MODEL.symlink_to(paths.PACKAGED_MORPHABLE_MODEL)
    settings = BENCHMARK.model_copy(update={"runtimes": "gpu"})
    run(benchmark=settings, task=TaskChoice(name="face"), data=DATA, seconds=1e-9)
    written = read_benchmark(paths.BENCHMARK)
    assert written.settings.seconds == 1e-9
    assert not any(row.ran for row in written.rows)
    assert {row.ran for row in written.end_to_end} == {True, False}


def test_a_batch_that_a_runtime_refuses_is_not_run_and_stops_no_other(project, monkeypatch):
    monkeypatch.chdir(project)
    entry = Entry("teacher_fp32", "onnxruntime", paths.onnx_path("teacher_fp32"), (1,))
    refused = benchmark_networks([entry], BENCHMARK, SIZE + 8)  # no multiple of 16
    assert len(refused) == 2
    assert all("multiples of 16" in str(row.not_run) for row in refused)


def test_a_network_with_more_weights_needs_more_memory(project, tmp_path, monkeypatch):
    monkeypatch.chdir(project)
    network = build_network().eval()
    save_bundle(network, new_spec(network, SIZE), tmp_path / "wide")
    little, much = (
        measure_fresh(Entry("any", "torch", path, (1,)), 1, (2, 1), BENCHMARK, SIZE)
        for path in (paths.TEACHER, tmp_path / "wide")
    )
    assert set(little) == set(much) == {1, 2}
    assert much[1].memory_mb - little[1].memory_mb > 30
    assert little[1].cold_start_ms is not None
    assert little[1].cold_start_ms > 0
    assert little[2].cold_start_ms is None


def test_one_file_is_measured_and_shown_as_a_table(project, monkeypatch):
    monkeypatch.chdir(project)
    rows = bench_file(paths.onnx_path("distilled_fp32"), BENCHMARK)
    assert {row.runtime for row in rows} == set(catalog.readers_of("onnx"))
    console = Console(record=True, width=120, quiet=False, file=io.StringIO())
    print_rows(rows, console)
    text = console.export_text()
    ran = [row for row in rows if row.ran]
    for row in ran:
        assert re.search(rf"{row.runtime}\s+{row.batch}\s+{row.streams}\s+{row.latency_ms:.2f}", text)
        assert row.speedup is None, "there is nothing to compare with"
    for row in rows:
        assert row.ran or f"{row.runtime} not run: {row.not_run}" in text
    assert ran
    assert "Faster" not in text


def test_a_file_is_compared_with_its_original_at_any_size(exported):
    rows = bench_file(exported.fp32, BENCHMARK, original=exported.float_bundle, image_size=96)
    assert (rows[0].variant, rows[0].runtime) == (ORIGINAL, "torch")
    assert rows[0].size_bytes is not None
    assert rows[0].size_bytes > 1_000_000
    assert rows[0].speedup == MedianEstimate(1.0, 1.0, 1.0, 6)
    ran = [row for row in rows if row.ran]
    assert all(row.speedup is not None and row.speedup.value > 0 for row in ran)
    assert len(ran) > len(BENCHMARK.batches)
    console = Console(record=True, width=140, quiet=False, file=io.StringIO())
    print_rows(rows, console)
    text = console.export_text()
    assert re.search(rf"torch \(original\)\s+1\s+1\s+{rows[0].latency_ms:.2f}\s+1\.00{catalog.TIMES}", text)
    interval = catalog.MEASURES["speedup"].interval_text((ran[-1].speedup.low, ran[-1].speedup.high))
    assert interval in text
    assert f"fp32: {exported.fp32.stat().st_size / 1e6:.2f} MB" in text


def test_the_way_from_photo_to_vertices_is_timed_for_both_networks(project, monkeypatch):
    monkeypatch.chdir(project)
    photo = load_photo("astronaut")[:260, 100:360]
    rows = benchmark_end_to_end(BENCHMARK, *photo_journey(SIZE, load_head_model(), photo))
    assert [(row.variant, row.runtime) for row in rows] == [LANDMARKS, *END_TO_END["all"]]
    assert all(row.latency_ms is not None and row.latency_ms > 0 for row in rows)
    assert [row.speedup is not None for row in rows] == [False, True, True]
