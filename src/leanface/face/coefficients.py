"""The 257 coefficients that the network regresses, and how they are laid out.

Source: the head order of Deep3DFaceRecon (Deng et al., CVPRW 2019) and of ModelScope's ReconNetWrapper.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

IDENTITY = slice(0, 80)
EXPRESSION = slice(80, 144)
ALBEDO = slice(144, 224)
ANGLES = slice(224, 227)
LIGHTING = slice(227, 254)
TRANSLATION = slice(254, 257)

LAYOUT: dict[str, slice] = {
    "identity": IDENTITY,
    "expression": EXPRESSION,
    "albedo": ALBEDO,
    "angles": ANGLES,
    "lighting": LIGHTING,
    "translation": TRANSLATION,
}
"""Name of each group and its place in the vector, in order."""

COUNT = 257

HEAD_SIZES = (80, 64, 80, 3, 27, 2, 1)
"""Outputs of the network's seven heads; the translation is split into x, y and z."""


class Coefficients(NamedTuple):
    """The groups of a batch of coefficient vectors.

    identity, expression and albedo count standard deviations of the morphable model's components; angles_rad are
    pitch, yaw and roll; lighting holds nine spherical-harmonic bands for each of red, green and blue
    (color-minor: index 3 * band + channel); translation is in decimeters, in the camera's frame.
    """

    identity: Float[Tensor, "batch 80"]
    expression: Float[Tensor, "batch 64"]
    albedo: Float[Tensor, "batch 80"]
    angles_rad: Float[Tensor, "batch 3"]
    lighting: Float[Tensor, "batch 27"]
    translation: Float[Tensor, "batch 3"]


def split(coefficients: Float[Tensor, "batch 257"]) -> Coefficients:
    """Name the groups (views, no copy).

    Raises:
        ValueError: the last dimension is not 257.
    """
    if coefficients.shape[-1] != COUNT:
        raise ValueError(f"expected (batch, {COUNT}) coefficients, got {tuple(coefficients.shape)}")
    return Coefficients(*(coefficients[..., part] for part in LAYOUT.values()))


def join(parts: Coefficients) -> Float[Tensor, "batch 257"]:
    """Inverse of `split`."""
    return torch.cat(parts, dim=-1)
