"""The networks and the images of the study of several kinds of networks."""

import pytest
import torch

from leanface.networks.graph import trace
from leanface.networks.widths import widths_of
from tools.studies.cluttered_digits import CLASSES, SIZE, ClutteredDigits, MobileNet, Vgg, cluttered


@pytest.mark.parametrize("kind", [MobileNet, Vgg])
def test_its_networks_can_be_compressed_and_rebuilt(kind: type[ClutteredDigits]) -> None:
    network = kind().build().eval()
    trace(network)
    rebuilt = kind().build(widths_of(network)).eval()
    rebuilt.load_state_dict(network.state_dict())
    images = torch.rand(2, 3, SIZE, SIZE)
    assert torch.equal(rebuilt(images), network(images))
    assert network(images).shape == (2, CLASSES)


def test_images_are_those_of_their_seed() -> None:
    digits, labels = torch.rand(20, 1, 8, 8), torch.arange(20) % CLASSES
    images, classes = cluttered(digits, labels, 6, torch.Generator().manual_seed(0))
    assert images.shape == (6, 3, SIZE, SIZE)
    assert images.min() >= 0
    assert images.max() <= 1
    again, _ = cluttered(digits, labels, 6, torch.Generator().manual_seed(0))
    assert torch.equal(images, again)
    assert set(classes.tolist()) <= set(labels.tolist())
