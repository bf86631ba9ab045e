"""Where a stage looks, over all of its channels."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from leanface.distillation.attention.base import Attention, Maps


class AttentionMaps(Attention):
    """Where a stage looks: the squares of its activations, averaged over channels, against the original's.

    Each map is standardised over its positions (the two networks have different numbers of channels, so their
    activations have different scales); softmax(map / T) is a distribution, and the term is the KL divergence from the
    original's to the student's, averaged over stages, times T^2. It needs no channel of the student to correspond to
    one of the original.

    Source: Zagoruyko and Komodakis, paying more attention to attention, ICLR 2017 (arXiv:1612.03928), whose L2 distance
    of normalised maps is replaced by softened distributions.
    """

    reads_maps = True

    def of_teacher(self, maps: Maps) -> list[Tensor]:
        return [self._log_softened(stage) for stage in maps]

    def forward(self, maps: Maps, of_teacher: Sequence[Tensor]) -> Float[Tensor, " batch"]:
        stages = [
            F.kl_div(self._log_softened(ours), theirs, reduction="none", log_target=True).sum(1)
            for ours, theirs in zip(maps, of_teacher, strict=True)
        ]
        return torch.stack(stages).mean(0) * self.temperature**2

    def _log_softened(self, stage: Tensor) -> Float[Tensor, "batch positions"]:
        energy = stage.float().square().mean(1).flatten(1)
        deviation = energy.std(1, keepdim=True).clamp_min(1e-6)
        return F.log_softmax((energy - energy.mean(1, keepdim=True)) / deviation / self.temperature, dim=1)
