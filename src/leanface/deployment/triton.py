"""`leanface export triton`: a model repository for NVIDIA's Triton Inference Server.

An ensemble for clients that have images of the network's size, such as crops of faces, and what it and other clients
use:

    leanface                 uint8 crops (H,W,3) -> coefficients: the next two in turn
    leanface_preprocess      uint8 crops -> float32 images (3,H,W) in [0,1]
    leanface_onnx            images -> coefficients, in ONNX Runtime, on CPU or GPU
    leanface_tensorrt        the same in TensorRT: from a plan, or, without one, in an engine that is built when the
                             server starts

The outputs of every network are called coefficients, as in its ONNX file; a classifier's are logits.

Source: https://github.com/triton-inference-server/common/blob/main/protobuf/model_config.proto
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper

from leanface.errors import ArtifactError
from leanface.files import staged
from leanface.networks.interface import INPUT_NAME, OUTPUT_NAME
from leanface.runtime.engine import load_description
from leanface.runtime.onnx_file import ExportedNetwork, read_onnx

KIND = "Triton repository"
"""Of result, see `leanface.files.staged`."""

CROPS_NAME = "crops"
"""uint8 (B,H,W,3), RGB."""

MAX_DELAY_US = 2000
QUEUE_TIMEOUT_US = 1_000_000
QUEUE_SIZE = 512

OPSET = 17
IR_VERSION = 8
"""Of the preprocessing: what every Triton of the last years reads."""


@dataclass(frozen=True)
class Repository:
    """What was written.

    Attributes:
        plan: whether leanface_tensorrt has a plan of its own.
        reason: why not, if it has none.
    """

    models: tuple[str, ...]
    plan: bool
    reason: str | None


def export_triton(onnx_path: Path, plan_path: Path, folder: Path, batch_max: int) -> Repository:
    """Write the repository; the folder must be missing, empty, or one that this function wrote.

    Args:
        onnx_path: what stage export wrote.
        plan_path: what stage build wrote of it, if it did.
        batch_max: largest batch that Triton puts together; a plan's own limit goes before it.

    Raises:
        ArtifactError: the network is missing or damaged, or the folder holds something else.
    """
    exported = read_onnx(onnx_path)
    batch, reason = _usable(plan_path, exported)
    batch_max = min(batch_max, batch or batch_max)
    with staged(folder.resolve(), KIND) as staging:
        (staging / "leanface" / "1").mkdir(parents=True)  # an ensemble has a version, too, which is empty
        (staging / "leanface" / "1" / ".keep").touch()
        models = {"leanface": _ensemble(exported, batch_max)}
        models["leanface_preprocess"] = _preprocess(staging, exported.image_size, batch_max)
        models["leanface_onnx"] = _network("leanface_onnx", exported, batch_max, "onnxruntime_onnx")
        _put(staging / "leanface_onnx", "model.onnx", exported.content)
        tensorrt = "leanface_tensorrt"
        if reason is None:
            models[tensorrt] = _network(tensorrt, exported, batch_max, "tensorrt_plan", gpu=True)
            _put(staging / tensorrt, "model.plan", plan_path.read_bytes())
        else:
            models[tensorrt] = _network(tensorrt, exported, batch_max, "onnxruntime_onnx", gpu=True)
            models[tensorrt] += _accelerated(exported, batch_max)
            _put(staging / tensorrt, "model.onnx", exported.content)
        for name, config in models.items():
            (staging / name / "config.pbtxt").write_text(config)
    return Repository(tuple(models), reason is None, reason)


def _usable(plan_path: Path, exported: ExportedNetwork) -> tuple[int | None, str | None]:
    """Return the largest batch of a plan that Triton can load; else why there is none."""
    if not plan_path.is_file():
        return None, f"{plan_path} is missing; `leanface stage build` makes it on the GPU's machine."
    try:
        description: dict[str, Any] = load_description(plan_path)
    except ArtifactError as error:
        return None, str(error)
    if description["onnx_sha256"] != hashlib.sha256(exported.content).hexdigest():
        return None, f"{plan_path} was built from another network; build it again."
    if description["library"] != "tensorrt":
        return None, (
            f"{plan_path} was built by {description['library']}, whose engines Triton's TensorRT backend cannot load; "
            "build it on the GPU's machine with full TensorRT of the version in Triton's container."
        )
    return int(description["profile"]["max"][0]), None


def _put(model: Path, name: str, content: bytes) -> None:
    (model / "1").mkdir(parents=True)
    (model / "1" / name).write_bytes(content)


def _tensor(name: str, kind: str, dims: list[int]) -> str:
    return f'[ {{ name: "{name}" data_type: TYPE_{kind} dims: {dims} }} ]'


def _images(size: int) -> str:
    return _tensor(INPUT_NAME, "FP32", [3, size, size])


def _crops(size: int) -> str:
    return _tensor(CROPS_NAME, "UINT8", [size, size, 3])


def _outputs(exported: ExportedNetwork) -> str:
    return _tensor(OUTPUT_NAME, "FP32", [exported.output_count])


def _network(name: str, exported: ExportedNetwork, batch_max: int, platform: str, gpu: bool = False) -> str:
    size = exported.image_size
    preferred = sorted({min(batch_max, 8), batch_max})
    return f"""name: "{name}"
platform: "{platform}"
max_batch_size: {batch_max}
input {_images(size)}
output {_outputs(exported)}
version_policy {{ latest {{ num_versions: 1 }} }}
instance_group [ {{ count: 1 kind: {"KIND_GPU" if gpu else "KIND_AUTO"} }} ]
dynamic_batching {{
  preferred_batch_size: {preferred}
  max_queue_delay_microseconds: {MAX_DELAY_US}
  # Waiting longer than that, or behind more than that, is answered with an error and not with silence.
  default_queue_policy {{
    timeout_action: REJECT
    default_timeout_microseconds: {QUEUE_TIMEOUT_US}
    max_queue_size: {QUEUE_SIZE}
  }}
}}
# The first request after the start must not pay for what is done once.
model_warmup [ {{
  name: "one image"
  batch_size: 1
  inputs {{ key: "{INPUT_NAME}" value {{ data_type: TYPE_FP32 dims: [3, {size}, {size}] zero_data: true }} }}
}} ]
"""


def _accelerated(exported: ExportedNetwork, batch_max: int) -> str:
    """Configure TensorRT inside ONNX Runtime, which keeps its engine: the next start is quick."""

    def shape(batch: int) -> str:
        return f"{INPUT_NAME}:{batch}x3x{exported.image_size}x{exported.image_size}"

    options = {
        # Which types TensorRT may use; where the file has Q/DQ, they say what is quantized.
        "precision_mode": exported.precision.upper(),
        "trt_engine_cache_enable": "true",
        "trt_engine_cache_path": "/tmp/leanface_tensorrt",
        "trt_profile_min_shapes": shape(1),
        "trt_profile_opt_shapes": shape(min(batch_max, 8)),
        "trt_profile_max_shapes": shape(batch_max),
    }
    lines = "\n".join(f'    parameters {{ key: "{key}" value: "{value}" }}' for key, value in options.items())
    return f"""optimization {{ execution_accelerators {{
  gpu_execution_accelerator [ {{
    name: "tensorrt"
{lines}
  }} ]
}} }}
"""


def _preprocess(staging: Path, size: int, batch_max: int) -> str:
    _put(staging / "leanface_preprocess", "model.onnx", preprocessing(size).SerializeToString())
    return f"""name: "leanface_preprocess"
platform: "onnxruntime_onnx"
max_batch_size: {batch_max}
input {_crops(size)}
output {_images(size)}
instance_group [ {{ count: 1 kind: KIND_AUTO }} ]
"""


def preprocessing(size: int) -> onnx.ModelProto:
    """Build the graph that turns uint8 crops into what `leanface.photos.alignment.to_input` returns, bit for bit."""
    nodes = [
        helper.make_node("Transpose", [CROPS_NAME], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["planes"], ["levels"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["levels", "white"], [INPUT_NAME]),
    ]
    graph = helper.make_graph(
        nodes,
        "preprocessing",
        [helper.make_tensor_value_info(CROPS_NAME, TensorProto.UINT8, ["batch", size, size, 3])],
        [helper.make_tensor_value_info(INPUT_NAME, TensorProto.FLOAT, ["batch", 3, size, size])],
        [helper.make_tensor("white", TensorProto.FLOAT, [], [255.0])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="leanface")
    model.ir_version = IR_VERSION
    onnx.checker.check_model(model, full_check=True)
    return model


def _ensemble(exported: ExportedNetwork, batch_max: int) -> str:
    """Configure both steps as one request; change `leanface_onnx` to `leanface_tensorrt` in it on a GPU."""

    def step(model: str, source: str, target: str, value: str, result: str) -> str:
        return f"""  step {{
    model_name: "{model}"
    model_version: -1
    input_map {{ key: "{source}" value: "{value}" }}
    output_map {{ key: "{target}" value: "{result}" }}
  }}
"""

    return f"""name: "leanface"
platform: "ensemble"
max_batch_size: {batch_max}
input {_crops(exported.image_size)}
output {_outputs(exported)}
# On a GPU put leanface_tensorrt in the place of leanface_onnx.
ensemble_scheduling {{
{step("leanface_preprocess", CROPS_NAME, INPUT_NAME, CROPS_NAME, "prepared")}\
{step("leanface_onnx", INPUT_NAME, OUTPUT_NAME, "prepared", OUTPUT_NAME)}}}
"""


__all__ = ["Repository", "export_triton", "preprocessing"]
