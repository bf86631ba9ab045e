"""What is exported: the network as inference needs it, each batch norm folded into the convolution before it."""

import copy

import torch
from torch import Tensor, nn

from leanface.networks.resnet import batch_norm_of


@torch.no_grad()
def inference_form(network: nn.Module) -> nn.Module:
    """A copy in eval mode that computes the same function without batch norms.

    With k the batch norm's gain over its standard deviation, per output channel, a convolution's weights become
    W k; a quantised one's range becomes amax |k|, so that the 8-bit integers round(127 W / amax) stay what they were,
    up to their sign.
    """
    folded = copy.deepcopy(network).cpu().eval()
    for name, conv in list(folded.named_modules()):
        norm_name = batch_norm_of(name)
        if not isinstance(conv, nn.Conv2d) or norm_name is None:
            continue
        norm = folded.get_submodule(norm_name)
        assert isinstance(norm, nn.BatchNorm2d)
        gain, shift = _affine(norm)
        conv.weight.mul_(gain[:, None, None, None])
        conv.bias = nn.Parameter(shift if conv.bias is None else conv.bias * gain + shift)
        quantizer = getattr(conv, "weight_quantizer", None)
        if quantizer is not None:
            quantizer.amax = quantizer.amax * gain.abs()[:, None, None, None]
        folded.set_submodule(norm_name, nn.Identity())
    return folded


def _affine(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Gain and shift (C,) of a batch norm in eval mode."""
    assert norm.running_mean is not None and norm.running_var is not None
    gain = norm.weight / (norm.running_var + norm.eps).sqrt()
    return gain, norm.bias - norm.running_mean * gain
