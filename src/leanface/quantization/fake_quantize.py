"""Post-training quantisation: fake-quantise a network and calibrate its ranges on images that it will see."""

from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from leanface.networks.quantized import Quantizer, add_quantizers, quantizers_of
from leanface.networks.resnet import FaceReconstructionNet


def fake_quantize(
    network: FaceReconstructionNet,
    images: Float[Tensor, "count 3 height width"],
    quantizer: Quantizer,
    batch_size: int = 16,
) -> nn.Module:
    """Insert quantisers, in place, and set each one's range to the largest magnitude that it meets.

    A weight's range is that of its output channel; an activation's that of the whole tensor over all images.
    The network is returned in eval mode; quantisation-aware training goes on from here with the ranges fixed.

    Raises:
        ValueError: there is no image, or one is not finite.
    """
    if len(images) == 0 or not bool(images.isfinite().all()):
        raise ValueError(f"calibration needs at least one image, and finite ones; got {len(images)}")
    quantized = add_quantizers(network, quantizer.model_dump()).eval()
    quantizers = dict(quantizers_of(quantized))
    for module in quantizers.values():
        module.disable_quant()  # each layer is calibrated on what it sees in floating point
        module.enable_calib()
    with torch.no_grad():
        for start in range(0, len(images), batch_size):
            batch = images[start : start + batch_size]
            quantized(batch)
    for module in quantizers.values():
        calibrator: Any = module._calibrator  # pyright: ignore[reportPrivateUsage]
        # load_calib_amax() would refuse the range of a convolution with one output, which comes as a scalar.
        module.amax = calibrator.compute_amax().reshape(cast(Tensor, module.amax).shape)
        module.disable_calib()
        module.enable_quant()
    return quantized
