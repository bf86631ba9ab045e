"""The original network as distillation asks it: frozen, and asked once per stored image."""

import copy
from collections.abc import Callable
from typing import NamedTuple, Self, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from leanface.networks.inference import HalfPrecision
from leanface.networks.resnet import FaceReconstructionNet
from leanface.synthesis.dataset import FaceBatch


class Reading(NamedTuple):
    """What the original makes of a batch: its answers, and what of its feature maps was asked for."""

    coefficients: Float[Tensor, "batch 257"]
    maps: list[Tensor]


class Original(nn.Module):
    """A frozen copy of the original network, which remembers what it made of images that come again.

    Remembered readings are found by the contents of the images and belong to this very copy, so neither other images
    nor another original can meet them. Streamed images never come again: nothing is remembered of them.

    Args:
        network: the original; the caller's own is left as it is.
        summarise: what to keep of the feature maps of each image, batch first; None: the maps are not needed.
        remembers: False if what is kept of an image is too large to remember for all.
    """

    def __init__(
        self,
        network: FaceReconstructionNet,
        summarise: Callable[[list[Tensor]], list[Tensor]] | None = None,
        remembers: bool = True,
    ) -> None:
        super().__init__()
        self.network = copy.deepcopy(network)
        # pyright does not know this overload of nn.Module.to
        self.network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.network.eval().requires_grad_(False)
        self._fast: tuple[nn.Module] | None = None  # in a tuple: one network, not two modules
        self._summarise = summarise
        self._remembers = remembers
        self._known: dict[int, tuple[Tensor, ...]] = {}

    def train(self, mode: bool = True) -> Self:
        """As usual, but the network stays in eval mode: its batch norms must not learn."""
        super().train(mode)
        self.network.eval()
        return self

    @torch.no_grad()
    def forward(self, batch: FaceBatch) -> Reading:
        if batch.keys is None or not self._remembers:
            coefficients, *maps = self._read(batch.images)
            return Reading(coefficients, maps)
        keys = cast(list[int], batch.keys.tolist())
        new = [place for place, key in enumerate(keys) if key not in self._known]
        if new:
            # The usual case, all or none, needs no copy.
            rows = zip(*self._read(batch.images if len(new) == len(keys) else batch.images[new]), strict=True)
            self._known.update(zip((keys[place] for place in new), rows, strict=True))
        coefficients, *maps = (torch.stack(parts) for parts in zip(*(self._known[key] for key in keys), strict=True))
        return Reading(coefficients, maps)

    def _read(self, images: Tensor) -> list[Tensor]:
        if self._summarise is None:
            return [self._fastest(images.device)(images)]
        coefficients, maps = self.network.forward_with_maps(images)
        return [coefficients, *self._summarise(maps)]

    def _fastest(self, device: torch.device) -> nn.Module:
        if device.type != "cuda":
            return self.network
        if self._fast is None:
            self._fast = (HalfPrecision(self.network, fused=True).to(device),)
        return self._fast[0]
