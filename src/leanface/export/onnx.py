"""PyTorch to ONNX: one file per network and precision, which says itself what it expects and returns."""

import importlib.metadata
import io
import json
import warnings
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import nn

from leanface.bundle import Spec
from leanface.errors import ExportError
from leanface.export.precision import PRECISIONS, to_int8
from leanface.export.simplify import simplify_graph
from leanface.files import atomic_write, write_json
from leanface.networks.inference import inference_form
from leanface.networks.interface import INPUT_NAME, METADATA_PREFIX, OUTPUT_NAME, Flavor

BATCH, SIZE = {0: "batch"}, {2: "height", 3: "width"}
"""Names of the dynamic dimensions, by their index."""


def export_network(
    network: nn.Module,
    spec: Spec,
    precision: str,
    opset: int,
    *,
    dynamic_size: bool = True,
    flavor: Flavor = "tensorrt",
) -> onnx.ModelProto:
    """A checked ONNX model of a bundle's network, for batches of any size.

    Args:
        network: as `load_bundle` returns it; it is not changed.
        spec: its spec, which goes into the model's metadata.
        precision: a name in `PRECISIONS`.
        opset: of the default ONNX domain.
        dynamic_size: height and width are dynamic too; otherwise they are the spec's.
        flavor: of an INT8 file.

    Raises:
        ExportError: the precision is unknown or does not fit the network, or the model is not valid ONNX.
    """
    if precision not in PRECISIONS:
        raise ExportError(f"unknown precision {precision!r}; expected one of {', '.join(PRECISIONS)}")
    if (spec.scheme == "int8") != (precision == "int8"):
        kind = "a floating-point" if spec.scheme is None else "a fake-quantized"
        raise ExportError(f"{kind} network cannot be exported in {precision}; see leanface.catalog.VARIANTS.")
    traced = _trace(inference_form(network), spec.input.size, opset, dynamic_size)
    model = to_int8(traced, flavor) if precision == "int8" else PRECISIONS[precision](traced)
    model.producer_name = "leanface"
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, _metadata(spec, precision, flavor))
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"the exported {precision} model is not valid ONNX: {error}") from error
    return model


def _trace(network: nn.Module, size: int, opset: int, dynamic_size: bool) -> onnx.ModelProto:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # ModelOpt's quantizers export only by tracing (dynamo=False), which warns that it is the older way
        # and of branches on constants.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (torch.rand(1, 3, size, size),),
            buffer,  # pyright: ignore[reportArgumentType]  # any file will do without dynamo
            input_names=[INPUT_NAME],
            output_names=[OUTPUT_NAME],
            dynamic_axes={INPUT_NAME: BATCH | (SIZE if dynamic_size else {}), OUTPUT_NAME: BATCH},
            opset_version=opset,
            dynamo=False,
        )
    return simplify_graph(onnx.load_model_from_string(buffer.getvalue()))


def _metadata(spec: Spec, precision: str, flavor: Flavor) -> dict[str, str]:
    values = {
        "version": _version(),
        "precision": precision,
        "input": spec.input.model_dump_json(),
        "task": spec.task,
        "outputs": json.dumps(spec.outputs),
        "license": spec.license,
    }
    values |= {} if spec.teacher is None else {"teacher": spec.teacher}
    values |= {"flavor": flavor} if precision == "int8" else {}
    return {METADATA_PREFIX + key: value for key, value in values.items()}


def _version() -> str:
    try:
        return importlib.metadata.version("leanface")
    except importlib.metadata.PackageNotFoundError:  # run from a source tree that is not installed
        return "unknown"


def describe(model: onnx.ModelProto) -> dict[str, Any]:
    """Names, types, shapes and size of a model, as JSON; a dynamic dimension is given by its name."""

    def tensor(value: onnx.ValueInfoProto) -> dict[str, Any]:
        kind = value.type.tensor_type
        return {
            "name": value.name,
            "dtype": onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).name,
            "shape": [d.dim_param or d.dim_value for d in kind.shape.dim],
        }

    return {
        "inputs": [tensor(value) for value in model.graph.input],
        "outputs": [tensor(value) for value in model.graph.output],
        "opset": next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")),
        "nodes": len(model.graph.node),
        "size_bytes": model.ByteSize(),
        "metadata": {entry.key: entry.value for entry in model.metadata_props},
    }


def save_model(model: onnx.ModelProto, path: Path, description: dict[str, Any]) -> None:
    """Write the model and, beside it, its description as .json; neither is ever seen half written."""
    atomic_write(path, model.SerializeToString())
    write_json(path.with_suffix(".json"), description)
