"""The teacher as distillation asks it: frozen, and asked once per stored image."""

import copy
from typing import Self, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from leanface.networks.inference import HalfPrecision
from leanface.task import Batch


class FrozenTeacher(nn.Module):
    """A frozen copy of a teacher, which remembers its outputs for images that come again.

    Remembered outputs are found by the contents of the images and belong to this very copy, so neither other images
    nor another teacher can meet them. Streamed images never come again: nothing is remembered of them.

    Args:
        network: the teacher; the caller's own is left as it is.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = copy.deepcopy(network)
        # pyright does not know this overload of nn.Module.to
        self.network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.network.eval().requires_grad_(False)
        self._fast: tuple[nn.Module] | None = None  # in a tuple: one network, not two modules
        self._known: dict[int, Tensor] = {}

    def train(self, mode: bool = True) -> Self:
        """Do as usual, but keep the network in eval mode: its batch norms must not learn."""
        super().train(mode)
        self.network.eval()
        return self

    @torch.no_grad()
    def forward(self, batch: Batch) -> Float[Tensor, "batch outputs"]:
        """Return the teacher's outputs."""
        fastest = self._fastest(batch.images.device)
        if batch.keys is None:
            return fastest(batch.images)
        keys = cast(list[int], batch.keys.tolist())
        new = [place for place, key in enumerate(keys) if key not in self._known]
        if new:
            # The usual case, all or none, needs no copy.
            outputs = fastest(batch.images if len(new) == len(keys) else batch.images[new])
            self._known.update(zip((keys[place] for place in new), outputs, strict=True))
        return torch.stack([self._known[key] for key in keys])

    def _fastest(self, device: torch.device) -> nn.Module:
        if device.type != "cuda":
            return self.network
        if self._fast is None:
            self._fast = (HalfPrecision(self.network, fused=True).to(device),)
        return self._fast[0]
