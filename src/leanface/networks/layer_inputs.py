"""What each layer reads, layer by layer over all images at a time: what closed-form corrections are computed from."""

from collections.abc import Mapping
from typing import cast

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, fx, nn

from leanface.networks.graph import Graph

CHUNK = 32
"""Images that pass through a layer at once: few enough for the allocator to reuse their maps' memory."""

Chunks = list[Tensor]
"""Feature maps of all images, (B,C,H,W) or (B,C) each."""

Layer = nn.Conv2d | nn.Linear


def in_chunks(images: Float[Tensor, "batch 3 height width"]) -> Chunks:
    """Divide images as `compute_chunks` takes them."""
    return [images[start : start + CHUNK] for start in range(0, len(images), CHUNK)]


def compute_chunks(graph: Graph, node: fx.Node, values: Mapping[fx.Node, Chunks], network: nn.Module) -> Chunks:
    """Compute a node for all images, from the values of those that it reads; see `Graph.compute`."""
    reads = node.all_input_nodes
    return [
        graph.compute(node, dict(zip(reads, chunks, strict=True)), network)
        for chunks in zip(*(values[read] for read in reads), strict=True)
    ]


def can_unfold(layer: Layer) -> bool:
    """Tell whether `patches_of` knows the layer's padding: a number of zeros."""
    return isinstance(layer, nn.Linear) or (layer.padding_mode == "zeros" and not isinstance(layer.padding, str))


def patches_of(layer: Layer, x: Tensor) -> Float[Tensor, "rows inputs"]:
    """Return what the layer multiplies with its weights, one row per output position; groups lie side by side."""
    if isinstance(layer, nn.Linear):
        return x
    stride, padding = cast(tuple[int, int], layer.stride), cast(tuple[int, int], layer.padding)
    if layer.kernel_size == (1, 1) and padding == (0, 0):
        return x[:, :, :: stride[0], :: stride[1]].permute(0, 2, 3, 1).reshape(-1, layer.in_channels)
    kernel, dilation = cast(tuple[int, int], layer.kernel_size), cast(tuple[int, int], layer.dilation)
    unfolded = F.unfold(x, kernel, dilation=dilation, padding=padding, stride=stride)
    return unfolded.transpose(1, 2).reshape(-1, unfolded.shape[1])
