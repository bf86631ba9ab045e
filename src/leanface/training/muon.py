"""The Muon optimizer, for networks of convolutions.

Source: Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024
(https://kellerjordan.github.io/posts/muon), with the step's size of Liu et al., "Muon is Scalable for LLM Training",
2025 (arXiv:2502.16982), as in `torch.optim.Muon`, which takes matrices alone.
"""

from collections import defaultdict
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of a polynomial whose iteration brings singular values in (0, 1] near to 1 fast, if not very near."""

ITERATIONS = 5
MOMENTUM = 0.95

ADAMW_RMS = 0.2
"""Root mean square of AdamW's typical update: with it, learning rates mean the same in both."""


class Muon(torch.optim.AdamW):
    """Moves the weights of groups with `orthogonalized: True` by Muon, all others by AdamW.

    Muon replaces a matrix's momentum by the nearest matrix with orthogonal rows or columns, so that rare directions are
    learned as fast as frequent ones. A convolution is the matrix of its output channels over all that each one sees.
    """

    def __init__(
        self, groups: list[dict[str, Any]], *, fused: bool = False, precision: torch.dtype = torch.float32
    ) -> None:
        """Prepare the groups.

        Args:
            groups: as AdamW takes them; weights that are orthogonalized have at least two dimensions.
            fused: whether AdamW's update is one kernel.
            precision: what Muon computes in; bfloat16 is enough, and fast where the processor has it.
        """
        self._precision = precision
        super().__init__([{"orthogonalized": False, **group} for group in groups], fused=fused)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        groups = self.param_groups
        self.param_groups = [group for group in groups if not group["orthogonalized"]]
        loss = cast(Any, super().step(closure))
        self.param_groups = groups
        for group in groups:
            if group["orthogonalized"]:
                self._step(group)
        return loss

    def _step(self, group: dict[str, Any]) -> None:
        alike: defaultdict[torch.Size, list[tuple[nn.Parameter, Tensor]]] = defaultdict(list)
        for weight in group["params"]:
            if weight.grad is not None:
                update = self._momentum(weight, weight.grad)
                alike[weight.shape].append((weight, update.flatten(1)))
        for members in alike.values():
            updates = orthogonalized(torch.stack([update for _, update in members]).to(self._precision))
            size = ADAMW_RMS * max(updates.shape[1:]) ** 0.5
            for (weight, _), update in zip(members, updates, strict=True):
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.add_(update.reshape(weight.shape), alpha=-group["lr"] * size)

    def _momentum(self, weight: nn.Parameter, gradient: Tensor) -> Tensor:
        state = self.state[weight]
        if not state:
            # AdamW asks the state that it loads for its step.
            state |= {"step": torch.zeros(()), "momentum": torch.zeros_like(weight)}
        momentum: Tensor = state["momentum"].lerp_(gradient, 1 - MOMENTUM)
        return gradient.lerp(momentum, MOMENTUM)


def orthogonalized(matrices: Tensor) -> Tensor:
    """Return (N,A,B) matrices with the same singular vectors, whose singular values are about 1 (0.7 to 1.2)."""
    wide = matrices if matrices.shape[1] <= matrices.shape[2] else matrices.mT
    a, b, c = NEWTON_SCHULZ
    result = torch.nn.functional.normalize(wide.flatten(1), eps=1e-7).view_as(wide)
    for _ in range(ITERATIONS):
        gram = result @ result.mT
        result = a * result + (b * gram + c * gram @ gram) @ result
    return result if wide is matrices else result.mT
