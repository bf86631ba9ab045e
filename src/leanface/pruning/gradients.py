"""The gradients that pruning criteria look at: those of the outputs themselves, in random directions.

A pruned network is to answer as the teacher does. The error against the teacher, and with it its gradient, is
zero before anything is pruned, and labels, which photos lack, would tell what the teacher gets wrong rather than
what it needs. So the teacher's outputs y are projected on random signs s, L = sum_i s_i sqrt(w_i) y_i: over s, the
mean square of dL is the Gauss-Newton matrix of the error sum_i w_i (y_i - y'_i)^2, that is, to second order, what
a change of the network costs (Hutchinson's estimator; Fisher's information of a Gaussian around the teacher).

Source: Hutchinson, 1990; Martens, "New Insights and Perspectives on the Natural Gradient Method", 2020
(arXiv:1412.1193), section 9.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from leanface.task import Task


class Calibration(NamedTuple):
    """What gradients are taken of: images in [0,1], at least two, and the task that says what an output matters."""

    images: Float[Tensor, "batch 3 height width"]
    task: Task


def observe_gradients(
    network: nn.Module, calibration: Calibration, observe: Callable[[nn.Module], None], seed: int
) -> None:
    """Call `observe` once per image, with the gradient of L for it in the `.grad` of `network` (in eval mode)."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        outputs = network(calibration.images)
        scales = calibration.task.output_weights(outputs.cpu()).sqrt().to(outputs.device)
    for image in calibration.images:
        signs = torch.randint(2, scales.shape, generator=generator) * 2.0 - 1.0
        network.zero_grad()
        with torch.enable_grad():
            (network(image[None])[0] * scales * signs.to(scales)).sum().backward()
        observe(network)
