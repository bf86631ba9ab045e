"""The 257 coefficients that the network regresses, and how they are laid out.

Source: the head order of Deep3DFaceRecon (Deng et al., CVPRW 2019) and of ModelScope's ReconNetWrapper.
"""

from typing import Any, Generic, NamedTuple, TypeVar

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


Array = TypeVar("Array", bound=Any)
"""NumPy's or PyTorch's arrays of floats."""


class Coefficients(NamedTuple, Generic[Array]):
    """The groups of a batch of coefficient vectors, arrays (batch, size of the group); of one vector, without batch.

    identity (80), expression (64) and albedo (80) count standard deviations of the morphable model's components;
    angles_rad (3) are pitch, yaw and roll; lighting (27) holds nine spherical-harmonic bands for each of red, green and
    blue (color-minor: index 3 * band + channel); translation (3) is in decimeters, in the camera's frame.
    """

    identity: Array
    expression: Array
    albedo: Array
    angles_rad: Array
    lighting: Array
    translation: Array


def split(coefficients: Array) -> Coefficients[Array]:
    """Name the groups of a batch (B,257) or of one vector (257,): views, no copy.

    Raises:
        ValueError: the last dimension is not 257.
    """
    if coefficients.shape[-1] != COUNT:
        raise ValueError(f"expected (batch, {COUNT}) coefficients, got {tuple(coefficients.shape)}")
    return Coefficients(*(coefficients[..., part] for part in LAYOUT.values()))
