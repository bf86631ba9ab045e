"""What surrounds a head, and what a camera makes of it: backgrounds, exposure, blur, noise, compression."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from leanface.synthesis.draws import Random, Range

CELLS = 8
"""A background is a grid of CELLS x CELLS colors, stretched unevenly."""

_SCENERY: dict[str, Range] = {
    "brightness": (1.0, 0.05, 0.95),
    "hue": (1.0, 0.0, 0.08),
    "across": (0.5, 0.02, 0.2),
    "down": (0.4, 0.02, 0.2),
    "clutter": (0.4, 0.02, 0.2),
    "colorful": (0.3, 0.0, 0.1),
    "gradient across": (0.7, -0.25, 0.25),
    "gradient down": (0.7, -0.25, 0.25),
}
_CAMERA: dict[str, Range] = {
    "exposure": (1.0, -0.2, 0.3),
    "warmth": (0.8, -0.1, 0.1),
    "green": (0.5, -0.04, 0.04),
    "contrast": (0.8, -0.3, 0.2),
    "saturation": (0.7, -0.4, 0.2),
    "black and white": (0.04, 1.0, 1.0),
    "flare": (0.3, 0.0, 0.12),
    "vignette": (0.4, 0.05, 0.5),
    "noise": (0.8, 0.0, 0.02),
    "heavy noise": (0.06, 0.01, 0.04),
    "compression": (0.8, 0.0, 0.03),
}
_OPTICS: dict[str, Range] = {
    "focus": (1.0, 0.0, 0.004),
    "defocus": (0.12, 0.003, 0.010),
    "shake across": (0.07, 0.003, 0.014),
    "shake down": (0.07, 0.003, 0.014),
}
"""Standard deviations of the blur, as shares of the image's width."""


def background(random: Random, count: int, size: int) -> Float[Tensor, "count 3 size size"]:
    """Draw backgrounds: plain, graded, striped, shelved or cluttered, sharp to out of focus; in [0,1]."""
    style = {name: value.view(-1, 1, 1, 1) for name, value in random.table(_SCENERY, count).items()}
    line = torch.linspace(-1, 1, CELLS, device=random.device)
    tone = style["brightness"] + style["hue"] * random.normal(count, 3, 1, 1)
    tone = tone + style["gradient across"] * line + style["gradient down"] * line[:, None]
    tone = tone + style["across"] * random.normal(count, 1, 1, CELLS)
    tone = tone + style["down"] * random.normal(count, 1, CELLS, 1)
    tone = tone + style["clutter"] * random.normal(count, 1, CELLS, CELLS)
    tone = tone + style["colorful"] * random.normal(count, 3, CELLS, CELLS)
    rows, columns = _stretch(random, count, size), _stretch(random, count, size)
    return (rows[:, None] @ tone.clamp(0, 1) @ columns[:, None].transpose(2, 3)).clamp(0, 1)


def _stretch(random: Random, count: int, size: int) -> Tensor:
    """Draw how much each pixel of a line sees of each cell, (count,size,CELLS); cells differ in width, sharpness."""
    widths = random.uniform(0.15, 1.0, count, CELLS) ** 2
    edges = widths.cumsum(1)
    center = (edges - widths / 2) / edges[:, -1:]
    at = torch.linspace(0, 1, size, device=random.device)
    sharpness = torch.exp(random.uniform(math.log(15), math.log(3000), count, 1, 1))
    return torch.softmax(-sharpness * (at[:, None] - center[:, None]).square(), 2)


def photograph(random: Random, image: Float[Tensor, "batch 3 size size"], amount: float) -> Tensor:
    """Light to file: white balance, exposure, blur, contrast, vignette, noise, compression.

    Args:
        image: linear enough; values above 1 are over-exposed.
        amount: scales every effect's probability, 0 to 1.
    """
    count, size = len(image), image.shape[-1]
    style = random.table(_CAMERA, count, amount)
    rows, columns = _lens(random, count, size, amount)
    image = rows[:, None] @ image @ columns[:, None].transpose(2, 3)

    # One matrix per image for exposure, white balance and saturation.
    cast = torch.stack([style["warmth"], style["green"], -style["warmth"]], 1)
    gain = torch.exp(style["exposure"][:, None] + cast)
    gray = torch.lerp(style["saturation"], torch.full_like(cast[:, 0], -1.0), style["black and white"])[:, None, None]
    mix = torch.eye(3, device=image.device) * (1 + gray) - gray / 3
    image = torch.bmm(mix * gain[:, None], image.flatten(2)).view_as(image)

    # A power by way of the logarithm: several times as fast as pow on a CPU.
    image = image.clamp_(1e-4, 1.0).log_().mul_(torch.exp(style["contrast"]).view(-1, 1, 1, 1)).exp_()
    line = torch.linspace(-1, 1, size, device=image.device).square()
    falloff = 1 - 0.5 * style["vignette"].view(-1, 1, 1, 1) * (line + line[:, None])
    flare = style["flare"].view(-1, 1, 1, 1)
    image = image.mul_(falloff * (1 - flare)).add_(0.7 * flare)
    noise = (style["noise"] + style["heavy noise"]).view(-1, 1, 1, 1)
    image = image.addcmul_(random.normal(*image.shape), noise)
    return compress(image, style["compression"])


def _lens(random: Random, count: int, size: int, amount: float) -> tuple[Tensor, Tensor]:
    """Return Gaussian blur down and across, (count,size,size) each, whose rows sum to one."""
    blur = random.table(_OPTICS, count, amount)
    at = torch.arange(size, device=random.device)
    distance = (at[:, None] - at).square()

    def matrix(sigma: Tensor) -> Tensor:
        sigma_px = (sigma * size).clamp_min(0.1)  # next to nothing
        # Clamped, because a CPU multiplies numbers near the smallest float very slowly.
        weights = torch.exp((distance * (-0.5 / sigma_px**2)[:, None, None]).clamp_min(-30))
        return weights / weights.sum(2, keepdim=True)

    even = blur["focus"] + blur["defocus"]
    return matrix(even + blur["shake down"]), matrix(even + blur["shake across"])


def compress(image: Float[Tensor, "batch 3 size size"], strength: Float[Tensor, " batch"]) -> Tensor:
    """Quantize 8x8 blocks in the cosine domain, coarser at higher frequencies, as JPEG does.

    Args:
        image: `size` is a multiple of 8.
        strength: step of the lowest frequency; 0 changes nothing visible.
    """
    count, _, size, _ = image.shape
    k = torch.arange(8, device=image.device, dtype=image.dtype)
    dct = torch.cos(math.pi / 8 * (k[None] + 0.5) * k[:, None]) * math.sqrt(2 / 8)
    dct[0] /= math.sqrt(2)
    step = 1e-3 + strength.view(-1, 1, 1, 1) * (1 + 0.5 * (k[:, None] + k))  # (batch, 1, 8, 8)
    step = step.repeat(1, 1, 1, size // 8).view(count, 1, 8, size)
    blocks = (image.reshape(-1, 8) @ dct.T).view(-1, 8, size)
    spectrum = (dct @ blocks).view(count, -1, 8, size)
    spectrum = spectrum.div_(step).round_().mul_(step)
    blocks = dct.T @ spectrum.view(-1, 8, size)
    return (blocks.reshape(-1, 8) @ dct).view_as(image)
