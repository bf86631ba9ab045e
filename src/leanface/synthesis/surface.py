"""What is where on a morphable model's head, and from where light reaches it: fixed arrays per vertex.

Positions are decimeters in the model's frame, relative to the landmarks, so that any model with the same five
landmarks will do.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.sparse import coo_matrix, csgraph
from torch import Tensor

from leanface.face.lighting import vertex_normals
from leanface.face.morphable_model import MorphableModel, per_model
from leanface.face.rasterize import interpolate, rasterize

REGIONS = (
    "cheeks", "nose", "under_eyes", "lids", "eye_rims", "forehead_lines", "smile_lines", "crows_feet", "lips",
    "brows", "moustache", "goatee", "jaw", "skin", "eyes", "teeth",
)  # fmt: skip
LIGHTS = 48
"""Directions from which shadows are known."""
WAVES = 24
"""Smooth fields at each of three scales."""
STREAKS = 12
_WAVELENGTHS_DM = ((0.7, 2.0), (0.22, 0.55), (0.09, 0.2))
_SHADOW_MAP_PX = 256

Doubles = NDArray[np.float64]


class Surface(NamedTuple):
    """Static fields over V vertices, float32.

    Attributes:
        regions: softly in [0,1], in the order of `REGIONS`.
        hairline: height above the hairline of a short cut.
        oval: how far outside the oval that a headscarf leaves free; zero on its edge.
        hair_shifts: what one unit of each of (front, sides, back, parting) lowers the hairline by.
        behind: 1 at the back of head and neck, 0 on the face: what long hair hangs from.
        waves: unit-variance smooth fields, coarse to fine.
        streaks: unit-variance fields that run as hair does.
        normals: of the mean head.
        outward: horizontal unit vectors away from the head's axis.
        lights: unit vectors.
        lit: share of the light from each direction of `lights` that arrives.
        openness: share of a white sky that arrives (ambient occlusion).
    """

    regions: Float[Tensor, "regions vertices"]
    hairline: Float[Tensor, " vertices"]
    oval: Float[Tensor, " vertices"]
    hair_shifts: Float[Tensor, "4 vertices"]
    behind: Float[Tensor, " vertices"]
    waves: Float[Tensor, "waves vertices"]
    streaks: Float[Tensor, "streaks vertices"]
    normals: Float[Tensor, "vertices 3"]
    outward: Float[Tensor, "vertices 3"]
    lights: Float[Tensor, "lights 3"]
    lit: Float[Tensor, "lights vertices"]
    openness: Float[Tensor, " vertices"]

    def region(self, name: str) -> Float[Tensor, " vertices"]:
        return self.regions[REGIONS.index(name)]


@per_model
def surface_of(model: MorphableModel) -> Surface:
    """Return the model's surface on the model's device, measured on the CPU: the same wherever it is used."""
    device = model.mean_vertices.device
    vertices: Doubles = model.mean_vertices.cpu().double().numpy()
    landmarks = vertices[model.landmarks.cpu().numpy()]
    eyes, nose, mouth = landmarks[:2], landmarks[2], landmarks[3:].mean(0)
    x: Doubles = vertices[:, 0]
    up: Doubles = vertices[:, 1] - eyes[:, 1].mean()
    back: Doubles = eyes[:, 2].mean() - vertices[:, 2]
    part = _parts(model)
    skin = part == part[int(model.landmarks[2])]
    eyeball = np.isin(part, part[model.landmarks[:2].cpu().numpy()]) & ~skin
    regions = _regions(vertices, eyes, nose, mouth, model.mean_albedo.cpu().double().numpy())
    regions = {name: mask * skin for name, mask in regions.items()}
    regions |= {"skin": skin, "eyes": eyeball, "teeth": ~skin & ~eyeball}

    front, behind = _step(back, 0.6, 0.3), _step(back, 0.7, 0.95)
    line: Doubles = np.interp(
        back, [0.0, 0.25, 0.45, 0.6, 0.75, 0.95, 1.2, 2.0], [0.58, 0.5, 0.4, 0.12, 0.02, 0.02, -0.35, -0.5]
    )
    hairline = up - line
    oval = np.hypot(x / 0.66, (up + 0.33) / 0.92) - 1 + 0.6 * np.maximum(back - 0.45, 0)
    axis = np.stack([x, np.zeros_like(x), vertices[:, 2] - (eyes[:, 2].mean() - 0.95)], -1)
    mean, triangles = model.mean_vertices.cpu(), model.triangles.cpu()
    normals = vertex_normals(mean[None], triangles)[0]
    lights, lit = _visibility(mean, triangles, normals)
    lit[:, torch.from_numpy(~skin)] = 1.0
    facing = (lights @ normals.T).clamp_min(0)
    openness = (lit * facing).sum(0) / facing.sum(0).clamp_min(1e-3)

    def tensor(array: NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array, np.float32)).to(device)

    return Surface(
        regions=tensor(np.stack([regions[name] for name in REGIONS])),
        hairline=tensor(np.where(skin, hairline, -9.0)),
        oval=tensor(np.where(skin, oval, -9.0)),
        hair_shifts=tensor(np.stack([front, 1 - np.maximum(front, behind), behind, front * x])),
        behind=tensor(_step(back, 0.55, 0.9) * skin),
        waves=tensor(_waves(vertices)),
        streaks=tensor(_streaks(x, up, back)),
        normals=normals.to(device),
        outward=tensor(axis / np.linalg.norm(axis, axis=-1, keepdims=True).clip(1e-6)),
        lights=lights.to(device),
        lit=lit.to(device),
        openness=openness.to(device),
    )


def _parts(model: MorphableModel) -> NDArray[np.int64]:
    """Number the connected piece that each vertex belongs to, (vertices,)."""
    triangles = model.triangles.cpu().numpy()
    ends = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]]])
    links = coo_matrix((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=(model.vertex_count,) * 2)
    return np.asarray(csgraph.connected_components(links, directed=False)[1], np.int64)


def _step(x: Doubles, low: float, high: float) -> Doubles:
    """Return 0 at `low` and before, 1 at `high` and beyond, smooth between; `low` may be the larger one."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def _bump(x: Doubles, width: float) -> Doubles:
    return np.exp(-((x / width) ** 2))


def _regions(vertices: Doubles, eyes: Doubles, nose: Doubles, mouth: Doubles, albedo: Doubles) -> dict[str, Doubles]:
    x, across = vertices[:, 0], np.abs(vertices[:, 0])
    up, below = vertices[:, 1] - eyes[:, 1].mean(), mouth[1] - vertices[:, 1]
    from_eye = across - np.abs(eyes[:, 0]).mean()
    facing = _step(vertices[:, 2], nose[2] - 1.0, nose[2] - 0.75)
    rim = np.hypot(from_eye / 0.135, (up + 0.005) / np.where(up > 0, 0.062, 0.055))
    redness = (albedo[:, 0] - albedo[:, 1]) / albedo.sum(1).clip(0.05)
    near_mouth = np.hypot(across / 0.34, below / 0.2) < 1
    usual = np.median(redness[np.hypot(x, below) < 0.6])
    lips = _step(redness - usual, 0.01, 0.035) * near_mouth * facing
    level = up - mouth[1] + eyes[:, 1].mean()  # height above the mouth
    edge = np.interp(across, [0.0, 0.2, 0.34, 0.5, 0.62, 0.72], [0.2, 0.19, 0.02, 0.0, 0.25, 0.75])
    beard = _step(edge - level, -0.06, 0.14) * _step(level, -0.75, -0.5) * _step(nose[2] - vertices[:, 2], 1.35, 1.1)
    beard = beard * (1 - lips)
    upper = _step(level, -0.02, 0.06) * _step(across, 0.36, 0.28)
    chin = _step(across, 0.42, 0.16) * _step(level, 0.04, -0.1)
    brow = np.interp(across, [0.08, 0.13, 0.34, 0.53, 0.6], [0.07, 0.085, 0.16, 0.11, 0.07])
    furrow = np.interp(across, [0.12, 0.3, 0.42], [0.3, 0.1, -0.12])  # from the nostril past the mouth's corner
    return {
        "cheeks": _bump(across - 0.42, 0.2) * _bump(level - 0.33, 0.19) * facing,
        "nose": _bump(np.linalg.norm(vertices - nose, axis=1), 0.18),
        "under_eyes": _bump(from_eye, 0.15) * _bump(up + 0.12, 0.05) * facing,
        "lids": _step(rim, 0.9, 1.1) * _step(rim, 2.4, 1.5) * (up > -0.02) * facing,
        "eye_rims": _bump(rim - 1.05, 0.25) * np.where(up > 0, 1.0, 0.5) * facing,
        "forehead_lines": sum(_bump(up - at - 0.03 * np.cos(4 * x + at), 0.014) for at in (0.34, 0.42, 0.5, 0.58))
        * _step(across, 0.5, 0.3)
        * facing,
        "smile_lines": _bump(level - furrow, 0.04) * _step(across, 0.13, 0.18) * _step(across, 0.44, 0.36) * facing,
        "crows_feet": sum(_bump(up - tilt * (from_eye - 0.1), 0.012) for tilt in (-0.5, 0.0, 0.5))
        * _step(from_eye, 0.13, 0.17)
        * _step(from_eye, 0.34, 0.24),
        "lips": lips,
        "brows": _bump(up - brow, 0.035) * _step(across, 0.08, 0.13) * _step(across, 0.6, 0.48) * facing,
        "moustache": beard * upper,
        "goatee": beard * chin,
        "jaw": beard * (1 - np.maximum(upper, chin)),
    }


def _waves(vertices: Doubles) -> Doubles:
    """Return plane waves of random direction and phase, three scales from coarse to fine."""
    rng = np.random.default_rng(0)
    direction = rng.normal(size=(len(_WAVELENGTHS_DM), WAVES, 3))
    direction /= np.linalg.norm(direction, axis=-1, keepdims=True)
    octaves: Doubles = np.log(np.array(_WAVELENGTHS_DM))[..., None]
    frequency = 2 * math.pi / np.exp(rng.uniform(octaves[:, 0], octaves[:, 1], direction.shape[:2]))
    phase = rng.uniform(0, 2 * math.pi, (len(_WAVELENGTHS_DM) * WAVES, 1))
    return math.sqrt(2) * np.sin((direction * frequency[..., None]).reshape(-1, 3) @ vertices.T + phase)


def _streaks(x: Doubles, up: Doubles, back: Doubles) -> Doubles:
    """Draw streaks down from the crown, then along the head."""
    rng = np.random.default_rng(1)
    around = np.arctan2(x, back - 0.95) + 0.04 * np.sin(7 * up)
    along = 1.3 * x + 0.05 * np.sin(5 * back)
    turns = np.linspace(11, 41, STREAKS // 2).round()[:, None]
    phase = rng.uniform(0, 2 * math.pi, (STREAKS, 1))
    return math.sqrt(2) * np.sin(np.concatenate([turns * around, turns * along]) + phase)


def _visibility(mean: Tensor, triangles: Tensor, normals: Tensor) -> tuple[Tensor, Tensor]:
    """Return directions over a sphere's front three quarters, and which vertices of the mean head each one reaches.

    A shadow map per direction: a vertex is lit if nothing is drawn clearly nearer to the lamp.
    """
    turn = torch.arange(LIGHTS) * math.pi * (3 - math.sqrt(5))
    z = 1 - 1.6 * (torch.arange(LIGHTS) + 0.5) / LIGHTS
    ring = (1 - z * z).sqrt()
    lights = torch.stack([ring * turn.cos(), ring * turn.sin(), z], -1)
    up = torch.tensor([0.0, 1.0, 0.0]).expand_as(lights)
    right = torch.nn.functional.normalize(torch.cross(up, lights, dim=-1), dim=-1)
    frame = torch.stack([right, torch.cross(lights, right, dim=-1), lights], -1)  # (lights, model, lamp)
    center = mean.mean(0)
    seen = (mean - center) @ frame
    scale = 0.48 * _SHADOW_MAP_PX / seen[..., :2].abs().max()
    pixel = seen[..., :2] * scale * torch.tensor([1.0, -1.0]) + (_SHADOW_MAP_PX - 1) / 2
    height = seen[..., 2:] - seen[..., 2].min() + 1.0  # positive, larger is nearer, as 1 / depth is
    fragments = rasterize(torch.cat([pixel, height], -1), triangles, _SHADOW_MAP_PX)
    drawn = interpolate(fragments, height.expand(-1, -1, 3).contiguous(), triangles)[..., 0].flatten(1)
    at = pixel.round().long().clamp(0, _SHADOW_MAP_PX - 1)
    nearest = drawn.gather(1, at[..., 1] * _SHADOW_MAP_PX + at[..., 0])
    lit = ((height[..., 0] > nearest - 0.06) & ((lights @ normals.T) > -0.1)).float()
    return lights, _smooth(lit, triangles, 4)


def _smooth(field: Tensor, triangles: Tensor, times: int) -> Tensor:
    """Average each vertex with its triangles, so that shadows have soft edges."""
    count = torch.zeros(field.shape[1], device=field.device)
    for corner in triangles.unbind(1):
        count.index_add_(0, corner, torch.ones_like(corner, dtype=field.dtype))
    for _ in range(times):
        mean = field[:, triangles].mean(-1)
        total = torch.zeros_like(field)
        for corner in triangles.unbind(1):
            total.index_add_(1, corner, mean)
        field = total / count.clamp_min(1)
    return field
