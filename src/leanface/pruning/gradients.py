"""The gradients that pruning criteria look at: those of the outputs themselves, in random directions.

A pruned network is to answer as the original does. The error against the original, and with it its gradient, is
zero before anything is pruned, and labels, which photos lack, would tell what the original gets wrong rather than
what it needs. So the original's outputs y are projected on random signs s, L = sum_i s_i sqrt(w_i) y_i: over s, the
mean square of dL is the Gauss-Newton matrix of the error sum_i w_i (y_i - y'_i)^2, that is, to second order, what
a change of the network costs (Hutchinson's estimator; Fisher's information of a Gaussian around the original).

Source: Hutchinson, 1990; Martens, "New Insights and Perspectives on the Natural Gradient Method", 2020
(arXiv:1412.1193), section 9.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from leanface.face.coefficients import LAYOUT
from leanface.face.morphable_model import MorphableModel
from leanface.metrics.geometry import face_bases


class Calibration(NamedTuple):
    """What gradients are taken of: images in [0,1], at least two, and the model that says what a coefficient moves."""

    images: Float[Tensor, "batch 3 height width"]
    model: MorphableModel


def output_weights(model: MorphableModel, readings: Float[Tensor, "count 257"]) -> Float[Tensor, "257"]:
    """Weights that turn squared errors of coefficients into fractions of a group's variance, summed over groups.

    Identity and expression count as the millimetres, albedo as the levels that they move on the face.

    Args:
        model: the morphable model.
        readings: the original's, of more than one face; their variance is the scale.
    """
    variance = readings.var(dim=0).clamp_min(1e-8)
    weights = 1 / variance
    bases = face_bases(model)
    for name, part in LAYOUT.items():
        effect = bases[name].square().sum(dim=1) if name in bases else weights[part]
        weights[part] = effect / (effect * variance[part]).sum()
    return weights


def observe_gradients(
    network: nn.Module, calibration: Calibration, observe: Callable[[nn.Module], None], seed: int
) -> None:
    """Call `observe` once per image, with the gradient of L for it in the `.grad` of `network` (in eval mode)."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        readings = network(calibration.images)
        scales = output_weights(calibration.model, readings.cpu()).sqrt().to(readings.device)
    for image in calibration.images:
        signs = torch.randint(2, scales.shape, generator=generator) * 2.0 - 1.0
        network.zero_grad()
        with torch.enable_grad():
            (network(image[None])[0] * scales * signs.to(scales)).sum().backward()
        observe(network)
