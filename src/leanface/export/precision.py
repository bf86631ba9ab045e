"""The precision of an ONNX file: what TensorRT and OpenVINO compute in is what the file's types say.

Inputs and outputs stay float32 in each. A new precision is one function here and one line in `PRECISIONS`.
"""

import logging
import warnings
from collections.abc import Callable

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from leanface.errors import ExportError
from leanface.export.tidy import Graph, Node, Tensor, replace_tensor


def to_float32(model: onnx.ModelProto) -> onnx.ModelProto:
    """The exporter's own precision: nothing to do."""
    return model


def to_float16(model: onnx.ModelProto) -> onnx.ModelProto:
    """Weights and feature maps in float16, with a cast behind the input and one before the output."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # at import ModelOpt warns of optional packages that it does not find
        # Imported here: it takes seconds and only this precision needs it.
        from modelopt.onnx.autocast.convert import convert_to_f16

    for name in ("modelopt.onnx", "modelopt.onnx.autocast"):
        logging.getLogger(name).setLevel(logging.ERROR)  # they warn if a weight rounds to 0 in float16
    return convert_to_f16(model, keep_io_types=True)


def to_int8(model: onnx.ModelProto) -> onnx.ModelProto:
    """Fold each QuantizeLinear of a weight: the file holds int8 weights and a float32 scale per channel.

    The exporter writes a fake-quantised weight as float32 -> QuantizeLinear -> DequantizeLinear -> Conv and
    gives each reader of a feature map quantisers of its own. What is left is int8 -> DequantizeLinear -> Conv
    and one Q/DQ pair per feature map and scale.

    A feature map that cannot be negative is quantised to uint8, with the same scale: TensorRT, which has no
    uint8, imports it as int8, and a processor without VNNI multiplies it exactly (see
    docs/decisions/0003-uint8-activations.md). The one difference: what exceeds the calibrated range is
    clipped at twice the range.

    Raises:
        ExportError: a convolution's weight is not quantised.
    """
    graph: Graph = gs.import_onnx(model)
    _share_quantizers(graph)
    zero = gs.Constant("zero_uint8", np.zeros((), np.uint8))
    for quantize in [node for node in graph.nodes if node.op == "QuantizeLinear"]:
        if _non_negative(quantize.inputs[0]):
            quantize.inputs[2] = quantize.outputs[0].outputs[0].inputs[2] = zero
    for conv in [node for node in graph.nodes if node.op == "Conv"]:
        _fold_weight(conv)
    graph.cleanup().toposort()
    return gs.export_onnx(graph)


def _share_quantizers(graph: Graph) -> None:
    """Let all readers of a feature map that quantise it by the same scale read one Q/DQ pair."""
    shared: dict[tuple[str, bytes], Tensor] = {}
    for quantize in [node for node in graph.nodes if node.op == "QuantizeLinear"]:
        result = quantize.outputs[0].outputs[0].outputs[0]
        first = shared.setdefault((quantize.inputs[0].name, quantize.inputs[1].values.tobytes()), result)
        if first is not result:
            replace_tensor(result, first)


def _non_negative(tensor: Tensor) -> bool:
    """Images are in [0,1] by the input contract; ReLU and pooling speak for themselves."""
    if not tensor.inputs:
        return not isinstance(tensor, gs.Constant)
    producer = tensor.inputs[0]
    if producer.op in ("MaxPool", "GlobalAveragePool"):
        return _non_negative(producer.inputs[0])
    return producer.op == "Relu"


def _fold_weight(conv: Node) -> None:
    dequantize = conv.inputs[1].inputs[0] if conv.inputs[1].inputs else None
    if dequantize is None or dequantize.op != "DequantizeLinear":
        raise ExportError(
            f"{conv.name} has a floating-point weight; an INT8 file needs a quantised network. "
            "Export a bundle whose spec has a quantizer (variant quantized_int8)."
        )
    quantize = dequantize.inputs[0].inputs[0]
    weight = quantize.inputs[0].values
    # One range per output channel; a single channel's is a scalar.
    scale = np.broadcast_to(quantize.inputs[1].values.reshape(-1), len(weight)).astype(np.float32)
    levels = np.rint(weight / scale[:, None, None, None]).clip(-128, 127).astype(np.int8)
    name = quantize.inputs[0].name
    # Without a zero point it is 0: the scheme is symmetric.
    dequantize.inputs = [gs.Constant(f"{name}.int8", levels), gs.Constant(f"{name}.scale", scale)]
    dequantize.attrs["axis"] = 0


PRECISIONS: dict[str, Callable[[onnx.ModelProto], onnx.ModelProto]] = {
    "fp32": to_float32,
    "fp16": to_float16,
    "int8": to_int8,
}
"""By the last part of a variant's name: `distilled_fp16` is exported in fp16."""
