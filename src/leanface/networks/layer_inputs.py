"""What each layer reads, layer by layer over all images at a time: what closed-form corrections are computed from."""

from collections.abc import Mapping
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
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
    """Compute a node for all images, from the values of those that it reads; see `Graph.compute`.

    What no later node reads is emptied chunk by chunk, so that the maps of two layers are never there at once.
    """
    reads, results = node.all_input_nodes, Chunks()
    for index in range(len(values[reads[0]])):
        results.append(graph.compute(node, {read: values[read][index] for read in reads}, network))
        for dead in graph.dead_after[node]:
            values[dead][index] = results[-1].new_empty(0)
    return results


def can_unfold(layer: Layer) -> bool:
    """Tell whether `patches_of` knows the layer's padding: a number of zeros."""
    return isinstance(layer, nn.Linear) or (layer.padding_mode == "zeros" and not isinstance(layer.padding, str))


def patches_of(
    layer: Layer, x: Tensor, positions: Int64[Tensor, " rows_of_one"] | None = None
) -> Float[Tensor, "rows inputs"]:
    """Return what the layer multiplies with its weights, one row per output position; groups lie side by side.

    Args:
        positions: those of each output map that are wanted, counted row by row; all by default.
    """
    if isinstance(layer, nn.Linear):
        return x
    stride, padding = cast(tuple[int, int], layer.stride), cast(tuple[int, int], layer.padding)
    if layer.kernel_size == (1, 1) and padding == (0, 0):
        return rows_of(x[:, :, :: stride[0], :: stride[1]], positions)
    kernel, dilation = cast(tuple[int, int], layer.kernel_size), cast(tuple[int, int], layer.dilation)
    if positions is None:
        unfolded = F.unfold(x, kernel, dilation=dilation, padding=padding, stride=stride)
        return unfolded.transpose(1, 2).reshape(-1, unfolded.shape[1])
    padded = F.pad(x, (padding[1], padding[1], padding[0], padding[0]))
    width = (padded.shape[3] - dilation[1] * (kernel[1] - 1) - 1) // stride[1] + 1
    offsets = [torch.arange(size, device=x.device) * step for size, step in zip(kernel, dilation, strict=True)]
    rows = (positions // width * stride[0])[:, None, None] + offsets[0][:, None]
    columns = (positions % width * stride[1])[:, None, None] + offsets[1][None, :]
    return padded[:, :, rows, columns].transpose(1, 2).reshape(len(x) * len(positions), -1)


def rows_of(maps: Tensor, positions: Int64[Tensor, " rows_of_one"] | None = None) -> Float[Tensor, "rows channels"]:
    """Return one row per image and position of feature maps (B,C,H,W), or per image of vectors (B,C)."""
    if maps.ndim == 2:
        return maps
    chosen = maps.flatten(2) if positions is None else maps.flatten(2)[:, :, positions]
    return chosen.transpose(1, 2).reshape(-1, maps.shape[1])
