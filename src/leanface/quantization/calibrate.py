"""Quantizing as the configuration says: what is kept, and ranges from samples of the train split."""

from collections.abc import Collection

from torch import nn

from leanface import paths
from leanface.config import Quantize
from leanface.networks.quantized import Quantizer
from leanface.quantization.exclusion import layers_excluded_from_quantization
from leanface.quantization.fake_quantize import fake_quantize
from leanface.quantization.rounding import round_weights
from leanface.task import Split


def quantizer_of(settings: Quantize, layers: Collection[str]) -> Quantizer:
    """Describe what is quantized of a network with these convolutions.

    Raises:
        ConfigError, ArtifactError: as `layers_excluded_from_quantization`.
    """
    excluded = layers_excluded_from_quantization(settings.keep_fp16, layers, paths.SENSITIVITY)
    return Quantizer(residual=settings.quantize_residual, excluded_layers=excluded)


def calibrate(network: nn.Module, settings: Quantize, quantizer: Quantizer, train: Split) -> nn.Module:
    """Fake-quantize in place, with ranges found on the first `calibration_count` samples of the train split."""
    images = train.head(settings.calibration_count).images
    return fake_quantize(network, images, quantizer, settings.calibration)


def round_calibrated(network: nn.Module, settings: Quantize, train: Split) -> None:
    """Round the weights of a calibrated, and maybe trained, network in place, on the samples of its calibration."""
    if settings.rounding == "gptq":
        round_weights(network.eval(), train.head(settings.calibration_count).images)
