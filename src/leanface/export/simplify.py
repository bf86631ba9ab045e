"""A traced graph without what the tracer leaves behind."""

from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs

Tensor = Any
Node = Any
Graph = Any
"""onnx-graphsurgeon's; it has no annotations."""


def simplify_graph(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the same function with no casts, every constant an initializer held once, and short tensor names.

    The model must compute in float32 throughout, as a traced network does: then each cast is from float32 to
    float32.
    """
    graph: Graph = gs.import_onnx(model)
    for cast in [node for node in graph.nodes if node.op == "Cast"]:
        replace_tensor(cast.outputs[0], cast.inputs[0])
        cast.outputs.clear()
    held: dict[tuple[str, tuple[int, ...], bytes], Tensor] = {}
    for node in [node for node in graph.nodes if node.op == "Constant"]:
        value = np.asarray(node.attrs["value"].values)
        key = (value.dtype.str, value.shape, value.tobytes())
        held.setdefault(key, gs.Constant(f"constant{len(held)}", value))
        replace_tensor(node.outputs[0], held[key])
        node.outputs.clear()
    graph.cleanup().toposort()
    ends = {tensor.name for tensor in (*graph.inputs, *graph.outputs)}
    variables: list[Tensor] = [t for t in graph.tensors().values() if isinstance(t, gs.Variable) and t.name not in ends]
    for index, tensor in enumerate(variables):
        tensor.name = f"t{index}"
    return gs.export_onnx(graph)


def replace_tensor(old: Tensor, new: Tensor) -> None:
    """Let every reader of `old` read `new`."""
    for reader in list(old.outputs):
        reader.inputs = [new if tensor is old else tensor for tensor in reader.inputs]
