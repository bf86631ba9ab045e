"""Rounds weights to 8 bits so that a layer's responses change least, in closed form.

Front to back, every quantized layer's weights are rounded one input at a time, and the weights that are still to be
rounded make up for each error, as far as the inputs of the calibration images go together (GPTQ). What the errors
shift the mean response by goes into the batch norm behind the layer, or into its bias.

Source: Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers", ICLR 2023
(arXiv:2210.17323); Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019
(arXiv:1906.04721).
"""

from typing import Any, NamedTuple, cast

import torch
from jaxtyping import Float
from torch import Tensor, fx, nn

from leanface.networks.graph import LAYERS, NORMS, trace
from leanface.networks.layer_inputs import Chunks, Layer, can_unfold, compute_chunks, in_chunks, patches_of

DAMPING = 0.01
"""Added to the inputs' variances, relative to their mean: rare inputs must not decide."""

MANY_POSITIONS, STRIDE = 100, 11
"""Of layers with so many output positions in an image every eleventh one counts: neighbors say the same."""

BLOCK = 128
"""Inputs whose errors are passed on to all others at once, for speed; the result does not depend on it."""

LEVELS = 127


class _Inputs(NamedTuple):
    """First and second moments of what a layer multiplies with its weights, for each group of channels."""

    mean: Float[Tensor, "groups inputs"]
    covariance: Float[Tensor, "groups inputs inputs"]


@torch.no_grad()
def round_weights(network: nn.Module, images: Float[Tensor, "batch 3 height width"]) -> None:
    """Round the weights of a calibrated network, in place, and correct the means of its responses.

    All ranges stay. Layers whose weights are not quantized stay as they are, as do those with another padding than
    zeros; their weights are rounded to the nearest level when the network is computed.

    Args:
        network: fake-quantized, in eval mode; see `leanface.quantization.fake_quantize`.
        images: calibration images in [0,1].
    """
    graph = trace(network)
    values: dict[fx.Node, Chunks] = {graph.nodes[0]: in_chunks(images)}
    for node in graph.nodes[1:-1]:
        name = str(node.target)
        if name in graph.layers:
            layer = cast(Any, network.get_submodule(name))
            if layer.weight_quantizer.is_enabled and can_unfold(layer):
                norm = network.get_submodule(graph.norms[name]) if name in graph.norms else None
                _round_layer(layer, norm, values[node.all_input_nodes[0]])
        values[node] = compute_chunks(graph, node, values, network)
        for dead in graph.dead_after[node]:
            del values[dead]


def _round_layer(layer: Any, norm: nn.Module | None, x: Chunks) -> None:
    inputs = _moments(layer, x)
    groups, count = inputs.mean.shape
    weights = layer.weight.reshape(groups, -1, count)
    # A single channel's range is a scalar.
    step = layer.weight_quantizer.amax.reshape(-1).expand(len(layer.weight)).reshape(groups, -1, 1) / LEVELS
    shifts = norm is not None or layer.bias is not None
    # Where nothing can take up a shift, the mean is one more thing that the weights must keep.
    about = inputs.covariance if shifts else inputs.covariance + inputs.mean[:, :, None] * inputs.mean[:, None, :]
    rounded = round_with_feedback(weights, step, about)
    shift = ((rounded - weights) @ inputs.mean[:, :, None].to(weights)).flatten()
    layer.weight.copy_(rounded.reshape(layer.weight.shape))
    if norm is not None:
        assert isinstance(norm, NORMS)
        assert norm.running_mean is not None
        norm.running_mean += shift
    elif layer.bias is not None:
        layer.bias -= shift


def _moments(layer: Any, x: Chunks) -> _Inputs:
    """Sum up over all images; products are FP32, of centered inputs, and their sums FP64."""
    assert isinstance(layer, LAYERS)
    groups = layer.groups if isinstance(layer, nn.Conv2d) else 1
    count = layer.weight[0].numel()
    gram = torch.zeros(groups, count, count, dtype=torch.float64, device=layer.weight.device)
    total, rows, center = gram.new_zeros(groups, count), 0, None
    for chunk in x:
        patches = _sampled_patches(layer, chunk).reshape(-1, groups, count).transpose(0, 1)
        center = patches.mean(dim=1, keepdim=True) if center is None else center
        patches = patches - center
        gram += patches.mT @ patches
        total += patches.sum(dim=1)
        rows += patches.shape[1]
    assert center is not None
    mean = total / rows
    return _Inputs(mean + center[:, 0], gram / rows - mean[:, :, None] * mean[:, None, :])


def _sampled_patches(layer: Layer, x: Tensor) -> Float[Tensor, "rows inputs"]:
    quantized: Tensor = cast(Any, layer).input_quantizer(x)
    patches = patches_of(layer, quantized)
    return patches[::STRIDE] if len(patches) >= MANY_POSITIONS * len(x) else patches


def round_with_feedback(
    weights: Float[Tensor, "groups outputs inputs"],
    step: Float[Tensor, "groups outputs 1"],
    covariance: Float[Tensor, "groups inputs inputs"],
) -> Float[Tensor, "groups outputs inputs"]:
    """Round weights to at most `LEVELS` times `step`, so that (rounded - weights) @ inputs varies least.

    Inputs that vary most are rounded first, while most others can still make up for it.

    Args:
        covariance: of the inputs.
    """
    count = weights.shape[-1]
    diagonal = covariance.diagonal(dim1=1, dim2=2)
    order = diagonal.argsort(dim=1, descending=True)
    # The smallest normal number keeps the system regular where all inputs are constant.
    damping = (DAMPING * diagonal.mean(dim=1) + torch.finfo(torch.float32).tiny)[:, None, None]
    identity = torch.eye(count, dtype=covariance.dtype, device=covariance.device)
    damped = covariance + damping * identity
    damped = damped.gather(1, order[:, :, None].expand_as(damped)).gather(2, order[:, None, :].expand_as(damped))
    # Row i of the inverse's upper Cholesky factor says how the inputs behind i make up for an error of input i (section
    # 3.3 of the paper). Reversed, it is the inverse of a lower one.
    factor = cast(Tensor, torch.linalg.cholesky(damped.flip(1, 2)))
    inverse = cast(Tensor, torch.linalg.solve_triangular(factor, identity.expand_as(factor), upper=False))
    feedback = inverse.flip(1, 2).to(weights)
    places = order[:, None, :].expand_as(weights)
    left, rounded = weights.gather(2, places), torch.empty_like(weights)
    for start in range(0, count, BLOCK):
        stop = min(start + BLOCK, count)
        errors = torch.empty_like(left[:, :, start:stop])
        for index in range(start, stop):
            column = left[:, :, index : index + 1]
            rounded[:, :, index : index + 1] = nearest = (column / step).round().clamp(-LEVELS, LEVELS) * step
            error = (column - nearest) / feedback[:, index, index, None, None]
            left[:, :, index + 1 : stop] -= error * feedback[:, index, None, index + 1 : stop]
            errors[:, :, index - start] = error[:, :, 0]
        left[:, :, stop:] -= errors @ feedback[:, start:stop, stop:]
    return torch.empty_like(weights).scatter_(2, places, rounded)
