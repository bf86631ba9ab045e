"""A network's outputs for a split, and their errors against references."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from leanface.task import Split, Task


@torch.inference_mode()
def predict(network: nn.Module, split: Split, batch_size: int = 32) -> Float[Tensor, "count outputs"]:
    """Compute a network's outputs for every sample of a split, in order; return them on the CPU."""
    first = next(network.parameters(), torch.empty(0))
    return torch.cat([network(batch.images.to(first.device)).cpu() for batch in split.batches(batch_size)]).clone()


def mean_errors(task: Task, predicted: Tensor, target: Tensor) -> dict[str, float]:
    """Average the task's errors over samples."""
    return {name: float(values.mean()) for name, values in task.errors(predicted, target).items()}


def reference_errors(
    task: Task, predictions: Mapping[str, Tensor], references: Mapping[str, Tensor]
) -> dict[str, float]:
    """Measure every prediction against every reference, as PREDICTION/REFERENCE_ERROR."""
    return {
        f"{step}/{reference}_{name}": value
        for step, predicted in predictions.items()
        for reference, target in references.items()
        for name, value in mean_errors(task, predicted, target).items()
    }
