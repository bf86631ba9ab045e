"""Exponential moving average of a network's weights and buffers.

Source: Polyak and Juditsky, 1992; the warm-up of the decay as in TensorFlow's ExponentialMovingAverage.
"""

from typing import Any

import torch
from torch import Tensor, nn


class WeightAverage:
    """average <- decay * average + (1 - decay) * weights, with a smaller decay during the first steps.

    Attributes:
        tensors: the average, in the order of the network's state.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.tensors = [tensor.detach().clone() for tensor in self._floats(network)]

    @staticmethod
    def _floats(network: nn.Module) -> list[Tensor]:
        """Return everything that can be averaged; integer buffers are counters."""
        return [tensor for tensor in network.state_dict(keep_vars=True).values() if tensor.is_floating_point()]

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Take one step towards the network's weights."""
        current = self._floats(network)
        if self.tensors[0].device != current[0].device:
            self.tensors = [tensor.to(current[0].device) for tensor in self.tensors]
        self.updates += 1
        decay = min(self.decay, self.updates / (self.updates + 9))
        torch._foreach_lerp_(self.tensors, current, 1 - decay)  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]

    @torch.no_grad()
    def swap(self, network: nn.Module) -> None:
        """Exchange the network's weights and the average."""
        for index, tensor in enumerate(self._floats(network)):
            average = self.tensors[index].to(tensor.device)
            self.tensors[index] = tensor.detach().clone()
            tensor.data.copy_(average)

    def state_dict(self) -> dict[str, Any]:
        return {"updates": self.updates, "average": self.tensors}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.updates, self.tensors = state["updates"], state["average"]
