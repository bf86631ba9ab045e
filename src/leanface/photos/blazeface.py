"""BlazeFace: finds the faces that fill a good part of a photo, in about a millisecond, however the head is turned.

It sees the whole photo at 128 pixels, so that it misses faces under a sixth of the photo's longer side.

Source: Bazarevsky et al., "BlazeFace: Sub-millisecond Neural Face Detection on Mobile GPUs", 2019 (arXiv:1907.05047).
The network is MediaPipe's face_detection_short_range, converted by tools/face_finding/convert_tflite.py.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image

from leanface.photos.face_network import FACE_NETWORKS, FaceNetwork

STRIDES = ((8, 2), (16, 6))
"""Pixels between anchors, and anchors at each place."""

SCORE_MIN = 0.5
OVERLAP = 0.3
"""Intersection over union from which two boxes show the same face; their mean is taken, weighted by score."""

KEYPOINTS = 6
"""Image-left and image-right eye, nose tip, middle of the mouth, and in front of either ear."""


class BlazeFaces(NamedTuple):
    """Faces, the most certain first. In edge coordinates: a W x H photo spans [0, W] x [0, H]."""

    boxes: Float[np.ndarray, "N 4"]
    keypoints: Float[np.ndarray, "N 6 2"]
    scores: Float[np.ndarray, " N"]


class BlazeFace:
    """The network. Any threads may share it."""

    def __init__(self) -> None:
        """Load the packaged network.

        Raises:
            ArtifactError: the file is missing or damaged.
        """
        self._network = FaceNetwork(FACE_NETWORKS / "short_range.onnx")
        self._anchors = _anchors(self._network.side)

    def find(self, photo: UInt8[np.ndarray, "H W 3"], quarter_turns: tuple[int, ...] = (0,)) -> list[BlazeFaces]:
        """Find faces in an RGB photo, one answer for each of some ways to turn it first.

        Args:
            quarter_turns: counterclockwise. The answers are in pixels of the photo as it is; eyes and ears keep the
                sides that they have in the turned photo.
        """
        side, (height, width) = self._network.side, photo.shape[:2]
        scale = side / max(height, width)
        # Its middle lies in the middle of the square.
        size = np.array([max(1, round(width * scale)), max(1, round(height * scale))])
        left, top = (side - size) // 2
        small = Image.fromarray(photo).resize(tuple(size.tolist()), Image.Resampling.BILINEAR, reducing_gap=2.0)
        square = np.full((side, side, 3), -1, np.float32)
        square[top : top + size[1], left : left + size[0]] = np.asarray(small, np.float32) / 127.5 - 1
        turned = np.stack([np.rot90(square, turns) for turns in quarter_turns])
        answers = self._network(np.ascontiguousarray(turned.transpose(0, 3, 1, 2)))
        photo_from_square = np.array([width, height]) / size
        found: list[BlazeFaces] = []
        for turns, boxes, logits in zip(quarter_turns, *answers, strict=True):
            faces = self._decode(boxes, logits[:, 0])
            points = np.concatenate([faces.boxes.reshape(-1, 2, 2), faces.keypoints], axis=1)
            points = (_turned_back(points, turns, side) - (left, top)) * photo_from_square
            corners = np.concatenate([points[:, :2].min(1), points[:, :2].max(1)], axis=1)
            found.append(BlazeFaces(corners, points[:, 2:], faces.scores))
        return found

    def _decode(self, answers: Float[np.ndarray, "anchors 16"], logits: Float[np.ndarray, " anchors"]) -> BlazeFaces:
        """Decode boxes and keypoints of what the network is sure enough of, in pixels of its square."""
        scores = 1 / (1 + np.exp(-logits.astype(np.float64).clip(-80, 80)))
        sure = scores > SCORE_MIN
        scores = scores[sure]
        pairs = answers[sure].astype(np.float64).reshape(-1, 2 + KEYPOINTS, 2)
        center, half_size = pairs[:, 0] + self._anchors[sure], pairs[:, 1] / 2
        boxes = np.concatenate([center - half_size, center + half_size], axis=1)
        keypoints = pairs[:, 2:] + self._anchors[sure][:, None]
        groups = list(_same_faces(boxes, scores))
        shares = [scores[group] / scores[group].sum() for group in groups]
        return BlazeFaces(
            np.array([share @ boxes[group] for group, share in zip(groups, shares, strict=True)]).reshape(-1, 4),
            np.array(
                [np.tensordot(share, keypoints[group], 1) for group, share in zip(groups, shares, strict=True)]
            ).reshape(-1, KEYPOINTS, 2),
            np.array([scores[group].max() for group in groups]),
        )


def _anchors(side: int) -> Float[np.ndarray, "anchors 2"]:
    """List the places that the network's answers are relative to, in pixels of its square."""
    anchors: list[np.ndarray] = []
    for stride, count in STRIDES:
        line = (np.arange(side // stride) + 0.5) * stride
        grid = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)
        anchors.append(grid.repeat(count, axis=0))
    return np.concatenate(anchors)


def _same_faces(boxes: Float[np.ndarray, "N 4"], scores: Float[np.ndarray, " N"]) -> list[Bool[np.ndarray, " N"]]:
    """Group boxes that show the same face, the most certain face first."""
    areas = (boxes[:, 2:] - boxes[:, :2]).clip(0).prod(1)
    left = np.ones(len(boxes), np.bool_)
    groups: list[Bool[np.ndarray, " N"]] = []
    while left.any():
        best = int(np.argmax(np.where(left, scores, -1)))
        sides = np.minimum(boxes[best, 2:], boxes[:, 2:]) - np.maximum(boxes[best, :2], boxes[:, :2])
        both = sides.clip(0).prod(1)
        group = left & (both > OVERLAP * (areas[best] + areas - both))
        group[best] = True
        groups.append(group)
        left &= ~group
    return groups


def _turned_back(points: Float[np.ndarray, "N points 2"], turns: int, side: int) -> Float[np.ndarray, "N points 2"]:
    """Move points of a square that was turned counterclockwise to where they were before."""
    for _ in range(turns % 4):
        points = np.stack([side - points[..., 1], points[..., 0]], axis=-1)
    return points
