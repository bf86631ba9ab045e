"""What the morphable model's albedo does not explain: skin detail, make-up, beards, hair, hats, shadows, highlights.

Everything is painted on vertices or moves them, before rasterization: it turns with the head, is lit like it, and
costs a few matrix products. The coefficients keep describing the bare head underneath.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from leanface.face.camera import rotation_from_angles
from leanface.face.coefficients import Coefficients
from leanface.face.geometry import BANDS, CONSTANT, LINEAR
from leanface.synthesis.draws import Random, Range, constant
from leanface.synthesis.surface import WAVES, Surface

TINTS: dict[str, tuple[str, Range, tuple[float, float, float]]] = {
    "blush": ("cheeks", (0.5, 0.0, 0.35), (0.1, -0.5, -0.35)),
    "red nose": ("nose", (0.3, 0.0, 0.3), (0.05, -0.6, -0.5)),
    "dark circles": ("under_eyes", (0.4, 0.0, 0.4), (-0.6, -0.75, -0.55)),
    "forehead lines": ("forehead_lines", (0.25, 0.1, 0.45), (-0.5, -0.7, -0.8)),
    "smile lines": ("smile_lines", (0.35, 0.1, 0.5), (-0.5, -0.7, -0.8)),
    "crow's feet": ("crows_feet", (0.2, 0.1, 0.5), (-0.5, -0.7, -0.8)),
    "shadowed lids": ("lids", (0.3, 0.1, 0.7), (-0.7, -0.8, -0.6)),
    "shaved beard": ("goatee", (0.2, 0.1, 0.6), (-0.65, -0.5, -0.4)),
    "shaved jaw": ("jaw", (0.15, 0.1, 0.5), (-0.65, -0.5, -0.4)),
    "shaved lip": ("moustache", (0.2, 0.1, 0.6), (-0.65, -0.5, -0.4)),
}
"""Translucent layers: region, strength, and the change of log color at strength 1."""

PAINTS: dict[str, tuple[str, Range, str]] = {
    "lipstick": ("lips", (0.25, 0.2, 0.7), "lipstick"),
    "eye shadow": ("lids", (0.15, 0.2, 0.6), "make-up"),
    "eye liner": ("eye_rims", (0.35, 0.3, 0.9), "black"),
    "brows": ("brows", (0.5, 0.1, 0.75), "hair"),
    "moustache": ("moustache", (0.14, 0.3, 0.95), "hair"),
    "goatee": ("goatee", (0.14, 0.3, 0.95), "hair"),
    "full beard": ("jaw", (0.09, 0.3, 0.95), "hair"),
}
"""Opaque layers: region, strength, and what colors them."""

_HAIR_PALETTE = (
    (0.03, 0.025, 0.022), (0.05, 0.04, 0.035), (0.09, 0.06, 0.045), (0.15, 0.10, 0.065), (0.24, 0.17, 0.11),
    (0.34, 0.25, 0.16), (0.60, 0.46, 0.28), (0.34, 0.17, 0.09), (0.55, 0.54, 0.52),
)  # fmt: skip
_TONES: dict[str, Range] = {
    "lip red": (1.0, 0.35, 0.7),
    "lip green": (1.0, 0.05, 0.22),
    "lip blue": (1.0, 0.1, 0.35),
    "make-up red": (1.0, 0.05, 0.5),
    "make-up green": (1.0, 0.05, 0.35),
    "make-up blue": (1.0, 0.05, 0.5),
}
_SKIN: dict[str, Range] = {
    "lightness": (1.0, 0.005, 0.035),
    "redness": (1.0, 0.005, 0.03),
    "pores": (1.0, 0.0, 0.05),
    "freckles": (0.15, 0.2, 0.7),
    "blemishes": (0.3, 0.3, 0.9),
    "moles": (0.3, 0.5, 1.0),
}
_HAIR_KINDS: dict[str, Range] = {"worn": (0.82, 1.0, 1.0)}
_HAIR: dict[str, Range] = {
    "height": (1.0, -0.14, 0.12),
    "fringe": (0.3, 0.2, 0.45),
    "receding": (0.15, 0.15, 0.5),
    "sides": (1.0, -0.1, 0.2),
    "over ears": (0.35, 0.15, 0.5),
    "back": (1.0, -0.1, 0.1),
    "long": (0.4, 0.3, 1.2),
    "parting": (0.5, -0.4, 0.4),
    "ragged": (1.0, 0.01, 0.06),
    "strands": (1.0, 0.0, 0.08),
    "softness": (1.0, 0.03, 0.1),
    "volume": (1.0, 0.02, 0.22),
    "bushy": (0.15, 0.1, 0.35),
    "curtain": (0.8, 0.1, 0.4),
    "streaks": (1.0, 0.1, 0.4),
    "lumps": (1.0, 0.02, 0.15),
}
_HEADWEAR_KINDS: dict[str, Range] = {"hat": (0.1, 1.0, 1.0), "scarf": (0.05, 1.0, 1.0)}
_HEADWEAR: dict[str, Range] = {
    "height": (1.0, -0.1, 0.22),
    "sides": (1.0, -0.25, 0.05),
    "back": (1.0, -0.25, 0.05),
    "slant": (0.5, -0.3, 0.3),
    "thickness": (1.0, 0.04, 0.14),
    "folds": (1.0, 0.01, 0.06),
    "weave": (1.0, 0.0, 0.1),
}
_LIGHT: dict[str, Range] = {
    "shadow": (1.0, 0.1, 0.7),
    "occlusion": (1.0, 0.1, 0.8),
    "gloss": (0.85, 0.0, 0.3),
    "sharpness": (1.0, 8.0, 45.0),
    "eye light": (0.8, 0.2, 0.9),
}
_EYE_SHARPNESS = 12.0  # an eye's highlight is that much smaller than skin's


class Dressed(NamedTuple):
    """A batch of heads as they are worn: the bare ones' vertices and albedo, changed."""

    vertices: Float[Tensor, "batch vertices 3"]
    albedo: Float[Tensor, "batch vertices 3"]
    hair_color: Float[Tensor, "batch 3"]


def dress(
    random: Random,
    surface: Surface,
    vertices: Float[Tensor, "batch vertices 3"],
    albedo: Float[Tensor, "batch vertices 3"],
    amount: float,
) -> Dressed:
    """Give every head skin, make-up, hair and headwear of its own.

    Args:
        vertices: in the model's frame; not changed.
        albedo: not changed.
        amount: scales every effect's probability, 0 to 1.
    """
    count = len(vertices)
    tones = random.table(_TONES, count)
    hair = _hair_color(random, count)
    colors = {
        "hair": hair,
        "black": torch.full_like(hair, 0.04),
        "lipstick": torch.stack([tones[f"lip {name}"] for name in ("red", "green", "blue")], 1),
        "make-up": torch.stack([tones[f"make-up {name}"] for name in ("red", "green", "blue")], 1),
    }
    # Planes (batch, 3, vertices) in here: layers are matrix products over fields.
    skin = _skin_gain(random, surface, count, amount) * albedo.transpose(1, 2)
    skin = _paint(random, surface, skin, colors, amount)
    worn, headwear = _hair(random, surface, hair, amount), _headwear(random, surface, count, amount)
    for cover in (worn, headwear):
        skin = torch.lerp(skin, cover.color[:, :, None] * cover.texture[:, None], cover.alpha[:, None])
    vertices = torch.addcmul(vertices, (worn.lift + headwear.lift)[:, :, None], surface.normals)
    vertices = torch.addcmul(vertices, (worn.spread + headwear.spread)[:, :, None], surface.outward)
    return Dressed(vertices, skin.clamp(0.0, 1.0).transpose(1, 2), hair)


def _hair_color(random: Random, count: int) -> Tensor:
    """Draw colors (count,3): mostly one of the palette's, with a little of the others."""
    share = random.uniform(0.0, 1.0, count, len(_HAIR_PALETTE)) ** 6
    color = (share / share.sum(1, keepdim=True)) @ constant(_HAIR_PALETTE, random.device)
    return color * random.uniform(0.7, 1.3, count, 1)


def fabric_color(random: Random, count: int) -> Float[Tensor, "count 3"]:
    """Draw colors from black to white, grayish more often than bright."""
    color = 0.03 + 0.8 * random.uniform(0.0, 1.0, count, 3) ** 1.5
    return torch.lerp(color, color.mean(1, keepdim=True), random.uniform(0.3, 1.0, count, 1))


def _field(random: Random, bank: Tensor, count: int) -> Tensor:
    """Draw unit-variance mixtures (count,V) of a bank's fields."""
    return (random.normal(count, len(bank)) / len(bank) ** 0.5) @ bank


def _skin_gain(random: Random, surface: Surface, count: int, amount: float) -> Tensor:
    """Draw what skin's color is multiplied by, (count,3,V)."""
    detail = random.table(_SKIN, count, amount)
    strengths = random.table({name: strength for name, (_, strength, _) in TINTS.items()}, count, amount)
    layers = torch.stack([surface.region(region) for region, _, _ in TINTS.values()])
    hues = constant(tuple(hue for _, _, hue in TINTS.values()), random.device)
    tints = torch.stack(list(strengths.values()), 1)[:, None] * hues.T  # (count, 3, layers)
    log_gain = tints @ layers

    lightness = detail["lightness"][:, None] * _field(random, surface.waves, count)
    redness = detail["redness"][:, None] * _field(random, surface.waves[: 2 * WAVES], count)
    grain = random.normal(count, surface.waves.shape[1])
    lightness = lightness + detail["pores"][:, None] * grain
    # Spots are where the grain is extreme: freckles dark and many, near nose and cheeks; blemishes red and few.
    freckled = surface.region("cheeks") + surface.region("nose")
    freckles = detail["freckles"][:, None] * (3 * (grain - 1.2)).clamp(0, 1) * freckled
    blemishes = detail["blemishes"][:, None] * (4 * (-2.9 - grain)).clamp(0, 1)
    moles = detail["moles"][:, None] * (6 * (grain - 3.4)).clamp(0, 1)
    shared = lightness - 0.7 * freckles - 1.5 * moles
    red, green = shared + 0.35 * redness, shared - redness - 0.7 * blemishes
    gain = torch.stack([red, green, green], 1).add_(log_gain).mul_(surface.region("skin"))
    return gain.exp_()


def _paint(random: Random, surface: Surface, skin: Tensor, colors: dict[str, Tensor], amount: float) -> Tensor:
    """Lay all paints over the skin at once: their regions hardly overlap."""
    strengths = random.table({name: strength for name, (_, strength, _) in PAINTS.items()}, len(skin), amount)
    # A full beard leaves no bare chin or lip.
    for name in ("moustache", "goatee"):
        strengths[name] = torch.maximum(strengths[name], strengths["full beard"])
    layers = torch.stack([surface.region(region) for region, _, _ in PAINTS.values()])
    opacity = torch.stack(list(strengths.values()), 1)
    hues = torch.stack([colors[name] for _, _, name in PAINTS.values()], -1)  # (count, 3, layers)
    cover = opacity @ layers
    excess = cover.clamp_min(1.0)
    paint = ((hues * opacity[:, None]) @ layers) / excess[:, None]
    return torch.addcmul(paint, skin, (1 - cover / excess)[:, None])


class _Cover(NamedTuple):
    """A layer over the head: opacity, color, its texture's factor, and how far it stands off, in decimeters."""

    alpha: Float[Tensor, "batch vertices"]
    color: Float[Tensor, "batch 3"]
    texture: Float[Tensor, "batch vertices"]
    lift: Float[Tensor, "batch vertices"]
    spread: Float[Tensor, "batch vertices"]


def _hair(random: Random, surface: Surface, color: Tensor, amount: float) -> _Cover:
    count = len(color)
    style = random.table(_HAIR, count) | random.table(_HAIR_KINDS, count, amount)
    lower = torch.stack(
        [
            style["height"] + style["fringe"] - style["receding"],
            style["sides"] + style["over ears"] + 0.5 * style["long"],
            style["back"] + style["long"],
            style["parting"],
        ],
        1,
    )
    streaks = _field(random, surface.streaks, count)
    above = torch.addmm(surface.hairline.expand(count, -1), lower, surface.hair_shifts)
    above = above + style["strands"][:, None] * streaks
    above = above + style["ragged"][:, None] * _field(random, surface.waves[WAVES : 2 * WAVES], count)
    inside = (above / style["softness"][:, None] + 0.5).clamp(0, 1) * style["worn"][:, None]
    lumps = _field(random, surface.waves[:WAVES], count)
    deep = (above * 3).clamp(0, 1) * inside
    lift = (style["volume"] + style["bushy"])[:, None] * deep * (1 + style["lumps"][:, None] * lumps)
    fall = style["curtain"] * (style["long"] > 0)
    spread = fall[:, None] * inside * surface.behind * (1 + style["lumps"][:, None] * lumps)
    texture = (1 + style["streaks"][:, None] * streaks + 0.1 * lumps).clamp_min(0.3)
    return _Cover(inside, color, texture, lift, spread)


def _headwear(random: Random, surface: Surface, count: int, amount: float) -> _Cover:
    """Draw a hat without a brim, pulled over the hairline, or a scarf that leaves an oval of face."""
    style = random.table(_HEADWEAR, count) | random.table(_HEADWEAR_KINDS, count, amount)
    lower = torch.stack([style["height"], style["sides"], style["back"], style["slant"]], 1)
    hat = torch.addmm(surface.hairline.expand(count, -1), lower, surface.hair_shifts)
    scarf = surface.oval + 0.5 * style["height"][:, None]
    is_scarf = style["scarf"][:, None]
    folds = style["folds"][:, None] * _field(random, surface.waves[:WAVES], count)
    above = torch.lerp(hat, scarf, is_scarf) + 0.1 * folds
    inside = (above * 40 + 0.5).clamp(0, 1) * torch.maximum(style["hat"][:, None], is_scarf)
    weave = style["weave"][:, None] * _field(random, surface.streaks, count)
    lift = (style["thickness"][:, None] + folds) * inside
    return _Cover(
        inside, fabric_color(random, count), (1 + weave + 2 * folds).clamp_min(0.3), lift, torch.zeros_like(lift)
    )


class Lamp(NamedTuple):
    """The strongest direction of spherical-harmonic lighting.

    Attributes:
        direction: towards the lamp, in the camera's frame.
        share: of the light on a surface that faces it.
        color: of the light on a surface that faces it.
    """

    direction: Float[Tensor, "batch 3"]
    share: Float[Tensor, " batch"]
    color: Float[Tensor, "batch 3"]


def strongest_lamp(lighting: Float[Tensor, "batch 27"]) -> Lamp:
    bands = lighting.view(-1, BANDS, 3)
    linear: Tensor = torch.stack([-bands[:, 3], -bands[:, 1], bands[:, 2]], 1) * LINEAR  # (batch, xyz, colors)
    mean = linear.mean(-1)
    strength = mean.square().sum(1).sqrt()
    ambient = bands[:, 0] * CONSTANT
    direction = mean / strength.clamp_min(1e-4)[:, None]
    share = strength / (strength + ambient.mean(-1)).clamp_min(1e-4)
    color = ambient + (linear * direction[:, :, None]).sum(1)
    return Lamp(direction, share.clamp(0, 1), color.clamp_min(0))


class Shine(NamedTuple):
    """How surfaces answer light beyond diffuse shading: color = albedo x irradiance x shadow + highlight."""

    shadow: Float[Tensor, "batch vertices"]
    highlight: Float[Tensor, "batch vertices 3"]


def shine(
    random: Random,
    surface: Surface,
    normals_camera: Float[Tensor, "batch vertices 3"],
    parts: Coefficients[Tensor],
    amount: float,
) -> Shine:
    """Cast shadows, ambient occlusion, and Blinn-Phong highlights of the strongest lamp."""
    count = len(normals_camera)
    style = random.table(_LIGHT, count, amount)
    lamp = strongest_lamp(parts.lighting)
    rotation = rotation_from_angles(parts.angles_rad)
    direction_model = torch.einsum("bji,bj->bi", rotation, lamp.direction)
    arrives = torch.softmax(14 * direction_model @ surface.lights.T, 1) @ surface.lit
    shadow = 1 - (style["shadow"] * lamp.share)[:, None] * (1 - arrives)
    shadow = shadow * (1 - style["occlusion"][:, None] * (1 - surface.openness))

    half = F.normalize(lamp.direction + constant((0.0, 0.0, 1.0), random.device), dim=1)
    facing = (normals_camera @ half[:, :, None])[..., 0]
    eyes = surface.region("eyes")
    lobe = torch.exp((facing - 1) * style["sharpness"][:, None] * (1 + (_EYE_SHARPNESS - 1) * eyes))
    gloss = torch.lerp(style["gloss"][:, None], style["eye light"][:, None], eyes)
    strength = lobe * gloss * arrives * lamp.share[:, None]
    return Shine(shadow, strength[:, :, None] * lamp.color[:, None])
