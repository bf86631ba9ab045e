"""A population of skins: natural tones, hair, beards, make-up and eyes, as colors of the dense vertices."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tools.face_model.regions import Regions, sample_picture
from tools.face_model.sources import read_picture
from tools.face_model.topology import Topology

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

# CIELAB along the range of human skin, from the lightest to the darkest; between them tone is interpolated.
# Hue stays within a narrow band, which is what keeps skins from turning green or red.
# The values were chosen by eye.
_TONE_STOPS = np.array([0.0, 0.25, 0.5, 0.75, 1.0])
_TONE_LAB = np.array([
    [75.0, 10.0, 13.0], [68.0, 12.0, 16.0], [58.0, 13.0, 17.5], [46.0, 12.5, 16.0], [35.0, 10.0, 11.5]
])  # fmt: skip
_IRIS_COLORS = np.array(
    [[0.26, 0.16, 0.09], [0.17, 0.10, 0.06], [0.33, 0.42, 0.50], [0.33, 0.37, 0.25], [0.40, 0.41, 0.40]]
)
_HAIR_COLORS = np.array(
    [[0.07, 0.055, 0.05], [0.17, 0.11, 0.075], [0.36, 0.25, 0.16], [0.56, 0.44, 0.29], [0.50, 0.49, 0.47]]
)


class SkinDetail(NamedTuple):
    """What photographs add to a plain tone.

    Attributes:
        log_ratio: (skins, dense, 3) float32: log of the color over the face's median color.
        dark: (skins,) true for skins photographed on dark-skinned people.
    """

    log_ratio: Floats
    dark: NDArray[np.bool_]


def read_skin_details(skins: Path, topology: Topology, regions: Regions) -> SkinDetail:
    """Reads the 20 photographic skins (the two with painted suits are left out) at the dense vertices."""
    files = [p for p in sorted(skins.glob("skins/*/textures/*.png")) if "suit" not in p.name]
    colors = np.array([sample_picture(read_picture(p, "RGB"), topology.source_uv) for p in files])
    colors = np.clip(colors, 0.02, 1)
    plain = np.log(np.median(colors[:, regions.face], axis=1, keepdims=True))
    ratio: Floats = np.log(colors) - plain
    # Chroma varies less than lightness on real faces; scaling it down also evens out the pictures' casts.
    gray = ratio.mean(axis=2, keepdims=True)
    ratio = np.clip(gray, -0.9, 0.12) + np.clip(0.7 * (ratio - gray), -0.2, 0.2)
    keep = topology.skin & (regions.hair.max(axis=0) < 0.05)
    # Hair is painted later, at will: under it the skin is plain.
    bare = 1 - regions.hair.max(axis=0)
    ratio = np.where(keep[:, None], ratio, ratio * bare[:, None])
    return SkinDetail(ratio.astype(np.float32), np.array(["darkskinned" in p.name for p in files]))


def srgb_from_lab(lab: Doubles) -> Doubles:
    """(..., 3) sRGB in [0, 1] from CIELAB under D65.

    Source: IEC 61966-2-1 and CIE 15.
    """
    fy = (lab[..., 0] + 16) / 116
    f = np.stack([fy + lab[..., 1] / 500, fy, fy - lab[..., 2] / 200], axis=-1)
    xyz = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29)) * [0.95047, 1.0, 1.08883]
    to_rgb = np.array([[3.2406, -1.5372, -0.4986], [-0.9689, 1.8758, 0.0415], [0.0557, -0.2040, 1.0570]])
    linear = np.clip(xyz @ to_rgb.T, 0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def sample_albedos(
    detail: SkinDetail,
    topology: Topology,
    regions: Regions,
    mean: Doubles,
    count: int,
    rng: np.random.Generator,
) -> Floats:
    """Random skins: (count, dense * 3) float32, sRGB in [0, 1].

    Args:
        detail: the photographs.
        topology: the mesh.
        regions: masks.
        mean: (dense, 3) mean head, decimeters, by which photographs are mixed regionally.
        count: how many.
        rng: source of randomness.
    """
    out = np.empty((count, len(mean) * 3), dtype=np.float32)
    for row in range(count):
        out[row] = _one_albedo(detail, topology, regions, mean, rng).reshape(-1)
    return out


def _one_albedo(
    detail: SkinDetail, topology: Topology, regions: Regions, mean: Doubles, rng: np.random.Generator
) -> Doubles:
    """(dense, 3) one random skin."""
    tone = rng.beta(1.8, 1.9)
    lab = np.array([np.interp(tone, _TONE_STOPS, _TONE_LAB[:, i]) for i in range(3)])
    plain = srgb_from_lab(lab + rng.normal(0, [1.5, 1.2, 1.4]))
    color = plain * np.exp(rng.uniform(0.75, 1.15) * _mixed_detail(detail, mean, tone, rng))

    hair_color = _hair_color(tone, rng)
    blush = regions.cheeks * rng.uniform(0, 0.14)
    color = color * np.exp(blush[:, None] * np.array([0.15, -0.75, -0.55]))
    color = _paint(color, regions.lips, rng.uniform(0.1, 0.6), _lip_color(plain, rng))
    if rng.random() < 0.35:
        color = _paint(color, regions.lids, rng.uniform(0, 0.3), plain * rng.uniform(0.35, 0.7))
    if rng.random() < 0.45:
        stubble = 0.55 * hair_color + 0.25 * plain
        color = _paint(color, regions.beard, rng.uniform(0, 0.5) ** 1.2, stubble)
    hairline = rng.dirichlet([0.5, 0.5, 0.5]) @ regions.hair
    bald = rng.random() < 0.15
    color = _paint(color, hairline, rng.uniform(0, 0.3) if bald else rng.uniform(0.55, 1.0), hair_color)
    brow = rng.dirichlet([0.3] * len(regions.brows)) @ regions.brows
    color = _paint(color, brow, rng.uniform(0.55, 0.95), 0.75 * hair_color + 0.12 * plain)
    color = _paint(color, regions.lashes, rng.uniform(0.35, 0.85), np.array([0.06, 0.045, 0.04]))
    inside = np.array([0.27, 0.09, 0.085]) * rng.uniform(0.8, 1.15)
    color = _paint(color, regions.mouth_inside, 0.93, inside)
    color = _teeth(color, topology, regions, mean, rng)
    return np.clip(_eyeballs(color, topology, regions, tone, rng), 0, 1)


def _paint(color: Doubles, mask: Floats | Doubles, strength: float, paint: Doubles) -> Doubles:
    """Blends towards a color."""
    amount = (np.clip(mask, 0, 1) * strength)[:, None]
    return color + amount * (paint - color)


def _mixed_detail(detail: SkinDetail, mean: Doubles, tone: float, rng: np.random.Generator) -> Doubles:
    """(dense, 3) log color ratios: three photographs, mixed with weights that drift over the face."""
    # Dark photographs suit dark tones: their highlights and lips differ in kind, not only in tone.
    likely = np.where(detail.dark, 0.02 + tone**2, 1.02 - tone)
    chosen = rng.choice(len(likely), 3, replace=False, p=likely / likely.sum())
    centers = mean[rng.integers(0, len(mean), 5)]
    nearness = np.exp(-((mean[:, None] - centers) ** 2).sum(axis=-1) / 1.2)
    weights = np.log(rng.dirichlet([0.8, 0.6, 0.4]) + 1e-3) + nearness @ rng.normal(0, 0.8, (5, 3))
    weights = np.exp(weights - weights.max(axis=1, keepdims=True))
    weights /= weights.sum(axis=1, keepdims=True)
    return np.einsum("vs,svc->vc", weights, detail.log_ratio[chosen])


def _hair_color(tone: float, rng: np.random.Generator) -> Doubles:
    """Black to blond or gray; darker skins have darker hair."""
    light = np.clip(1 - 1.6 * tone, 0, 1)
    odds = np.array([0.45 + tone, 0.4, 0.35 * light, 0.2 * light, 0.12])
    return _HAIR_COLORS[rng.choice(5, p=odds / odds.sum())] * rng.uniform(0.8, 1.25)


def _lip_color(plain: Doubles, rng: np.random.Generator) -> Doubles:
    """The skin's own tone, redder; lipstick now and then."""
    natural = plain * np.array([0.92, 0.66, 0.68])
    if rng.random() < 0.2:
        return 0.35 * natural + 0.65 * np.array([0.62, 0.17, 0.20]) * rng.uniform(0.7, 1.1)
    return natural * rng.uniform(0.85, 1.1)


def _teeth(color: Doubles, topology: Topology, regions: Regions, mean: Doubles, rng: np.random.Generator) -> Doubles:
    """Off-white, darker towards the back, where light doesn't reach."""
    enamel = np.array([0.80, 0.76, 0.68]) * rng.uniform(0.8, 1.05)
    gum = np.array([0.52, 0.22, 0.21])
    row = enamel + regions.gums[:, None] * (gum - enamel)
    depth = mean[topology.teeth, 2].max() - mean[:, 2]
    lit = 1 - 0.75 * np.clip(depth / 0.25, 0, 1)
    return np.where(topology.teeth[:, None], row * lit[:, None], color)


def _eyeballs(color: Doubles, topology: Topology, regions: Regions, tone: float, rng: np.random.Generator) -> Doubles:
    """Sclera, iris and pupil, shaded by the lids; blue and green irises come with light skin."""
    light = np.clip(1 - 1.7 * tone, 0, 1)
    odds = np.array([0.45, 0.4, 0.3 * light, 0.2 * light, 0.2 * light])
    iris_color = _IRIS_COLORS[rng.choice(5, p=odds / odds.sum())] * rng.uniform(0.85, 1.15)
    ball = np.broadcast_to(np.array([0.78, 0.75, 0.73]) * rng.uniform(0.92, 1.04), color.shape)
    ball = _paint(ball, regions.iris, 1.0, iris_color)
    ball = _paint(ball, regions.pupil, 1.0, np.array([0.02, 0.02, 0.02]))
    ball = ball * (1 - 0.45 * regions.eye_shade[:, None] * [0.85, 1.0, 1.0])
    return np.where(topology.eyes[:, None], ball, color)
