"""The network that reads faces, as bundles are rebuilt by it."""

from collections.abc import Mapping
from typing import ClassVar

from leanface.face.coefficients import LAYOUT
from leanface.networks.resnet import FaceReconstructionNet, build_network
from leanface.task import Layout


class FaceNetwork:
    """ResNet-50 with a head per group of coefficients; implements `leanface.task.TaskNetwork`."""

    outputs: ClassVar[Layout] = {name: (part.start, part.stop) for name, part in LAYOUT.items()}
    any_size: ClassVar[bool] = True

    def build(self, widths: Mapping[str, tuple[int, int]] | None = None) -> FaceReconstructionNet:
        """Build the network; see `leanface.task.TaskNetwork.build`."""
        return build_network(widths)
