"""The network that places 468 landmarks on a face whose place is roughly known, and says whether it is one.

Source: Kartynnik et al., "Real-time Facial Surface Geometry from Monocular Video on Mobile GPUs", 2019
(arXiv:1907.06724). The network is MediaPipe's face_landmark, converted by tools/face_finding/convert_tflite.py; its
canonical_face_model says which landmark is where.
"""

import math
from typing import Any, NamedTuple, Self

import numpy as np
from jaxtyping import Float, Float32, UInt8
from PIL import Image

from leanface.face.compiled import compiled
from leanface.photos.face_network import FACE_NETWORKS, FaceNetwork

COUNT = 468

EYES = ((159, 145), (386, 374))
"""Middle of the upper and of the lower lid of the image-left and of the image-right eye: the iris is between them."""

NOSE_TIP = 1
MOUTH_CORNERS = ((61, 78), (291, 308))
"""Outer and inner corner of the lips: smiles pull the outer ones too far apart, the inner ones lie too close."""

OUTER_EYE_CORNERS = (33, 263)

MARGIN = 1.5
"""Side of the square that the network sees, in sides of the face's box."""

FACE_FROM_MESH = 1.15
"""Size of the box that MTCNN draws around a face, in sizes of the landmarks'."""


class Region(NamedTuple):
    """A square of the photo, turned with the head. In edge coordinates: a W x H photo spans [0, W] x [0, H].

    Attributes:
        angle_rad: from the photo's x axis to the square's, clockwise as y points down.
    """

    center: Float[np.ndarray, "2"]
    side: float
    angle_rad: float

    @classmethod
    def of_box(
        cls, box: Float[np.ndarray, "4"], left_eye: Float[np.ndarray, "2"], right_eye: Float[np.ndarray, "2"]
    ) -> Self:
        """Surround a detected face; the eyes, as seen in an upright picture of it, say how it is turned."""
        return cls((box[:2] + box[2:]) / 2, MARGIN * float((box[2:] - box[:2]).max()), _angle(left_eye, right_eye))

    @classmethod
    def of_points(cls, points: Float[np.ndarray, "468 2"]) -> Self:
        """Surround the landmarks of an earlier look."""
        angle = _angle(*points[list(OUTER_EYE_CORNERS)])
        turn = _rotation(angle)
        upright = points @ turn
        low, high = upright.min(0), upright.max(0)
        return cls(turn @ ((low + high) / 2), MARGIN * float((high - low).max()), angle)

    def turned(self, quarters: int) -> "Region":
        """Return the same square, turned clockwise."""
        return self._replace(angle_rad=self.angle_rad + quarters * math.pi / 2)

    def turn_from(self, other: "Region") -> float:
        """Measure how far this one is turned against another one, without a sign."""
        return abs(math.remainder(self.angle_rad - other.angle_rad, math.tau))

    def distance_from(self, other: "Region") -> float:
        """Return how far this one's center lies from another one's, in sides of that one."""
        return float(np.linalg.norm(self.center - other.center)) / other.side


class Mesh(NamedTuple):
    """Landmarks in edge coordinates, and how sure the network is that it sees a face (a logit)."""

    points: Float[np.ndarray, "468 2"]
    logit: float

    @property
    def box(self) -> Float[np.ndarray, "4"]:
        """Left, top, right and bottom of a face: the landmarks', and the forehead up to the hair, as MTCNN sees it."""
        low, high = self.points.min(0), self.points.max(0)
        center, half_size = (low + high) / 2, (high - low) * FACE_FROM_MESH / 2
        return np.concatenate([center - half_size, center + half_size])

    @property
    def five(self) -> Float[np.ndarray, "5 2"]:
        """Both eyes, nose tip and mouth corners; first the one that is on the image's left in the upright face."""
        eyes, mouth = ([self.points[list(pair)].mean(0) for pair in pairs] for pairs in (EYES, MOUTH_CORNERS))
        return np.stack([*eyes, self.points[NOSE_TIP], *mouth])


class FaceMesh:
    """The network. Any threads may share it."""

    def __init__(self) -> None:
        """Load the packaged network.

        Raises:
            ArtifactError: the file is missing or damaged.
        """
        self._network = FaceNetwork(FACE_NETWORKS / "landmarks.onnx")

    def locate(self, photo: UInt8[np.ndarray, "H W 3"], region: Region) -> Mesh:
        """Place the landmarks of the face in a region of an RGB photo."""
        side = self._network.side
        points, logit = self._network(_cut(photo, region, side)[None])
        offsets = points.reshape(COUNT, 3)[:, :2].astype(np.float64) - side / 2
        turned = offsets @ _rotation(region.angle_rad).T
        return Mesh(region.center + turned * (region.side / side), float(logit.ravel()[0]))


def _angle(left: Float[np.ndarray, "2"], right: Float[np.ndarray, "2"]) -> float:
    across, down = (right - left).tolist()
    return math.atan2(down, across)


def _rotation(angle_rad: float) -> Float[np.ndarray, "2 2"]:
    """Return a rotation that acts on column vectors."""
    cos, sin = math.cos(angle_rad), math.sin(angle_rad)
    return np.array([(cos, -sin), (sin, cos)])


def _cut(photo: UInt8[np.ndarray, "H W 3"], region: Region, side: int) -> Float32[np.ndarray, "3 side side"]:
    """Cut the region as an upright square, in [0,1]; black beyond the photo."""
    turn = _rotation(region.angle_rad)
    # Four pixels make one: what is much larger is averaged first.
    factor = max(1, int(region.side / side))
    left = top = 0
    if factor > 1:
        reach = region.side * np.abs(turn[0]).sum() / 2 + 2
        low, high = np.floor(region.center - reach).astype(int), np.ceil(region.center + reach).astype(int)
        (left, top), (right, bottom) = low.clip(0).tolist(), np.minimum(high, photo.shape[1::-1]).clip(0).tolist()
        around = Image.fromarray(photo[top : max(bottom, top + 1), left : max(right, left + 1)])
        photo = np.asarray(around.reduce(factor))
    step = region.side / side / factor
    origin = (region.center - (left, top)) / factor - step * turn @ (side / 2, side / 2)
    crop = np.empty((3, side, side), np.float32)
    _look_up(photo, origin, step * turn, crop)
    return crop


@compiled(fastmath={"contract"})
def _look_up(photo: Any, origin: Any, turn: Any, crop: Any) -> None:
    """Fill crop (3,S,S) with the photo's colors around origin + turn @ (x, y), where pixels' edges are integers."""
    zero, half, one, scale = np.float32(0), np.float32(0.5), np.float32(1), np.float32(1 / 255)
    right_most, bottom_most = photo.shape[1] - 1, photo.shape[0] - 1
    last_x, last_y = np.float32(right_most), np.float32(bottom_most)
    step_x, step_y = np.float32(turn[0, 0]), np.float32(turn[1, 0])
    for row in range(crop.shape[1]):
        # Of the first column; the middle of a pixel lies half a pixel from its edge.
        first_x = np.float32(origin[0] + turn[0, 0] * 0.5 + turn[0, 1] * (row + 0.5) - 0.5)
        first_y = np.float32(origin[1] + turn[1, 0] * 0.5 + turn[1, 1] * (row + 0.5) - 0.5)
        i = np.uint32(row)
        for column in range(crop.shape[2]):
            j = np.uint32(column)
            x, y = first_x + np.float32(column) * step_x, first_y + np.float32(column) * step_y
            if x < -half or y < -half or x >= last_x + half or y >= last_y + half:
                crop[0, i, j] = crop[1, i, j] = crop[2, i, j] = zero
                continue
            x, y = min(max(x, zero), last_x), min(max(y, zero), last_y)
            left, top = np.uint32(x), np.uint32(y)
            right, bottom = np.uint32(min(left + 1, right_most)), np.uint32(min(top + 1, bottom_most))
            u, v = x - np.float32(left), y - np.float32(top)
            w00, w01 = (one - v) * (one - u) * scale, (one - v) * u * scale
            w10, w11 = v * (one - u) * scale, v * u * scale
            crop[0, i, j] = (
                w00 * photo[top, left, 0] + w01 * photo[top, right, 0]
                + w10 * photo[bottom, left, 0] + w11 * photo[bottom, right, 0]
            )  # fmt: skip
            crop[1, i, j] = (
                w00 * photo[top, left, 1] + w01 * photo[top, right, 1]
                + w10 * photo[bottom, left, 1] + w11 * photo[bottom, right, 1]
            )  # fmt: skip
            crop[2, i, j] = (
                w00 * photo[top, left, 2] + w01 * photo[top, right, 2]
                + w10 * photo[bottom, left, 2] + w11 * photo[bottom, right, 2]
            )  # fmt: skip
