"""Engines: built from every precision, and refused with the reason where that cannot be."""

import hashlib
import json
from pathlib import Path
from typing import Any

import onnx
import pytest

from leanface.errors import ArtifactError, BackendError, ConfigError, ExportError
from leanface.runtime import open_runtime
from leanface.runtime.engine import (
    TIMING_CACHE,
    EngineDescription,
    build_engine,
    load_description,
    load_tensorrt,
)
from tests import settings

BUILD = settings.BUILD.model_copy(update={"builder_level": 3, "timing_cache": True})


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
    assert {path.name for path in plan.parent.iterdir()} - {TIMING_CACHE} == {"network.json", "network.plan"}
    assert description.size_bytes == plan.stat().st_size > 100_000
    assert description.onnx_sha256 == hashlib.sha256(source.read_bytes()).hexdigest()
    assert description.profile == {"min": (1, 3, 64, 64), "opt": (2, 3, 64, 64), "max": (4, 3, 64, 64)}
    assert description.targets
    written = load_description(plan)
    assert written["status"] == "built"
    assert written["targets"] == description.targets
    in_profile = {"batch_min", "batch_opt", "batch_max", "image_size_min", "image_size_max"}
    assert written["options"] == BUILD.model_dump(exclude=in_profile)


def test_an_engine_may_take_a_range_of_sizes(exported, tmp_path: Path) -> None:
    build = BUILD.model_copy(update={"image_size_max": 128})
    profile = build_engine(exported.int8, tmp_path / "network.plan", build).profile
    assert profile == {"min": (1, 3, 64, 64), "opt": (2, 3, 64, 64), "max": (4, 3, 128, 128)}


def test_a_range_of_sizes_that_leaves_out_the_network_s_own_is_refused(exported, tmp_path: Path) -> None:
    build = BUILD.model_copy(update={"image_size_min": 96, "image_size_max": 128})
    with pytest.raises(ConfigError, match=r"96 .*128 px leave out 64 px"):
        build_engine(exported.fp32, tmp_path / "network.plan", build)
    assert not list(tmp_path.iterdir())


FUSION = {
    # (precision, targets): share of the convolutions that other kernels finish, and times the bytes of portable FP16
    ("fp16", "portable"): (0.0, 1.0),
    ("fp16", ("SM89",)): (0.0, 1.0),
    ("fp32", "portable"): (0.0, 2.01),
    ("int8", "portable"): (0.9, 3.5),
    ("int8", ("SM89",)): (0.9, 2.1),
}
"""What TensorRT-RTX 1.7.1 does, rounded up. A release that fuses less fails here; one that fuses INT8 passes."""


@pytest.fixture(scope="module")
def described(exported, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, Any], EngineDescription]:
    if load_tensorrt()[0] != "tensorrt_rtx":
        pytest.skip("only TensorRT-RTX lists its layers in this form, and builds for GPUs that are not here")
    folder = tmp_path_factory.mktemp("engines")
    return {
        (name, targets): build_engine(
            getattr(exported, name), folder / f"{name}.plan", BUILD.model_copy(update={"targets": targets})
        )
        for name, targets in FUSION
    }


@pytest.mark.parametrize("kind", FUSION, ids=str)
def test_fusion_gets_no_worse(described: dict[Any, EngineDescription], exported, kind: tuple[str, Any]) -> None:
    layers, half = described[kind].layers, described["fp16", "portable"].layers
    assert layers is not None
    assert half is not None
    nodes = onnx.load(getattr(exported, kind[0])).graph.node
    assert layers.convolutions == sum(node.op_type == "Conv" for node in nodes)
    unfused, bytes_ratio = FUSION[kind]
    assert layers.unfused <= unfused * layers.convolutions
    assert layers.bytes_per_image is not None
    assert half.bytes_per_image is not None
    assert layers.bytes_per_image <= bytes_ratio * half.bytes_per_image
    counted = sum(count for types in layers.kernels.values() for count in types.values())
    assert counted == len(described[kind].kernels)


def test_the_description_tells_what_each_layer_reads_writes_and_computes(
    described: dict[Any, EngineDescription], exported
) -> None:
    half = described["fp16", "portable"]
    assert half.layers is not None
    assert set(half.layers.kernels["correlation"]) == {"Half to Half"}
    nodes = {node.name: node.op_type for node in onnx.load(exported.fp16).graph.node}
    convolutions = [kernel for kernel in half.kernels if kernel["kind"] == "correlation"]
    fused = {nodes[name] for kernel in convolutions for name in kernel["nodes"] if name in nodes}
    assert {"Conv", "Relu", "Add"} <= fused


def test_a_precision_that_is_not_fused_comes_with_a_warning_that_says_why(
    described: dict[Any, EngineDescription],
) -> None:
    for (precision, _), engine in described.items():
        assert engine.layers is not None
        if precision == "int8" and engine.layers.unfused:
            (warning,) = engine.warnings
            assert f"{engine.layers.unfused} are followed by kernels of their own" in warning
            assert "FP16 engine is probably faster" in warning
        else:
            assert engine.warnings == []


def test_an_engine_is_built_for_the_gpus_that_are_asked_for(
    described: dict[Any, EngineDescription], exported, tmp_path: Path
) -> None:
    assert described["fp16", ("SM89",)].targets == ["SM89"]
    assert len(described["fp16", "portable"].targets) > 3
    with pytest.raises(ConfigError, match=r"build\.targets names SM10; expected auto, portable, or some of .*SM89"):
        build_engine(exported.fp16, tmp_path / "old.plan", BUILD.model_copy(update={"targets": ("SM10",)}))


def test_a_finished_engine_is_opened_where_there_is_a_gpu(exported, tmp_path: Path) -> None:
    build_engine(exported.fp32, tmp_path / "network.plan", BUILD)
    try:
        runtime = open_runtime("tensorrt", tmp_path / "network.plan")
    except BackendError as error:
        pytest.skip(str(error))
    with runtime:
        assert runtime.input_spec.batch == (1, 4)
        assert runtime.input_spec.side == (64, 64)


def test_what_the_library_cannot_build_here_is_told_in_its_own_words(exported, tmp_path: Path) -> None:
    """TensorRT-RTX has no lean runtime; the full library has one."""
    plan, build = tmp_path / "network.plan", BUILD.model_copy(update={"version_compatible": True})
    if load_tensorrt()[0] == "tensorrt_rtx":
        with pytest.raises(BackendError, match="nvinfer_lean"):
            build_engine(exported.fp32, plan, build)
        assert not plan.exists()
    else:
        assert build_engine(exported.fp32, plan, build).options["version_compatible"]


def test_an_engine_without_weights_is_not_run(tmp_path: Path) -> None:
    plan = tmp_path / "network.plan"
    plan.write_bytes(b"")
    plan.with_suffix(".json").write_text(json.dumps({"library": "tensorrt", "options": {"weights": "stripped"}}))
    with pytest.raises(BackendError, match="without its weights"):
        open_runtime("tensorrt", plan)


def test_a_graph_that_cannot_be_parsed_names_the_node(exported, tmp_path: Path) -> None:
    model = onnx.load(exported.fp32)
    model.graph.node[5].op_type = "Convolute"
    onnx.save(model, tmp_path / "odd.onnx")
    with pytest.raises(ExportError, match="Convolute") as caught:
        build_engine(tmp_path / "odd.onnx", tmp_path / "odd.plan", BUILD)
    assert model.graph.node[5].name in str(caught.value)
    assert not list(tmp_path.glob("*.plan")) + list(tmp_path.glob("*.json"))


def test_a_convolution_that_does_not_fit_names_the_node(exported, tmp_path: Path) -> None:
    model = onnx.load(exported.fp32)
    node = [node for node in model.graph.node if node.op_type == "Conv"][3]
    del node.input[1:]
    onnx.save(model, tmp_path / "broken.onnx")
    with pytest.raises(ExportError, match=r"broken\.onnx") as caught:
        build_engine(tmp_path / "broken.onnx", tmp_path / "broken.plan", BUILD)
    assert f"node {node.name} (Conv): " in str(caught.value)


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
