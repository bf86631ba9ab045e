"""Calibrating as the configuration says: what is kept, and samples that cannot be used."""

from pathlib import Path

import pytest
import torch

from leanface import paths
from leanface.config import Quantize, load_face_config
from leanface.errors import ArtifactError, ConfigError
from leanface.networks.quantized import Quantizer
from leanface.networks.resnet import FaceReconstructionNet
from leanface.quantization.calibrate import calibrate, quantizer_of
from leanface.stages import configure
from leanface.task import Batch
from tests.conftest import smooth_images


class Samples:
    """A split of these images."""

    def __init__(self, images: torch.Tensor) -> None:
        self.images, self.image_size = images, images.shape[-1]

    def __len__(self) -> int:
        return len(self.images)

    def head(self, count: int) -> Batch:
        return Batch(self.images[:count], None)


@pytest.fixture
def settings(project: Path) -> Quantize:
    configure.run()
    return load_face_config(paths.CONFIG).quantize


def test_named_layers_are_kept_in_the_networks_order(settings: Quantize) -> None:
    kept = settings.model_copy(update={"keep_fp16": ("c", "a", "c")})
    assert quantizer_of(kept, ["a", "b", "c"]).excluded_layers == ("a", "c")
    with pytest.raises(ConfigError, match=r"does not have: c\. Its convolutions are a, b"):
        quantizer_of(kept, ["a", "b"])
    with pytest.raises(ConfigError, match="nothing would be quantized"):
        quantizer_of(kept, ["a", "c"])


def test_samples_that_cannot_be_used_are_refused_before_anything_changes(
    settings: Quantize, small_network: FaceReconstructionNet
) -> None:
    images = smooth_images(3, seed=0)
    images[1, 0, 5, 5] = torch.nan
    keys = list(small_network.state_dict())
    for samples, size, says in (
        (images, None, "1 of 3 samples have pixels that are not finite, the first one is number 1.*stage prepare"),
        (images[:0], None, "there is no sample"),
        (images, 96, "the network reads 96 x 96 px, the samples have 64 x 64"),
    ):
        with pytest.raises(ArtifactError, match=says):
            calibrate(small_network, settings, Quantizer(residual=True), Samples(samples), size)  # pyright: ignore
    assert list(small_network.state_dict()) == keys
