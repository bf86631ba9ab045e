"""The precision of an ONNX file: what TensorRT and OpenVINO compute in is what the file's types say.

Inputs and outputs stay float32 in each. A new precision is one function here and one line in `PRECISIONS`.

The exporter writes a fake-quantized weight as float32 -> QuantizeLinear -> DequantizeLinear -> Conv and gives each
reader of a feature map quantizers of its own; a scale is the range / 127. `to_int8` leaves int8 -> DequantizeLinear ->
Conv, with a float32 scale per channel, and one Q/DQ pair per feature map and scale. A convolution that was kept from
quantization computes in float16.
"""

import logging
import warnings
from collections.abc import Callable

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from leanface.errors import ExportError
from leanface.export.simplify import Graph, Node, Tensor, replace_tensor
from leanface.networks.interface import Flavor


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


def to_int8(model: onnx.ModelProto, flavor: Flavor = "tensorrt") -> onnx.ModelProto:
    """Int8 weights and feature maps; a feature map that cannot be negative is uint8.

    `tensorrt` keeps the scale: TensorRT, which has no uint8, imports it as int8, and a processor without VNNI
    multiplies it exactly (docs/decisions/0003-uint8-activations.md). What exceeds the calibrated range is clipped at
    twice the range. `cpu` divides the range by all 255 steps and gives the image, whose values are bytes over 255, a
    level for each of them; its heads compute in float16, as one layer, and maximum pooling reads 8 bits
    (docs/decisions/0017-flavors.md).

    Raises:
        ExportError: no layer's weight is quantized.
    """
    graph: Graph = gs.import_onnx(model)
    _share_quantizers(graph)
    zero = gs.Constant("zero_uint8", np.zeros((), np.uint8))
    for quantize in [node for node in graph.nodes if node.op == "QuantizeLinear"]:
        source, dequantize, scale = quantize.inputs[0], quantize.outputs[0].outputs[0], quantize.inputs[1]
        if not _non_negative(source):
            continue
        if flavor == "cpu":
            if source.inputs and source.inputs[0].op == "GlobalAveragePool":
                for head in list(dequantize.outputs[0].outputs):
                    head.inputs = [source, _float_weight(head), *head.inputs[2:]]
                continue
            step = scale.values * (127 / 255) if source.inputs else 1 / 255
            scale = gs.Constant(f"{quantize.outputs[0].name}.scale", np.asarray(step, np.float32))
        for node in (quantize, dequantize):
            node.inputs = [node.inputs[0], scale, zero]
    if flavor == "cpu":
        _pool_in_8_bits(graph)
        _join_heads(graph)
    _convert_weights(graph)
    graph.cleanup().toposort()
    return gs.export_onnx(graph)


def _share_quantizers(graph: Graph) -> None:
    """Let all readers of a feature map that quantize it by the same scale read one Q/DQ pair."""
    shared: dict[tuple[str, bytes], Tensor] = {}
    for quantize in [node for node in graph.nodes if node.op == "QuantizeLinear"]:
        result = quantize.outputs[0].outputs[0].outputs[0]
        first = shared.setdefault((quantize.inputs[0].name, quantize.inputs[1].values.tobytes()), result)
        if first is not result:
            replace_tensor(result, first)
    graph.cleanup()


LAYERS = ("Conv", "Gemm")
"""Operators whose weights are quantized, each output (first axis) by a scale of its own."""

PASSING = ("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "Flatten", "Identity")
"""Operators that make nothing negative."""


def _non_negative(tensor: Tensor) -> bool:
    """Say whether a tensor cannot be negative, as `leanface.networks.graph.Graph.non_negative` does of the network."""
    if not tensor.inputs:
        return not isinstance(tensor, gs.Constant)  # images are in [0,1] by the input contract
    producer = tensor.inputs[0]
    if producer.op == "Concat" or producer.op in PASSING:
        return all(map(_non_negative, producer.inputs if producer.op == "Concat" else producer.inputs[:1]))
    if producer.op == "Clip":  # ReLU6
        return isinstance(producer.inputs[1], gs.Constant) and bool(producer.inputs[1].values >= 0)
    return producer.op in ("Relu", "Sigmoid", "HardSigmoid")


def _pool_in_8_bits(graph: Graph) -> None:
    """Quantize what maximum pooling reads as its result is quantized: the largest level is the largest value's."""
    for pool in [node for node in graph.nodes if node.op == "MaxPool"]:
        readers = pool.outputs[0].outputs
        if len(readers) != 1 or readers[0].op != "QuantizeLinear":
            continue
        levels, image = (gs.Variable(f"{pool.name}.{name}") for name in ("levels", "input"))
        scheme = readers[0].inputs[1:]
        graph.nodes.append(gs.Node("QuantizeLinear", inputs=[pool.inputs[0], *scheme], outputs=[levels]))
        graph.nodes.append(gs.Node("DequantizeLinear", inputs=[levels, *scheme], outputs=[image]))
        pool.inputs = [image]


def _join_heads(graph: Graph) -> None:
    """Make one layer of floating-point layers that read the same features and whose results are concatenated."""
    for concat in [node for node in graph.nodes if node.op == "Concat" and node.attrs["axis"] == 1]:
        heads = [head for tensor in concat.inputs for head in tensor.inputs if len(tensor.outputs) == 1]
        alike = {(head.op, str(head.attrs), id(head.inputs[0]), len(head.inputs)) for head in heads}
        if (
            len(heads) != len(concat.inputs)
            or len(alike) != 1
            or heads[0].op not in LAYERS
            or heads[0].attrs.get("group", 1) != 1
            or not all(isinstance(tensor, gs.Constant) for head in heads for tensor in head.inputs[1:])
        ):
            continue
        source, *parameters = heads[0].inputs
        joined = [
            gs.Constant(f"{tensor.name}.joined", np.concatenate([head.inputs[place].values for head in heads]))
            for place, tensor in enumerate(parameters, start=1)
        ]
        result = concat.outputs[0]
        concat.outputs.clear()
        layer = gs.Node(heads[0].op, f"{heads[0].name}.joined", heads[0].attrs, [source, *joined], [result])
        graph.nodes.append(layer)


def _float_weight(conv: Node) -> Tensor:
    """Copy what a quantized convolution's Q/DQ pair reads, under a name of its own."""
    weight = conv.inputs[1].inputs[0].inputs[0].inputs[0].inputs[0]
    return gs.Constant(f"{weight.name}.float", weight.values)


def _convert_weights(graph: Graph) -> None:
    """Fold each QuantizeLinear of a weight into int8 values."""
    layers = [node for node in graph.nodes if node.op in LAYERS]
    quantized = [layer for layer in layers if layer.inputs[1].inputs]
    if not quantized:
        raise ExportError(
            "no weight is quantized; an 8-bit file needs a quantized network. "
            "Export a bundle whose spec has a quantizer (variant quantized_int8)."
        )
    for layer in quantized:
        dequantize = layer.inputs[1].inputs[0]
        weight, scale = (tensor.values for tensor in dequantize.inputs[0].inputs[0].inputs[:2])
        name = dequantize.inputs[0].inputs[0].inputs[0].name
        # One range per output channel; a single channel's is a scalar.
        scale = np.broadcast_to(scale.reshape(-1), len(weight)).astype(np.float32)
        levels = np.rint(weight / scale.reshape(-1, *[1] * (weight.ndim - 1))).clip(-128, 127).astype(np.int8)
        # Without a zero point it is 0: the scheme is symmetric.
        dequantize.inputs = [gs.Constant(f"{name}.int8", levels), gs.Constant(f"{name}.scale", scale)]
        dequantize.attrs["axis"] = 0
    for layer in layers:
        if layer not in quantized:
            _compute_in_float16(graph, layer)


def _compute_in_float16(graph: Graph, conv: Node) -> None:
    image, *parameters = conv.inputs
    narrow, wide = gs.Variable(f"{conv.name}.input", np.float16), conv.outputs[0]
    result = gs.Variable(f"{conv.name}.output", np.float16)
    graph.nodes.append(gs.Node("Cast", attrs={"to": onnx.TensorProto.FLOAT16}, inputs=[image], outputs=[narrow]))
    graph.nodes.append(gs.Node("Cast", attrs={"to": onnx.TensorProto.FLOAT}, inputs=[result], outputs=[wide]))
    conv.inputs = [narrow, *(gs.Constant(tensor.name, tensor.values.astype(np.float16)) for tensor in parameters)]
    conv.outputs = [result]


PRECISIONS: dict[str, Callable[[onnx.ModelProto], onnx.ModelProto]] = {
    "fp32": to_float32,
    "fp16": to_float16,
    "int8": to_int8,
}
