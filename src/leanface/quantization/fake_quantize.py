"""Post-training quantization: fake-quantize a network and calibrate its ranges on images that it will see."""

import warnings
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from leanface.networks.quantized import Quantizer, add_quantizers, quantizers_of

with warnings.catch_warnings():  # at import ModelOpt warns of optional packages that it does not find
    warnings.simplefilter("ignore")
    from modelopt.torch.quantization.calib import HistogramCalibrator

CALIBRATIONS = ("max", "percentile")
"""How an activation's range follows from its magnitudes: the largest, or the `PERCENTILE` of them."""

PERCENTILE = 99.999
"""Clips a few outliers, which would take the levels of all other values."""


def fake_quantize(
    network: nn.Module,
    images: Float[Tensor, "count 3 height width"],
    quantizer: Quantizer,
    calibration: str = "percentile",
    batch_size: int = 16,
) -> nn.Module:
    """Insert quantizers, in place, and calibrate their ranges; what comes back is in eval mode.

    A weight's range is the largest magnitude of its output channel; an activation's follows from its magnitudes
    over all images and places. Quantization-aware training goes on from here, ranges fixed.

    Args:
        network: in floating point.
        images: faces of the train split.
        quantizer: what is quantized.
        calibration: a name in `CALIBRATIONS`.
        batch_size: of the passes over the images.

    Raises:
        ValueError: there is no image, or one is not finite.
    """
    if len(images) == 0 or not bool(images.isfinite().all()):
        raise ValueError(f"calibration needs at least one image, and finite ones; got {len(images)}")
    quantized = add_quantizers(network, quantizer.model_dump()).eval()
    weights: list[Any] = []
    activations: list[Any] = []
    for name, module in quantizers_of(quantized):
        (weights if name.endswith("weight_quantizer") else activations).append(module)
        module.disable_quant()  # each layer is calibrated on what it sees in floating point
        module.enable_calib()
    if calibration != "max":
        for module in activations:
            module._calibrator = HistogramCalibrator(axis=None)
    with torch.no_grad():
        for start in range(0, len(images), batch_size):
            quantized(images[start : start + batch_size])
    for module in weights:
        _set_range(module, module._calibrator.compute_amax())
    for module in activations:
        _set_range(module, _activation_range(module._calibrator, calibration))
    return quantized


def _activation_range(calibrator: Any, calibration: str) -> Tensor:
    if calibration == "max":
        return calibrator.compute_amax()
    return percentile_of(calibrator._calib_hist.double().cpu(), calibrator._calib_bin_edges.double().cpu())


def percentile_of(
    counts: Float[Tensor, " bins"], edges: Float[Tensor, " bins+1"], percentile: float = PERCENTILE
) -> Tensor:
    """Return the upper edge of the histogram's bin in which a percentile of the values lies."""
    cumulative = counts.cumsum(0)
    return edges[1:][torch.searchsorted(cumulative, percentile / 100 * cumulative[-1])]


def _set_range(quantizer: Any, amax: Tensor) -> None:
    """End a quantizer's calibration. Its own load_calib_amax() refuses a single channel's range, a scalar."""
    quantizer.amax = amax.reshape(quantizer.amax.shape)
    quantizer._calibrator.reset()
    quantizer.disable_calib()
    quantizer.enable_quant()
