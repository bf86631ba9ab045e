"""Engines: built from every precision, and refused with the reason where that cannot be."""

import hashlib
import json
from pathlib import Path

import onnx
import pytest

from leanface.config import Build
from leanface.errors import ArtifactError, BackendError, ExportError
from leanface.runtime import open_runtime
from leanface.runtime.engine import build_engine, load_description, load_tensorrt

BUILD = Build(batch_min=1, batch_opt=2, batch_max=4, workspace_mib=256, builder_level=3)


@pytest.fixture(autouse=True)
def _library() -> None:
    try:
        load_tensorrt()
    except BackendError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_an_engine_is_built_and_described(exported, precision: str, tmp_path: Path) -> None:
    source, plan = getattr(exported, precision), tmp_path / "engines" / "network.plan"
    description = build_engine(source, plan, BUILD)
    assert sorted(path.name for path in plan.parent.iterdir()) == ["network.json", "network.plan"]
    assert description.size_bytes == plan.stat().st_size > 100_000
    assert description.onnx_sha256 == hashlib.sha256(source.read_bytes()).hexdigest()
    assert description.profile == {"min": (1, 3, 64, 64), "opt": (2, 3, 64, 64), "max": (4, 3, 64, 64)}
    assert description.targets
    written = load_description(plan)
    assert written["status"] == "built"
    assert written["targets"] == description.targets


def test_a_graph_that_cannot_be_parsed_names_the_node(exported, tmp_path: Path) -> None:
    model = onnx.load(exported.fp32)
    model.graph.node[5].op_type = "Convolute"
    onnx.save(model, tmp_path / "odd.onnx")
    with pytest.raises(ExportError, match="Convolute") as caught:
        build_engine(tmp_path / "odd.onnx", tmp_path / "odd.plan", BUILD)
    assert model.graph.node[5].name in str(caught.value)
    assert not list(tmp_path.glob("*.plan")) + list(tmp_path.glob("*.json"))


def test_a_damaged_file_is_refused(exported, tmp_path: Path) -> None:
    (tmp_path / "half.onnx").write_bytes(exported.fp32.read_bytes()[:100_000])
    with pytest.raises(ArtifactError, match=r"half\.onnx"):
        build_engine(tmp_path / "half.onnx", tmp_path / "half.plan", BUILD)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"none\.onnx is missing"):
        build_engine(tmp_path / "none.onnx", tmp_path / "none.plan", BUILD)


def test_a_file_without_an_image_size_is_refused(exported, tmp_path: Path) -> None:
    model = onnx.load(exported.fp32)
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "stranger.onnx")
    with pytest.raises(ArtifactError, match=r"leanface\.input"):
        build_engine(tmp_path / "stranger.onnx", tmp_path / "stranger.plan", BUILD)


def test_a_missing_or_broken_description_is_named(tmp_path: Path) -> None:
    plan = tmp_path / "network.plan"
    with pytest.raises(ArtifactError, match=r"network\.json"):
        load_description(plan)
    plan.with_suffix(".json").write_text("{")
    with pytest.raises(ArtifactError, match=r"network\.json"):
        load_description(plan)


def test_an_engine_of_an_unknown_library_is_refused(tmp_path: Path) -> None:
    (tmp_path / "network.plan").write_bytes(b"")
    (tmp_path / "network.json").write_text(json.dumps({"library": "tensorrt_9"}))
    with pytest.raises(BackendError, match="tensorrt_9"):
        open_runtime("tensorrt", tmp_path / "network.plan")
