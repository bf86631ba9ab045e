"""Things on, below and in front of a head: glasses, neck and clothes, a hand, a microphone.

They are small meshes, drawn in one go with the head's, so that they turn, hide and are hidden as real things are.
What an image does not have is shrunk to a point, which covers no pixel.
"""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from leanface.face.camera import camera_from_model
from leanface.face.coefficients import Coefficients
from leanface.face.morphable_model import MorphableModel, per_model
from leanface.synthesis.appearance import fabric_color
from leanface.synthesis.draws import Random, Range, constant
from leanface.synthesis.surface import REGIONS, surface_of

_KINDS: dict[str, Range] = {
    "glasses": (0.22, 1.0, 1.0),
    "sunglasses": (0.04, 1.0, 1.0),
    "hand": (0.05, 1.0, 1.0),
    "microphone": (0.03, 1.0, 1.0),
}
_SHAPES: dict[str, Range] = {
    "lens width": (1.0, 0.22, 0.285),
    "lens height": (1.0, 0.14, 0.25),
    "squareness": (1.0, 0.0, 1.0),
    "rim": (1.0, 0.008, 0.035),
    "slip": (1.0, -0.1, 0.02),
    "collar": (1.0, -0.1, 0.12),
    "neckline": (0.6, 0.05, 0.5),
    "jacket": (0.35, 1.0, 1.0),
    "shoulders": (1.0, 0.8, 1.15),
    "hand around": (1.0, -3.4, 0.3),
    "hand reach": (1.0, 0.75, 1.25),
    "hand tilt": (1.0, -0.5, 0.5),
    "hand roll": (1.0, -0.8, 0.8),
    "microphone side": (1.0, -0.35, 0.35),
    "microphone drop": (1.0, 0.15, 0.6),
    "microphone tilt": (1.0, -0.7, 0.7),
}
_FOLLOW = 0.35
"""How far shoulders turn with the head."""
_NECK_DM = (0.0, -0.92, -1.2)
"""What the head turns on, in the model's frame."""

Doubles = NDArray[np.float64]


class _Mesh(NamedTuple):
    points: Doubles
    triangles: NDArray[np.int64]


class _Glasses(NamedTuple):
    """Points: center + (round or square) * (width, height, 1) + thickness * thick, around the middle of the eyes."""

    center: Tensor
    round: Tensor
    square: Tensor
    thick: Tensor


class Wardrobe(NamedTuple):
    """The meshes, in the order in which they follow the head's vertices, and the triangles of all."""

    triangles: Int[Tensor, "triangles 3"]
    brow: Int[Tensor, " few"]
    skin_share: Float[Tensor, " vertices"]
    frame: _Glasses
    lenses: _Glasses
    body: Float[Tensor, "points 3"]
    garment: Float[Tensor, "points 3"]
    garment_top: Float[Tensor, " points"]
    garment_front: Float[Tensor, " points"]
    hand: Float[Tensor, "points 3"]
    microphone: Float[Tensor, "points 3"]


class Worn(NamedTuple):
    """What to draw beside the head, in the camera's frame."""

    vertices: Float[Tensor, "batch points 3"]
    albedo: Float[Tensor, "batch points 3"]


def accessorise(
    random: Random,
    model: MorphableModel,
    bare_vertices: Float[Tensor, "batch vertices 3"],
    albedo: Float[Tensor, "batch vertices 3"],
    parts: Coefficients[Tensor],
    amount: float,
) -> Worn:
    """Put accessories on heads.

    Args:
        bare_vertices: of the heads without hair, in the model's frame: glasses sit on them.
        albedo: of the heads; necks and hands get its mean color.
        parts: where the heads are and how they are turned.
        amount: scales the probability of glasses, hands and microphones.
    """
    wardrobe, count = wardrobe_of(model), len(bare_vertices)
    kinds, shape = random.table(_KINDS, count, amount), random.table(_SHAPES, count)
    skin = wardrobe.skin_share @ albedo
    landmarks = bare_vertices[:, model.landmarks]
    worn: list[tuple[Tensor, Tensor]] = []

    eyes, span = landmarks[:, :2].mean(1), (landmarks[:, 1, 0] - landmarks[:, 0, 0]) / 0.6
    brow = bare_vertices[:, wardrobe.brow, 2].amax(1)
    seat = torch.stack([eyes[:, 0], eyes[:, 1] + shape["slip"], brow + 0.03], 1)
    frame_color, lens_color = fabric_color(random, count) * 0.6, 0.12 * fabric_color(random, count)
    for glasses, present, color in (
        (wardrobe.frame, torch.maximum(kinds["glasses"], kinds["sunglasses"]), frame_color),
        (wardrobe.lenses, kinds["sunglasses"], lens_color),
    ):
        local = _spectacles(glasses, shape) * span[:, None, None] * present[:, None, None]
        placed = camera_from_model(local + seat[:, None], parts.angles_rad, parts.translation)
        worn.append((placed, color[:, None].expand_as(placed)))

    neck = constant(_NECK_DM, random.device).expand(count, 1, 3)
    pivot = camera_from_model(neck, parts.angles_rad, parts.translation)[:, 0]
    upright = parts.angles_rad * _FOLLOW
    stretch = torch.stack([shape["shoulders"], torch.ones_like(span), torch.ones_like(span)], 1)[:, None]
    body = camera_from_model(wardrobe.body * stretch, upright, pivot)
    worn.append((body, (0.9 * skin)[:, None].expand_as(body)))
    garment, color = _garment(random, wardrobe, shape)
    worn.append((camera_from_model(garment * stretch, upright, pivot), color))

    around, reach = shape["hand around"], shape["hand reach"]
    middle = camera_from_model(landmarks.mean(1, keepdim=True), parts.angles_rad, parts.translation)[:, 0]
    aside = torch.stack([around.cos() * reach, around.sin() * reach, torch.full_like(reach, 0.45)], 1)
    turn = torch.stack([shape["hand tilt"], shape["hand roll"], around + torch.pi / 2 + shape["hand tilt"]], 1)
    hand = camera_from_model(wardrobe.hand * kinds["hand"][:, None, None], turn, middle + aside)
    worn.append((hand, skin[:, None].expand_as(hand)))

    mouth = camera_from_model(landmarks[:, 3:].mean(1, keepdim=True), parts.angles_rad, parts.translation)[:, 0]
    before = torch.stack([shape["microphone side"], -shape["microphone drop"], torch.full_like(reach, 0.55)], 1)
    lean = torch.stack([torch.zeros_like(reach) - 0.5, torch.zeros_like(reach), shape["microphone tilt"]], 1)
    microphone = camera_from_model(wardrobe.microphone * kinds["microphone"][:, None, None], lean, mouth + before)
    worn.append((microphone, (0.3 * fabric_color(random, count))[:, None].expand_as(microphone)))
    return Worn(torch.cat([place for place, _ in worn], 1), torch.cat([paint for _, paint in worn], 1))


def _spectacles(glasses: _Glasses, shape: dict[str, Tensor]) -> Tensor:
    scale = torch.stack([shape["lens width"], shape["lens height"], torch.ones_like(shape["rim"])], 1)[:, None]
    outline = torch.lerp(glasses.round, glasses.square, shape["squareness"][:, None, None])
    return glasses.center + outline * scale + shape["rim"][:, None, None] * glasses.thick


def _garment(random: Random, wardrobe: Wardrobe, shape: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Draw points around the neck and their colors: a pullover, a shirt, or a jacket over a shirt."""
    count = len(shape["collar"])
    up = shape["collar"][:, None] * wardrobe.garment_top
    cut = shape["neckline"][:, None] * wardrobe.garment_top * wardrobe.garment_front
    moved = torch.stack([torch.zeros_like(up), up - cut, 0.5 * cut], -1)
    cloth, shirt = fabric_color(random, count)[:, None], fabric_color(random, count).sqrt()[:, None]
    under = (shape["jacket"][:, None] * wardrobe.garment_front)[:, :, None]
    return wardrobe.garment + moved, torch.lerp(cloth, shirt, under)


@per_model
def wardrobe_of(model: MorphableModel) -> Wardrobe:
    device = model.triangles.device
    frame, lenses = _join(*_frame_pieces()), _join(*_lens_pieces())
    body, garment = _lathe(_BODY), _lathe(_GARMENT)
    rings = len(_GARMENT)
    top = np.repeat(np.clip(1 - np.arange(rings) / 3, 0, 1), len(garment.points) // rings)
    angle = np.arctan2(garment.points[:, 0], garment.points[:, 2])
    hand, microphone = _join(*_hand_pieces()), _join(*_microphone_pieces())

    triangles, first = [model.triangles.cpu().numpy()], model.vertex_count
    for piece in (frame, lenses, body, garment, hand, microphone):
        triangles.append(piece.triangles + first)
        first += len(piece.points)

    def tensor(array: Doubles) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array, np.float32)).to(device)

    def glasses(points: Doubles) -> _Glasses:
        return _Glasses(*(tensor(points[:, 3 * i : 3 * i + 3]) for i in range(4)))

    surface = surface_of(model)
    skin = surface.regions[REGIONS.index("cheeks")] + surface.regions[REGIONS.index("nose")]
    brow = surface.regions[REGIONS.index("brows")] > 0.5
    return Wardrobe(
        triangles=torch.from_numpy(np.concatenate(triangles)).to(device),
        brow=brow.nonzero()[:, 0],
        skin_share=skin / skin.sum(),
        frame=glasses(frame.points),
        lenses=glasses(lenses.points),
        body=tensor(body.points),
        garment=tensor(garment.points),
        garment_top=tensor(top),
        garment_front=tensor(np.clip(np.cos(angle), 0, 1) ** 6),
        hand=tensor(hand.points),
        microphone=tensor(microphone.points),
    )


def _join(*pieces: _Mesh) -> _Mesh:
    firsts = np.cumsum([0] + [len(piece.points) for piece in pieces])
    triangles = [piece.triangles + first for piece, first in zip(pieces, firsts, strict=False)]
    return _Mesh(np.concatenate([piece.points for piece in pieces]), np.concatenate(triangles))


def _strip(rows: int, columns: int, closed: bool = False) -> NDArray[np.int64]:
    """Return the triangles of a grid of points that is closed across its columns and, on demand, across its rows."""
    row, column = np.meshgrid(np.arange(rows if closed else rows - 1), np.arange(columns), indexing="ij")
    a = row * columns + column
    b = row * columns + (column + 1) % columns
    c, d = (a + columns) % (rows * columns), (b + columns) % (rows * columns)
    return np.stack([a, c, b, b, c, d], -1).reshape(-1, 3)


def _tube(points: Doubles, radii: Doubles, across: Doubles, segments: int = 6) -> _Mesh:
    """Return a tube around a path: (n,3) points, (n,) radii; `across` is a unit vector not along the path."""
    along = np.gradient(points, axis=0)
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    first = np.cross(along, across)
    first /= np.linalg.norm(first, axis=1, keepdims=True)
    second = np.cross(along, first)
    angle = np.arange(segments) * 2 * np.pi / segments
    ring = first[:, None] * np.cos(angle)[:, None] + second[:, None] * np.sin(angle)[:, None]
    return _Mesh((points[:, None] + radii[:, None, None] * ring).reshape(-1, 3), _strip(len(points), segments)[:, ::-1])


_BODY = ((0.5, 0.36, 0.38), (0.1, 0.42, 0.45), (-0.1, 0.46, 0.48), (-0.3, 0.62, 0.5), (-0.5, 1.15, 0.55),
         (-0.9, 1.75, 0.7), (-1.8, 1.9, 0.8))  # fmt: skip
_GARMENT = ((-0.02, 0.52, 0.54), (-0.2, 0.6, 0.58), (-0.34, 0.85, 0.62), (-0.46, 1.2, 0.66),
            (-0.62, 1.6, 0.72), (-0.95, 1.9, 0.82), (-1.5, 2.05, 0.92), (-2.2, 2.1, 0.95))  # fmt: skip
"""Height, half width and half depth of each ring, from the neck down."""


def _lathe(rings: tuple[tuple[float, float, float], ...], segments: int = 32) -> _Mesh:
    height, width, depth = np.array(rings).T[..., None]
    angle = np.arange(segments) * 2 * np.pi / segments
    points = np.stack([width * np.sin(angle), height + 0 * angle, depth * np.cos(angle)], -1)
    return _Mesh(points.reshape(-1, 3), _strip(len(rings), segments))


_OUTLINE = 24


def _outlines() -> tuple[Doubles, Doubles]:
    """Return a round and a rounded square lens (OUTLINE,3) of half width 1, counter-clockwise."""
    angle = np.arange(_OUTLINE) * 2 * np.pi / _OUTLINE
    circle = np.stack([np.cos(angle), np.sin(angle), 0 * angle], -1)
    square = circle / np.linalg.norm(circle, ord=5, axis=1, keepdims=True)
    return circle, square


def _frame_pieces() -> list[_Mesh]:
    """Return two rims, a bridge and two temples; points have the twelve columns of `_Glasses`."""
    circle, square = _outlines()
    pieces: list[_Mesh] = []
    for side in (-1.0, 1.0):
        middle = np.array([0.31 * side, -0.03, 0.0])
        section = np.array([(1, 0), (0, 1), (-1, 0), (0, -1)]) * (0.5, 0.6)
        thick = circle[:, None] * section[:, :1] + np.array([0, 0, 1.0]) * section[:, 1:]
        bend = np.array([0, 0, -0.04]) * side * circle[:, :1]
        rows = [np.broadcast_to((middle + bend)[:, None], thick.shape)]
        rows += [np.broadcast_to(shape[:, None], thick.shape) for shape in (circle, square)]
        pieces.append(_Mesh(np.concatenate([*rows, thick], -1).reshape(-1, 12), _strip(_OUTLINE, 4, closed=True)))
        hinge = np.array([0.31 * side, 0.02, -0.03])
        reach = np.linspace(0, 1, 6)[:, None]
        path = hinge + reach * np.array([0.22 * side, -0.02, -0.95])
        tube = _tube(path, np.ones(6), np.array([0.0, 1.0, 0.0]), 4)
        center = np.repeat(path, 4, 0)
        outwards = np.repeat((1 - 0.5 * reach) * np.array([side, 0, 0]), 4, 0)
        thickness = (tube.points - center) * (0.4, 1.0, 0.4)
        pieces.append(_Mesh(np.concatenate([center, outwards, outwards, thickness], 1), tube.triangles))
    path = np.stack([np.linspace(-0.31, 0.31, 5), [0.0, 0.03, 0.05, 0.03, 0.0], [0.0, 0.03, 0.04, 0.03, 0.0]], 1)
    inwards = np.stack([np.linspace(1, -1, 5), np.zeros(5), np.zeros(5)], 1)
    tube = _tube(path, np.ones(5), np.array([0.0, 1.0, 0.0]), 4)
    center = np.repeat(path, 4, 0)
    inwards = np.repeat(inwards, 4, 0)
    pieces.append(_Mesh(np.concatenate([center, inwards, inwards, 0.6 * (tube.points - center)], 1), tube.triangles))
    return pieces


def _lens_pieces() -> list[_Mesh]:
    circle, square = _outlines()
    pieces: list[_Mesh] = []
    for side in (-1.0, 1.0):
        rows: list[Doubles] = []
        for share in (1.0, 0.6, 0.05):
            center = np.array([0.31 * side, -0.03, -0.005]) + np.array([0, 0, -0.04]) * side * circle[:, :1] * share
            rows.append(np.concatenate([center, share * circle, share * square, 0 * circle], 1))
        pieces.append(_Mesh(np.concatenate(rows), _strip(3, _OUTLINE)[:, ::-1]))
    return pieces


def _hand_pieces() -> list[_Mesh]:
    """Return a right hand's back, fingers up, tips near the origin."""
    across = np.array([0.0, 0.0, 1.0])
    pieces: list[_Mesh] = []
    for root, tip in (
        ((-0.27, -0.62, 0.0), (-0.33, -0.16, 0.04)),
        ((-0.09, -0.58, 0.0), (-0.10, 0.02, 0.06)),
        ((0.09, -0.58, 0.0), (0.11, 0.0, 0.06)),
        ((0.26, -0.64, 0.0), (0.31, -0.12, 0.04)),
        ((-0.3, -1.1, 0.0), (-0.66, -0.7, 0.08)),
    ):
        share = np.array([0.0, 0.25, 0.5, 0.75, 0.92, 0.98, 1.0])[:, None]
        path = np.array(root) * (1 - share) + np.array(tip) * share
        pieces.append(_tube(path, 0.095 * np.array([1.05, 1, 0.95, 0.9, 0.75, 0.5, 0.1]), across, 8))
    height = np.linspace(-2.4, -0.5, 10)
    path = np.stack([0 * height, height, 0 * height], 1)
    palm = _tube(path, np.array([0.28, 0.28, 0.28, 0.27, 0.29, 0.35, 0.38, 0.38, 0.34, 0.1]), across, 12)
    pieces.append(_Mesh(palm.points * (1.0, 1.0, 0.5), palm.triangles))
    return pieces


def _microphone_pieces() -> list[_Mesh]:
    angle = np.linspace(0.05, np.pi - 0.05, 9)
    profile = np.concatenate([np.stack([0.19 * np.cos(angle), 0.19 * np.sin(angle)], 1),
                              [(-0.2, 0.1), (-0.6, 0.08), (-1.0, 0.07), (-1.4, 0.06), (-1.8, 0.06)]])  # fmt: skip
    path = np.stack([0 * profile[:, 0], profile[:, 0], 0 * profile[:, 0]], 1)
    return [_tube(path, profile[:, 1], np.array([0.0, 0.0, 1.0]), 14)]
