"""Quantizing as the configuration says: what is kept, and ranges from samples of the train split."""

from collections.abc import Collection

from torch import nn

from leanface.config import Quantize
from leanface.errors import ArtifactError, ConfigError
from leanface.networks.quantized import Quantizer
from leanface.quantization.fake_quantize import fake_quantize
from leanface.quantization.rounding import round_weights
from leanface.task import Split


def quantizer_of(settings: Quantize, layers: Collection[str]) -> Quantizer:
    """Describe what is quantized of a network with these convolutions.

    Raises:
        ConfigError: a kept layer is not the network's, or all are kept.
    """
    unknown = sorted(set(settings.keep_fp16) - set(layers))
    if unknown:
        raise ConfigError(
            f"quantize.keep_fp16 names layers that the network does not have: {', '.join(unknown)}. "
            f"Its convolutions are {', '.join(layers)}."
        )
    if set(settings.keep_fp16) == set(layers):
        raise ConfigError("quantize.keep_fp16 names every layer: nothing would be quantized. Name a few.")
    excluded = tuple(name for name in layers if name in settings.keep_fp16)
    return Quantizer(residual=settings.quantize_residual, excluded_layers=excluded)


def calibrate(
    network: nn.Module, settings: Quantize, quantizer: Quantizer, train: Split, size: int | None = None
) -> nn.Module:
    """Fake-quantize in place, with ranges found on the first `calibration_count` samples of the train split.

    Args:
        size: of the images (px), for a network that reads no other; None: it reads any.

    Raises:
        ArtifactError: the samples are none, not finite, or of another size.
    """
    images = train.head(settings.calibration_count).images
    height, width = images.shape[2:]
    odd = [index for index, image in enumerate(images) if not bool(image.isfinite().all())]
    problem = None
    if len(images) == 0:
        problem = "there is no sample"
    elif size is not None and (height, width) != (size, size):
        problem = f"the network reads {size} x {size} px, the samples have {height} x {width}"
    elif odd:
        problem = (
            f"{len(odd)} of {len(images)} samples have pixels that are not finite, the first one is number {odd[0]}"
        )
    if problem is not None:
        raise ArtifactError(f"cannot calibrate on the train split: {problem}. Make it again: `leanface stage prepare`.")
    return fake_quantize(network, images, quantizer, settings.calibration)


def round_calibrated(network: nn.Module, settings: Quantize, train: Split) -> None:
    """Round the weights of a calibrated, and maybe trained, network in place, on the samples of its calibration."""
    if settings.rounding == "gptq":
        round_weights(network.eval(), train.head(settings.calibration_count).images)
