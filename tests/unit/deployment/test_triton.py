"""The model repository: Triton's own schema accepts it, and what it says of the files is true."""

import hashlib
import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import DataType, ModelConfig

from leanface.deployment.triton import export_triton, preprocessing
from leanface.errors import ArtifactError
from leanface.photos.alignment import to_input

NUMPY_OF = {"TYPE_FP32": "tensor(float)", "TYPE_UINT8": "tensor(uint8)"}


def configs(folder: Path) -> dict[str, ModelConfig]:
    """Parsed strictly: an unknown field or a wrong type is an error."""
    return {
        path.parent.name: text_format.Parse(path.read_text(), ModelConfig()) for path in folder.glob("*/config.pbtxt")
    }


@pytest.fixture
def plan(exported, tmp_path: Path) -> Path:
    """What full TensorRT would leave; its bytes do not matter."""
    path = tmp_path / "int8.plan"
    path.write_bytes(b"engine")
    sha256 = hashlib.sha256(exported.int8.read_bytes()).hexdigest()
    profile = {"max": [16, 3, 64, 64]}
    path.with_suffix(".json").write_text(json.dumps({"library": "tensorrt", "onnx_sha256": sha256, "profile": profile}))
    return path


def test_tritons_schema_accepts_every_model(exported, plan: Path, tmp_path: Path) -> None:
    written = export_triton(exported.int8, plan, tmp_path / "repository", batch_max=32)
    models = configs(tmp_path / "repository")
    assert (
        set(models) == set(written.models) == {"leanface", "leanface_preprocess", "leanface_onnx", "leanface_tensorrt"}
    )
    for name, config in models.items():
        assert config.name == name  # Triton refuses a folder of another name
        assert config.max_batch_size == 16  # the plan's own limit
        assert len(config.input) == len(config.output) == 1
    for name in ("leanface_onnx", "leanface_tensorrt"):
        batching = models[name].dynamic_batching
        assert list(batching.preferred_batch_size) == [8, 16]
        assert batching.max_queue_delay_microseconds > 0
        assert batching.default_queue_policy.max_queue_size > 0
        assert models[name].model_warmup[0].inputs["images"].dims == [3, 64, 64]
    assert (tmp_path / "repository/leanface_tensorrt/1/model.plan").read_bytes() == b"engine"
    assert models["leanface_tensorrt"].platform == "tensorrt_plan"


def test_the_configurations_describe_the_files(exported, tmp_path: Path) -> None:
    export_triton(exported.int8, tmp_path / "none.plan", tmp_path / "repository", batch_max=8)
    for name, config in configs(tmp_path / "repository").items():
        if config.platform != "onnxruntime_onnx":
            continue
        session = onnxruntime.InferenceSession(str(tmp_path / "repository" / name / "1" / "model.onnx"))
        for declared, real in zip(
            [*config.input, *config.output], [*session.get_inputs(), *session.get_outputs()], strict=True
        ):
            assert declared.name == real.name
            assert NUMPY_OF[DataType.Name(declared.data_type)] == real.type
            for stated, length in zip(declared.dims, real.shape[1:], strict=True):
                assert stated == length or isinstance(length, str)


def test_the_ensemble_connects_the_models(exported, tmp_path: Path) -> None:
    export_triton(exported.int8, tmp_path / "none.plan", tmp_path / "repository", batch_max=8)
    models = configs(tmp_path / "repository")
    ensemble, known = models["leanface"], {models["leanface"].input[0].name}
    for step in ensemble.ensemble_scheduling.step:
        model = models[step.model_name]
        assert set(step.input_map) == {tensor.name for tensor in model.input}
        assert set(step.output_map) == {tensor.name for tensor in model.output}
        assert set(step.input_map.values()) <= known
        known |= set(step.output_map.values())
    assert ensemble.output[0].name in known
    assert (tmp_path / "repository/leanface/1").is_dir()


def test_the_preprocessing_is_the_one_preprocessing(tmp_path: Path) -> None:
    crops = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), np.uint8)
    session = onnxruntime.InferenceSession(preprocessing(64).SerializeToString())
    (images,) = session.run(None, {"crops": crops})
    assert np.array_equal(images, np.stack([to_input(crop) for crop in crops]))


def test_an_engine_that_triton_cannot_load_is_left_out_with_the_reason(exported, plan: Path, tmp_path: Path) -> None:
    description = json.loads(plan.with_suffix(".json").read_text())
    plan.with_suffix(".json").write_text(json.dumps(description | {"library": "tensorrt_rtx"}))
    written = export_triton(exported.int8, plan, tmp_path / "repository", batch_max=8)
    assert not written.plan
    assert "built by tensorrt_rtx" in (written.reason or "")
    config = configs(tmp_path / "repository")["leanface_tensorrt"]
    (accelerator,) = config.optimization.execution_accelerators.gpu_execution_accelerator
    assert accelerator.name == "tensorrt"
    assert accelerator.parameters["precision_mode"] == "INT8"
    assert accelerator.parameters["trt_profile_max_shapes"] == "images:8x3x64x64"
    assert not list((tmp_path / "repository").rglob("*.plan"))


def test_an_engine_of_another_network_is_left_out(exported, plan: Path, tmp_path: Path) -> None:
    written = export_triton(exported.fp32, plan, tmp_path / "repository", batch_max=8)
    assert "another network" in (written.reason or "")


def test_an_earlier_repository_is_replaced_and_nothing_else(exported, plan: Path, tmp_path: Path) -> None:
    folder = tmp_path / "repository"
    export_triton(exported.int8, plan, folder, batch_max=8)
    export_triton(exported.int8, tmp_path / "none.plan", folder, batch_max=8)
    assert not list(folder.rglob("*.plan"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    with pytest.raises(ArtifactError, match="LeanFace did not make"):
        export_triton(exported.int8, plan, tmp_path / "mine", batch_max=8)
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []


def test_a_missing_network_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="is missing"):
        export_triton(tmp_path / "no.onnx", tmp_path / "no.plan", tmp_path / "repository", batch_max=8)
    assert list(tmp_path.iterdir()) == []
