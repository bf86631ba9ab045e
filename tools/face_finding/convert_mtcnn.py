"""Convert facenet-pytorch's MTCNN to ONNX.

    pip download facenet-pytorch==2.6.0 --no-deps
    unzip facenet_pytorch-2.6.0-py3-none-any.whl 'facenet_pytorch/data/*'
    python -m tools.face_finding.convert_mtcnn facenet_pytorch/data src/leanface/assets/faces

The files take RGB pixels, minus 127.5 and divided by 128, as float32 (batch, 3, height, width). Their outputs are the
probabilities of (no face, face), offsets of the box's edges, and of the last network five x and five y of landmarks, in
units of the square that it saw.
"""

import argparse
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from tools.face_finding.prelu import prelu, rest_of

OPSET, IR_VERSION = 17, 8


class Layout(NamedTuple):
    """What a network's tensors do not say.

    Attributes:
        target: name of its file.
        side: of the square that it sees; None: any, it is fully convolutional.
        windows: pooling window after each convolution.
        outputs: of its heads.
    """

    target: str
    side: int | None
    windows: tuple[int | None, ...]
    outputs: tuple[str, ...]


NETWORKS = {
    "pnet": Layout("proposal", None, (2, None, None), ("scores", "offsets")),
    "rnet": Layout("refine", 24, (3, 3, None), ("scores", "offsets")),
    "onet": Layout("output", 48, (3, 3, 2, None), ("scores", "offsets", "points")),
}
"""By the source file's name."""

FEATURES_PX = 3
"""Side of the feature map that dense layers read."""


class Graph:
    """Collects the nodes of one network, whose layers follow one another."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def store(self, array: np.ndarray) -> str:
        """The name of a new initializer."""
        name = f"weight{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(array, np.float32), name))
        return name

    def add(self, kind: str, inputs: list[str], target: str = "", **attributes: Any) -> str:
        """The name of a new node's output."""
        target = target or f"{kind.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [target], **attributes))
        return target

    def activate(self, source: str, slope: np.ndarray) -> str:
        """PReLU by channels."""
        target = f"prelu{len(self.nodes)}"
        self.nodes += prelu(source, self.store(slope), self.store(rest_of(slope)), target)
        return target


def convert(tensors: list[np.ndarray], layout: Layout) -> onnx.ModelProto:
    """Build one network from its tensors, which are in the order of its layers."""
    _, side, windows, outputs = layout
    graph, weights, at = Graph(), iter(tensors), "pixels"
    for window in windows:
        at = graph.add("Conv", [at, graph.store(next(weights)), graph.store(next(weights))])
        at = graph.activate(at, next(weights).reshape(-1, 1, 1))
        if window is not None:
            at = graph.add("MaxPool", [at], kernel_shape=[window, window], strides=[2, 2], ceil_mode=1)
    if side is not None:
        dense = next(weights)
        # There, features were flattened as (width, height, channel); Flatten reverses the order.
        dense = dense.reshape(len(dense), FEATURES_PX, FEATURES_PX, -1).transpose(0, 3, 2, 1).reshape(len(dense), -1)
        at = graph.add("Gemm", [graph.add("Flatten", [at]), graph.store(dense), graph.store(next(weights))], transB=1)
        at = graph.activate(at, next(weights))
    for name in outputs:
        inputs = [at, graph.store(next(weights)), graph.store(next(weights))]
        if name == "scores":
            logits = graph.add("Conv", inputs) if side is None else graph.add("Gemm", inputs, transB=1)
            graph.add("Softmax", [logits], name, axis=1)
        elif side is None:
            graph.add("Conv", inputs, name)
        else:
            graph.add("Gemm", inputs, name, transB=1)
    assert next(weights, None) is None
    shape = ["batch", 3, side or "height", side or "width"]
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "mtcnn",
            [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
            graph.initializers,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    model = onnx.shape_inference.infer_shapes(model)
    del model.graph.value_info[:]
    onnx.checker.check_model(model)
    return model


def main() -> None:
    """Convert each network of NETWORKS."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="the folder of pnet.pt, rnet.pt and onet.pt")
    parser.add_argument("target", type=Path, help="the folder to write the .onnx files into")
    arguments = parser.parse_args()
    arguments.target.mkdir(parents=True, exist_ok=True)
    for source, layout in NETWORKS.items():
        state = torch.load(arguments.source / f"{source}.pt", weights_only=True)
        model = convert([tensor.numpy() for tensor in state.values()], layout)
        onnx.save(model, arguments.target / f"mtcnn_{layout.target}.onnx")


if __name__ == "__main__":
    main()
