"""The network as inference needs it: batch norms folded into the convolutions."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from leanface.networks.resnet import batch_norm_of, widths_of


@torch.no_grad()
def inference_form(network: nn.Module) -> nn.Module:
    """A copy in eval mode that computes the same function without batch norms.

    With k the batch norm's weight over its standard deviation, per output channel, a convolution's weights W
    become W k. A quantised one's range becomes amax |k|, so that the 8-bit numbers, round(127 W / amax) in INT8, stay
    what they were, up to their sign.
    """
    folded = copy.deepcopy(network).cpu().eval()
    for name in widths_of(folded):
        conv, norm_name = folded.get_submodule(name), batch_norm_of(name)
        if norm_name is None:  # a head
            continue
        assert isinstance(conv, nn.Conv2d)
        norm = folded.get_submodule(norm_name)
        assert isinstance(norm, nn.BatchNorm2d)
        gain, shift = _affine(norm)
        conv.weight.mul_(gain[:, None, None, None])
        conv.bias = nn.Parameter(shift if conv.bias is None else conv.bias * gain + shift)
        quantizer: Any = getattr(conv, "weight_quantizer", None)
        if quantizer is not None and quantizer.is_enabled:
            quantizer.amax = quantizer.amax * gain.abs()[:, None, None, None]
        folded.set_submodule(norm_name, nn.Identity())
    return folded


def _affine(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Gain and shift (C,) of a batch norm in eval mode."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    gain = norm.weight / (norm.running_var + norm.eps).sqrt()
    return gain, norm.bias - norm.running_mean * gain
