"""Read a quantized ONNX file into the few steps that the INT8 kernels compute. Needs NumPy only.

A feature map is kept as int8 levels s, whose value is (s - zero) * scale; a map that the file quantizes to uint8 is
stored 128 lower. Each step reads such maps and writes one: bias, residual addition, ReLU and requantization are part
of the convolution before them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from jaxtyping import Float32, Int8
from onnx import numpy_helper

from leanface.errors import ArtifactError, BackendError
from leanface.networks.interface import INPUT_NAME, METADATA_PREFIX, OUTPUT_NAME

SERVES_INSTEAD = "OpenVINO (--runtime openvino) runs it on the CPU."

IMAGE = INPUT_NAME
"""The feature map that holds the quantized image."""


class Levels(NamedTuple):
    """How a feature map's stored int8 levels are read: value = (level - zero) * scale."""

    scale: float
    zero: int


@dataclass(frozen=True)
class FeatureMap:
    """A quantized map; `stride` is the image's side over its own."""

    name: str
    channels: int
    stride: int
    levels: Levels


@dataclass(frozen=True)
class Convolution:
    """weights * source + bias, plus a residual, with ReLU, quantized to `target`.

    Attributes:
        name: as in the network: backbone.layer1.0.conv1.
        weights: int8 (outputs, height, width, inputs).
        scale: what one step of the integer sum is worth, float32 (outputs).
        bias: float32 (outputs).
        source: the map that it reads.
        target: the map that it writes; None: the mean over all pixels, in float32, which `Heads` reads.
    """

    name: str
    weights: Int8[np.ndarray, "outputs height width inputs"]
    scale: Float32[np.ndarray, " outputs"]
    bias: Float32[np.ndarray, " outputs"]
    stride: int
    padding: int
    relu: bool
    source: FeatureMap
    residual: FeatureMap | None
    target: FeatureMap | None


@dataclass(frozen=True)
class MaxPool:
    """The largest level in each 3x3 window at stride 2, one pixel beyond the edge."""

    name: str
    source: FeatureMap
    target: FeatureMap


@dataclass(frozen=True)
class Heads:
    """Coefficients of the mean features: quantized to `levels`, times weights, plus bias.

    Attributes:
        weights: int8 (coefficients, features).
        scale: float32 (coefficients), as a convolution's.
        bias: float32 (coefficients).
    """

    levels: Levels
    weights: Int8[np.ndarray, "coefficients features"]
    scale: Float32[np.ndarray, " coefficients"]
    bias: Float32[np.ndarray, " coefficients"]


Step = Convolution | MaxPool


@dataclass(frozen=True)
class Plan:
    """A network: `image` says how pixels in [0, 1] become levels; then the steps in order, and the heads.

    Attributes:
        input_shape: of the file's input; None where any length is taken.
    """

    image: FeatureMap
    steps: tuple[Step, ...]
    heads: Heads
    input_shape: tuple[int | None, ...]

    @property
    def features(self) -> int:
        """Channels of the mean that the heads read."""
        return self.heads.weights.shape[1]

    @property
    def outputs(self) -> int:
        """How many numbers the heads answer with."""
        return len(self.heads.weights)


def read_plan(path: Path) -> Plan:
    """Read an exported INT8 network.

    Raises:
        ArtifactError: the file is missing, damaged, or was not exported by LeanFace.
        BackendError: it is not INT8, or holds something that the kernels do not compute; says what.
    """
    try:
        model = onnx.load_model_from_string(path.read_bytes())
    except FileNotFoundError:
        raise ArtifactError(f"{path} is missing; name another file, or make it with `leanface stage export`.") from None
    except DecodeError as error:
        raise ArtifactError(f"{path} is not an ONNX file ({error}); name another, or export it again.") from None
    names = [value.name for value in model.graph.input], [value.name for value in model.graph.output]
    if names != ([INPUT_NAME], [OUTPUT_NAME]):
        raise ArtifactError(
            f"{path} maps {names[0]} to {names[1]}; expected ['{INPUT_NAME}'] to ['{OUTPUT_NAME}']. "
            "Export it with `leanface stage export`."
        )
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    precision = metadata.get(f"{METADATA_PREFIX}precision", "unknown")
    if precision != "int8":
        raise BackendError(f"{path} holds a network in {precision}; these kernels compute INT8 alone.")
    if metadata.get(f"{METADATA_PREFIX}flavor") == "cpu":
        raise BackendError(f"{path} is of flavor cpu, for processors; these kernels read flavor tensorrt.")
    dimensions = model.graph.input[0].type.tensor_type.shape.dim
    try:
        return _Reader(model.graph).plan(tuple(None if d.dim_param else int(d.dim_value) for d in dimensions))
    except _Unsupported as error:
        raise BackendError(f"the INT8 kernels cannot compute {path}: {error} {SERVES_INSTEAD}") from None


class _Unsupported(Exception):
    """Names what the kernels do not compute."""


@dataclass(frozen=True)
class _Weights:
    values: Int8[np.ndarray, "outputs inputs height width"]
    scale: Float32[np.ndarray, " outputs"]
    name: str


@dataclass(frozen=True)
class _Sum:
    """A convolution's result that no quantizer has rounded yet, and what happened to it since."""

    name: str
    weights: _Weights
    bias: Float32[np.ndarray, " outputs"]
    stride: int
    padding: int
    source: FeatureMap
    residual: FeatureMap | None = None
    relu: bool = False
    pooled: str | None = None
    averaged: bool = False


@dataclass(frozen=True)
class _Pooled:
    """The largest values in the windows of a map that is quantized already."""

    name: str
    source: FeatureMap


@dataclass(frozen=True)
class _Features:
    """The quantized mean features."""

    levels: Levels


@dataclass(frozen=True)
class _Coefficients:
    """Heads in their order."""

    parts: tuple[_Sum, ...]


_Value = FeatureMap | _Weights | _Sum | _Pooled | _Features | _Coefficients


@dataclass
class _Reader:
    """Walks the graph once, in its order; `_values` says what each tensor is."""

    graph: onnx.GraphProto
    _values: dict[str, _Value] = field(default_factory=dict[str, _Value])
    _steps: list[Step] = field(default_factory=list[Step])
    _emitted: dict[str, tuple[Levels, FeatureMap | _Features]] = field(
        default_factory=dict[str, tuple[Levels, FeatureMap | _Features]]
    )

    def __post_init__(self) -> None:
        self._constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in self.graph.initializer}
        self._operators: dict[str, Callable[[onnx.NodeProto], _Value]] = {
            "QuantizeLinear": self._quantize,
            "DequantizeLinear": self._dequantize,
            "Conv": self._convolution,
            "Relu": self._relu,
            "Add": self._add,
            "MaxPool": self._max_pool,
            "GlobalAveragePool": self._average,
            "Concat": self._concatenate,
            "Flatten": self._flatten,
        }

    def plan(self, input_shape: tuple[int | None, ...]) -> Plan:
        for node in self.graph.node:
            if node.op_type == "Identity" and node.input[0] in self._constants:  # of equal constants only one is kept
                self._constants[node.output[0]] = self._constants[node.input[0]]
                continue
            if node.op_type not in self._operators:
                raise _Unsupported(
                    f"it has the operator {node.op_type} ({node.name}); expected {', '.join(self._operators)} alone."
                )
            self._values[node.output[0]] = self._operators[node.op_type](node)
        result = self._values[OUTPUT_NAME]
        image = self._values.get(self._image_tensor())
        if not isinstance(result, _Coefficients) or not isinstance(image, FeatureMap):
            raise _Unsupported("its coefficients are not the concatenated results of 1x1 convolutions.")
        return Plan(image, tuple(self._steps), self._heads(result), input_shape)

    def _image_tensor(self) -> str:
        """What the file's first quantizer makes of the image."""
        return next((node.output[0] for node in self.graph.node if node.input[0] == INPUT_NAME), "")

    def _levels(self, node: onnx.NodeProto) -> Levels:
        """Of a QuantizeLinear or DequantizeLinear of a feature map."""
        scale = self._constants.get(node.input[1])
        zero = self._constants.get(node.input[2]) if len(node.input) > 2 else np.zeros((), np.uint8)
        if scale is None or zero is None or scale.size != 1 or zero.size != 1 or scale.dtype != np.float32:
            raise _Unsupported(f"{node.name} has no constant float32 scale and zero point for the whole feature map.")
        if zero.dtype.name not in ("uint8", "int8"):
            raise _Unsupported(f"{node.name} quantizes to {zero.dtype}, not to 8-bit integers.")
        # uint8 levels are stored 128 lower: the tensor cores multiply int8.
        return Levels(float(scale.item()), int(zero.item()) - (128 if zero.dtype == np.uint8 else 0))

    def _quantize(self, node: onnx.NodeProto) -> _Value:
        levels = self._levels(node)
        source = node.input[0]
        if source == INPUT_NAME:
            return FeatureMap(IMAGE, 3, 1, levels)
        if source in self._emitted:
            known, value = self._emitted[source]
            if known != levels:
                raise _Unsupported(f"{node.name} quantizes a feature map that has another scale elsewhere.")
            return value
        value = self._emit(self._values.get(source), levels, node)
        self._emitted[source] = (levels, value)
        return value

    def _emit(self, value: _Value | None, levels: Levels, node: onnx.NodeProto) -> FeatureMap | _Features:
        """Add the steps that compute a quantized map."""
        if isinstance(value, _Pooled):
            if value.source.levels != levels:
                raise _Unsupported(f"{node.name} changes the scale of a map that was quantized before its pooling.")
            return self._emit_pool(value.name, value.source)
        if not isinstance(value, _Sum):
            raise _Unsupported(f"{node.name} quantizes something else than the image or a convolution's result.")
        if value.averaged:
            self._steps.append(self._finished(value, None))
            return _Features(levels)
        stride = value.source.stride * value.stride
        target = FeatureMap(value.name, len(value.weights.values), stride, levels)
        self._steps.append(self._finished(value, target))
        # Rounding keeps the order of values: the largest level is the largest value's.
        return target if value.pooled is None else self._emit_pool(value.pooled, target)

    def _emit_pool(self, name: str, source: FeatureMap) -> FeatureMap:
        target = replace(source, name=name, stride=2 * source.stride)
        self._steps.append(MaxPool(name, source, target))
        return target

    def _finished(self, value: _Sum, target: FeatureMap | None) -> Convolution:
        return Convolution(
            name=value.name,
            weights=np.ascontiguousarray(value.weights.values.transpose(0, 2, 3, 1)),
            scale=_step(value.source.levels, value.weights.scale),
            bias=value.bias,
            stride=value.stride,
            padding=value.padding,
            relu=value.relu,
            source=value.source,
            residual=value.residual,
            target=target,
        )

    def _dequantize(self, node: onnx.NodeProto) -> _Value:
        name = node.input[0]
        if name in self._constants:
            return self._weights(node)
        value = self._values.get(name)
        if not isinstance(value, (FeatureMap, _Features)) or value.levels != self._levels(node):
            raise _Unsupported(f"{node.name} does not undo the quantization before it.")
        return value

    def _weights(self, node: onnx.NodeProto) -> _Weights:
        values, scale = self._constants[node.input[0]], self._constants.get(node.input[1])
        zero = self._constants.get(node.input[2]) if len(node.input) > 2 else None
        if values.dtype != np.int8 or values.ndim != 4 or (zero is not None and np.any(zero)):
            raise _Unsupported(f"{node.input[0]} is not a symmetric int8 weight of a convolution.")
        axis = _attributes(node).get("axis", 1)
        if scale is None or scale.dtype != np.float32 or (scale.size > 1 and (axis != 0 or len(scale) != len(values))):
            raise _Unsupported(f"{node.input[0]} has no float32 scale for each output channel.")
        return _Weights(values, np.broadcast_to(scale.reshape(-1), len(values)), node.input[0])

    def _convolution(self, node: onnx.NodeProto) -> _Value:
        source, weights = self._values.get(node.input[0]), self._values.get(node.input[1])
        attributes = _attributes(node)
        name = node.input[1] if not isinstance(weights, _Weights) else weights.name
        name = name.partition(".weight")[0]
        if not isinstance(weights, _Weights):
            raise _Unsupported(f"the convolution {name or node.name} is not quantized: its weights are not INT8.")
        if isinstance(source, _Features):
            source = FeatureMap(node.input[0], weights.values.shape[1], 0, source.levels)
        if not isinstance(source, FeatureMap):
            raise _Unsupported(f"the convolution {name} reads a feature map that is not quantized.")
        outputs, inputs, height, width = weights.values.shape
        strides, pads = attributes.get("strides", [1, 1]), attributes.get("pads", [0, 0, 0, 0])
        if attributes.get("group", 1) != 1 or attributes.get("dilations", [1, 1]) != [1, 1]:
            raise _Unsupported(f"the convolution {name} has groups or is dilated.")
        kind = (height, width, tuple(strides), tuple(pads))
        allowed = {
            *((1, 1, (stride, stride), (0, 0, 0, 0)) for stride in (1, 2)),
            *((3, 3, (stride, stride), (1, 1, 1, 1)) for stride in (1, 2)),
        }
        if source.name == IMAGE:
            allowed = {(7, 7, (2, 2), (3, 3, 3, 3))}
        if kind not in allowed or inputs != source.channels:
            raise _Unsupported(
                f"the convolution {name} has a kernel of {height}x{width}, strides {strides} and padding {pads}, over "
                f"{inputs} channels: expected 7x7 at stride 2 on the image, 1x1 or 3x3 at stride 1 or 2 elsewhere."
            )
        bias = self._constants[node.input[2]] if len(node.input) > 2 else np.zeros(outputs, np.float32)
        if bias.dtype != np.float32 or bias.shape != (outputs,):
            raise _Unsupported(f"the bias of the convolution {name} is {bias.dtype} {bias.shape}, not float32.")
        return _Sum(name, weights, bias, int(strides[0]), int(pads[0]), source)

    def _relu(self, node: onnx.NodeProto) -> _Value:
        value = self._sum(node)
        if value.pooled is not None or value.averaged:
            raise _Unsupported(f"{node.name}: ReLU follows a pooling.")
        return replace(value, relu=True)

    def _add(self, node: onnx.NodeProto) -> _Value:
        first, second = (self._values.get(name) for name in node.input)
        if isinstance(second, FeatureMap):
            first, second = second, first
        if not isinstance(first, FeatureMap) or not isinstance(second, _Sum):
            raise _Unsupported(f"{node.name} adds other things than a quantized feature map and a convolution.")
        if second.residual is not None or second.relu or second.pooled is not None or second.averaged:
            raise _Unsupported(f"{node.name} adds to more than a convolution's own result.")
        if first.channels != len(second.weights.values) or first.stride != second.source.stride * second.stride:
            raise _Unsupported(f"{node.name} adds feature maps of different sizes.")
        return replace(second, residual=first)

    def _max_pool(self, node: onnx.NodeProto) -> _Value:
        attributes = _attributes(node)
        kind = [attributes.get(key) for key in ("kernel_shape", "strides", "pads")]
        if kind != [[3, 3], [2, 2], [1, 1, 1, 1]] or attributes.get("ceil_mode", 0):
            raise _Unsupported(f"{node.name} pools otherwise than 3x3 at stride 2 with padding 1.")
        value = self._values.get(node.input[0])
        if isinstance(value, FeatureMap):
            return _Pooled(node.name, value)
        value = self._sum(node)
        if value.pooled is not None or value.averaged or value.residual is not None:
            raise _Unsupported(f"{node.name} pools what was pooled or added to already.")
        return replace(value, pooled=node.name)

    def _average(self, node: onnx.NodeProto) -> _Value:
        value = self._sum(node)
        if value.pooled is not None or value.averaged:
            raise _Unsupported(f"{node.name} averages what was pooled already.")
        return replace(value, averaged=True)

    def _sum(self, node: onnx.NodeProto) -> _Sum:
        """The convolution's result that a node reads."""
        value = self._values.get(node.input[0])
        if not isinstance(value, _Sum):
            raise _Unsupported(f"{node.op_type} ({node.name}) does not follow a convolution.")
        return value

    def _concatenate(self, node: onnx.NodeProto) -> _Value:
        parts = [self._values.get(name) for name in node.input]
        heads = tuple(part for part in parts if isinstance(part, _Sum) and part.source.stride == 0)
        if len(heads) != len(parts) or _attributes(node).get("axis") != 1 or any(head.relu for head in heads):
            raise _Unsupported(f"{node.name} joins other things than the heads' results.")
        return _Coefficients(heads)

    def _flatten(self, node: onnx.NodeProto) -> _Value:
        value = self._values.get(node.input[0])
        if not isinstance(value, _Coefficients):
            raise _Unsupported(f"{node.name} does not follow the heads.")
        return value

    def _heads(self, result: _Coefficients) -> Heads:
        levels = {head.source.levels for head in result.parts}
        if len(levels) != 1 or any(head.weights.values.shape[2:] != (1, 1) for head in result.parts):
            raise _Unsupported("the heads read differently quantized features, or are not 1x1 convolutions.")
        (shared,) = levels
        scale = np.concatenate([head.weights.scale for head in result.parts])
        return Heads(
            levels=shared,
            weights=np.concatenate([head.weights.values[:, :, 0, 0] for head in result.parts]),
            scale=_step(shared, scale),
            bias=np.concatenate([head.bias for head in result.parts]),
        )


def _step(levels: Levels, weights_scale: Float32[np.ndarray, " outputs"]) -> Float32[np.ndarray, " outputs"]:
    return (levels.scale * weights_scale.astype(np.float64)).astype(np.float32)


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    values: Sequence[onnx.AttributeProto] = node.attribute
    return {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in values}
