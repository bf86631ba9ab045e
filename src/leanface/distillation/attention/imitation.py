"""Which faces to learn from the original."""

import torch
from jaxtyping import Float
from torch import Tensor

from leanface.distillation.attention.base import Attention


class AttentiveImitation(Attention):
    """The original is imitated where it is right: a face counts by softmax(-error / T) over the batch.

    The error is that of the original against the label, in the units of `CoefficientLoss`; the weights are one on
    average. Without labels nothing is known of the original's errors, and all faces count alike.

    Source: Saputra et al., distilling knowledge from a deep pose regressor network, ICCV 2019 (arXiv:1908.00858), which
    weighs by 1 - error / (largest error - smallest); the softmax and its temperature stand in for that.
    """

    def importance(self, teacher_error: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        return torch.softmax(-teacher_error / self.temperature, dim=0) * len(teacher_error)
