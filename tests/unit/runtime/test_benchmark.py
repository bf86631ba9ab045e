import json
from pathlib import Path

import pytest

from leanface import paths
from leanface.bundle import new_spec, save_bundle
from leanface.config import Benchmark
from leanface.data.photos import load_photo
from leanface.face.morphable_model import load_morphable_model
from leanface.networks.resnet import build_network, widths_of
from leanface.runtime.benchmark import (
    END_TO_END,
    LANDMARKS,
    benchmark_end_to_end,
    benchmark_networks,
    headline,
    measure_memory,
)

SIZE = 64
SETTINGS = Benchmark(batches=(1, 2), warmup=1, window=2, windows_max=3, stability=1.0, threads=1)


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
    for variant in paths.VARIANTS:
        save_bundle(network, spec, root / paths.BUNDLES[variant])
        for path in (paths.onnx_path(variant), paths.engine_path(variant)):
            (root / path).parent.mkdir(parents=True, exist_ok=True)
        onnx.save(model, root / paths.onnx_path(variant))
        (root / paths.engine_path(variant)).write_bytes(b"engine")
        description = root / paths.engine_path(variant).with_suffix(".json")
        description.write_text(json.dumps({"library": "tensorrt"}))
    return root


def test_every_network_is_measured_in_every_runtime(project, monkeypatch):
    monkeypatch.chdir(project)
    rows = benchmark_networks(SETTINGS, SIZE)
    assert len({(row.variant, row.runtime, row.batch) for row in rows}) == len(rows) == 28
    for row in rows:
        if row.runtime == "tensorrt":
            assert row.status == "not_run"
            assert row.p50_ms is None
            assert row.memory_mb is None
            assert row.reason
            assert row.size_bytes == len(b"engine")
        else:
            assert row.status in ("stable", "unstable")
            assert row.p50_ms is not None
            assert row.images_per_second == pytest.approx(1e3 * row.batch / row.p50_ms)
            assert row.memory_mb is not None
            assert 0 < row.memory_mb < 500
    assert len(headline(rows)) == 20


def test_a_network_with_more_weights_needs_more_memory(project, tmp_path, monkeypatch):
    monkeypatch.chdir(project)
    network = build_network().eval()
    save_bundle(network, new_spec(network, SIZE), tmp_path / "wide")
    little = measure_memory("torch", paths.TEACHER, SETTINGS, SIZE)
    much = measure_memory("torch", tmp_path / "wide", SETTINGS, SIZE)
    assert set(little) == set(much) == {1, 2}
    assert much[1] - little[1] > 30


def test_the_way_from_photo_to_vertices_is_timed_for_both_networks(project, monkeypatch):
    monkeypatch.chdir(project)
    photo = load_photo("astronaut")[:260, 100:360]
    rows = benchmark_end_to_end(SETTINGS, SIZE, load_morphable_model(), photo)
    assert [(row.variant, row.runtime) for row in rows] == [LANDMARKS, *END_TO_END]
    assert all(row.p50_ms is not None and row.p50_ms > 0 for row in rows)
