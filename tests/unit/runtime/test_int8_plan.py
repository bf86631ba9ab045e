"""What is read of an INT8 file, and what is refused by name."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from leanface.errors import ArtifactError, BackendError
from leanface.runtime.int8.plan import Convolution, MaxPool, Plan, read_plan


@pytest.fixture(scope="module")
def plan(exported) -> Plan:
    return read_plan(exported.int8)


def test_each_convolution_of_the_file_is_one_step_with_all_that_follows_it(plan: Plan, exported) -> None:
    operators = [node.op_type for node in onnx.load(exported.int8).graph.node]
    convolutions = [step for step in plan.steps if isinstance(step, Convolution)]
    assert len(convolutions) == operators.count("Conv") - 7, "the heads are apart"
    assert sum(step.relu for step in convolutions) == operators.count("Relu")
    assert sum(step.residual is not None for step in convolutions) == operators.count("Add")
    assert sum(isinstance(step, MaxPool) for step in plan.steps) == 1
    assert [step.target is None for step in convolutions] == [False] * (len(convolutions) - 1) + [True]
    assert plan.heads.weights.shape == (257, convolutions[-1].weights.shape[0])
    assert plan.input_shape == (None, 3, None, None)


def test_weights_and_scales_are_the_file_s_own(plan: Plan, exported) -> None:
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(exported.int8).graph.initializer}
    for step in plan.steps:
        if isinstance(step, Convolution):
            assert np.array_equal(step.weights.transpose(0, 3, 1, 2), constants[f"{step.name}.weight.int8"])
            assert np.array_equal(step.bias, constants[f"{step.name}.bias"])
            exact = constants[f"{step.name}.weight.scale"].astype(np.float64) * step.source.levels.scale
            assert np.allclose(step.scale, exact, rtol=1e-7)


def test_only_what_a_projection_hands_on_can_be_negative(plan: Plan) -> None:
    zeros = {step.target.name: step.target.levels.zero for step in plan.steps if step.target is not None}
    signed = {name for name, zero in zeros.items() if zero == 0}
    assert signed == {f"backbone.layer{stage}.0.downsample.0" for stage in range(1, 5)}
    assert set(zeros.values()) == {0, -128}, "uint8 levels are stored 128 lower"


def test_another_precision_is_refused(exported) -> None:
    with pytest.raises(BackendError, match="fp32; these kernels compute INT8 alone"):
        read_plan(exported.fp32)


def _named(graph: onnx.GraphProto, kind: str, index: int = 0) -> onnx.NodeProto:
    return [node for node in graph.node if node.op_type == kind][index]


def _another_operator(graph: onnx.GraphProto) -> None:
    _named(graph, "Relu", 3).op_type = "Sigmoid"


def _groups(graph: onnx.GraphProto) -> None:
    for attribute in _named(graph, "Conv", 2).attribute:
        if attribute.name == "group":
            attribute.i = 2


def _stride(graph: onnx.GraphProto) -> None:
    for attribute in _named(graph, "Conv", 4).attribute:
        if attribute.name == "strides":
            attribute.ints[:] = [3, 3]


def _pooling(graph: onnx.GraphProto) -> None:
    for attribute in _named(graph, "MaxPool").attribute:
        if attribute.name == "kernel_shape":
            attribute.ints[:] = [2, 2]


def _sixteen_bits(graph: onnx.GraphProto) -> None:
    graph.initializer.append(numpy_helper.from_array(np.zeros((), np.int16), "zero_int16"))
    for kind in ("QuantizeLinear", "DequantizeLinear"):
        next(node for node in graph.node if node.op_type == kind and len(node.input) == 3).input[2] = "zero_int16"


def _a_head_that_is_not_quantized(graph: onnx.GraphProto) -> None:
    dequantize = next(n for n in graph.node if n.input[0] == "final_layers.3.weight.int8")
    name = dequantize.output[0]
    graph.node.remove(dequantize)
    graph.initializer.append(numpy_helper.from_array(np.zeros((3, 512, 1, 1), np.float32), name))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_another_operator, "the operator Sigmoid"),
        (_groups, "groups"),
        (_stride, r"strides \[3, 3\]"),
        (_pooling, "3x3 at stride 2"),
        (_sixteen_bits, "int16"),
        (_a_head_that_is_not_quantized, "not quantized: its weights are not INT8"),
    ],
)
def test_what_the_kernels_do_not_compute_is_named_with_what_serves_instead(
    change: Callable[[onnx.GraphProto], None], message: str, exported, tmp_path: Path
) -> None:
    model = onnx.load(exported.int8)
    change(model.graph)
    onnx.save(model, tmp_path / "changed.onnx")
    with pytest.raises(BackendError, match=rf"(?s)cannot compute \S+changed\.onnx: .*{message}.*openvino"):
        read_plan(tmp_path / "changed.onnx")


def test_a_stranger_s_file_and_a_damaged_one_are_refused(exported, tmp_path: Path) -> None:
    content = exported.int8.read_bytes()
    (tmp_path / "half.onnx").write_bytes(content[: len(content) // 2])
    with pytest.raises(ArtifactError, match=r"half\.onnx is not an ONNX file"):
        read_plan(tmp_path / "half.onnx")
    model = onnx.load(exported.int8)
    model.graph.output[0].name = model.graph.node[-1].output[0] = "logits"
    onnx.save(model, tmp_path / "stranger.onnx")
    with pytest.raises(ArtifactError, match="logits"):
        read_plan(tmp_path / "stranger.onnx")
    with pytest.raises(ArtifactError, match="missing"):
        read_plan(tmp_path / "nothing.onnx")


def test_a_zero_point_that_is_not_at_an_end_is_taken_as_it_is(exported, tmp_path: Path) -> None:
    """As other quantizers write it; LeanFace's own files have none."""
    model = onnx.load(exported.int8)
    quantize = _named(model.graph, "QuantizeLinear", 2)
    model.graph.initializer.append(numpy_helper.from_array(np.array(7, np.uint8), "seven"))
    dequantize = next(node for node in model.graph.node if node.input[0] == quantize.output[0])
    quantize.input[2] = dequantize.input[2] = "seven"
    onnx.save(model, tmp_path / "seven.onnx")
    zeros = [step.target.levels.zero for step in read_plan(tmp_path / "seven.onnx").steps if step.target is not None]
    assert zeros.count(7 - 128) == 1
