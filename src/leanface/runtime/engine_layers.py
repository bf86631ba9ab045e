"""What a built engine really consists of: its kernels, read from the builder's own log. Needs no GPU.

The network that the parser reads says little about them: a library fuses layers, or splits one into several kernels.
"""

import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import onnx

KERNEL = re.compile(
    r"^\s*Name: (?P<name>.*?), LayerType: (?P<kind>\w+), Inputs: \[(?P<reads>.*?)\], Constants: \[.*?\], "
    r"Outputs: \[(?P<writes>.*?)\], TacticName: .*?, StreamId: \d+, (?:EventId: \d+, )?Metadata: (?P<nodes>.*)$"
)
"""A line of TensorRT-RTX's list, written at profiling verbosity DETAILED."""

TENSOR = re.compile(r"Name: (?P<name>[^,]*), Dimensions: \[(?P<shape>[-\d,]*)\], .*?Datatype: (?P<dtype>\w+)")

NODE = re.compile(r"\[ONNX Layer: (.*?)\]")

CONVOLUTIONS = ("correlation", "convolution", "runtime_fusion")
"""The library's names for their kernels; the last is compiled on the GPU, with more fused into it."""

ELEMENTWISE = ("Relu", "Add", "QuantizeLinear", "DequantizeLinear", "Mul", "Clip")
"""ONNX operators that a convolution can do on its result before it writes it."""

SIZES_BYTES = {"Float": 4, "Half": 2, "BFloat16": 2, "Int8": 1, "UInt8": 1, "Int32": 4, "Int64": 8, "Bool": 1}


class TensorInfo(NamedTuple):
    """What a kernel reads or writes; the first dimension is -1 for each image of a batch."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def bytes_per_image(self) -> int | None:
        """None: it is not per image, or its size varies otherwise too."""
        if not self.shape or self.shape[0] != -1 or min(self.shape[1:], default=1) < 0 or self.dtype not in SIZES_BYTES:
            return None
        return SIZES_BYTES[self.dtype] * math.prod(self.shape[1:])


class Kernel(NamedTuple):
    """One of an engine's kernels, and the ONNX nodes that it computes."""

    name: str
    kind: str
    reads: tuple[TensorInfo, ...]
    writes: tuple[TensorInfo, ...]
    nodes: tuple[str, ...]


@dataclass(frozen=True)
class EngineLayers:
    """An engine's kernels, summed up.

    Attributes:
        kernels: how many of each kind, by what they read and write: {"correlation": {"Half to Half": 60}}.
        convolutions: how many kernels are convolutions.
        unfused: those whose result is read by a kernel of its own that adds, clips or requantizes it.
        bytes_per_image: of feature maps that are read and written, by all kernels together; None: they vary.
    """

    kernels: dict[str, dict[str, int]]
    convolutions: int
    unfused: int
    bytes_per_image: int | None


def read_kernels(log: Iterable[str]) -> list[Kernel]:
    """Return the kernels that a builder's log lists, those that compute nothing left out."""
    kernels: list[Kernel] = []
    for line in (line for message in log for line in message.splitlines()):
        if (found := KERNEL.match(line)) and found["writes"]:
            reads, writes = _tensors(found["reads"]), _tensors(found["writes"])
            kernels.append(Kernel(found["name"], found["kind"], reads, writes, tuple(NODE.findall(found["nodes"]))))
    return kernels


def sum_up(kernels: Sequence[Kernel], operators: Mapping[str, str]) -> EngineLayers:
    """Count, and find convolutions that are not fused.

    Args:
        operators: each ONNX node's operator, by its name; `operators_of` reads them.
    """
    counts: dict[str, Counter[str]] = {}
    for kernel in kernels:
        types = f"{_types(kernel.reads) or 'constants'} to {_types(kernel.writes)}"
        counts.setdefault(kernel.kind, Counter())[types] += 1
    convolutions = [kernel for kernel in kernels if kernel.kind in CONVOLUTIONS]
    finished_apart = {
        tensor.name
        for kernel in kernels
        if kernel.kind not in CONVOLUTIONS and any(operators.get(node) in ELEMENTWISE for node in kernel.nodes)
        for tensor in kernel.reads
    }
    unfused = [kernel for kernel in convolutions if any(tensor.name in finished_apart for tensor in kernel.writes)]
    return EngineLayers(
        kernels={kind: dict(types) for kind, types in sorted(counts.items())},
        convolutions=len(convolutions),
        unfused=len(unfused),
        bytes_per_image=_bytes_per_image([tensor for kernel in kernels for tensor in (*kernel.reads, *kernel.writes)]),
    )


def operators_of(model: onnx.ModelProto) -> dict[str, str]:
    """Return each node's operator, by its name."""
    return {node.name: node.op_type for node in model.graph.node}


def _tensors(text: str) -> tuple[TensorInfo, ...]:
    return tuple(
        TensorInfo(found["name"], tuple(int(length) for length in found["shape"].split(",") if length), found["dtype"])
        for found in TENSOR.finditer(text)
    )


def _types(tensors: Collection[TensorInfo]) -> str:
    return " and ".join(sorted({tensor.dtype for tensor in tensors}))


def _bytes_per_image(tensors: Sequence[TensorInfo]) -> int | None:
    sizes = [tensor.bytes_per_image for tensor in tensors if tensor.shape[:1] == (-1,)]
    known = [size for size in sizes if size is not None]
    return sum(known) if known and len(known) == len(sizes) else None
