"""MTCNN: a cascade of three small networks that finds faces of any size, with five landmarks each.

Slow where faces may be small, and thorough. The networks run in ONNX Runtime, each in the caller's thread.
`python -m tools.face_finding.convert_mtcnn` makes their files.

Boxes here are in edge coordinates (a W x H photo spans [0, W] x [0, H]), where cropping and resizing need no half-pixel
terms.

Source: Zhang et al., "Joint Face Detection and Alignment using Multi-task Cascaded Convolutional Networks", 2016
(arXiv:1604.02878).
"""

import functools
import math
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, UInt8
from PIL import Image

from leanface.face.compiled import compiled
from leanface.photos.face_network import FACE_NETWORKS, FaceNetwork

PROPOSAL_PX, REFINE_PX, OUTPUT_PX = 12, 24, 48
"""Side of the square that each of the three networks sees."""

PROPOSAL_STRIDE = 2
PYRAMID_STEP = 0.709
"""Ratio of neighboring pyramid levels: halves the area, as in the paper."""

FINER = 1.5
"""How much finer than the pyramid's finest level the photo at least is when it is resized with care: before that, whole
pixels are averaged."""

TILE_PX = 512
"""Side of the pieces in which the first network sees a photo; bounds its memory. A multiple of its stride."""

BATCH = 256
"""Squares that the other networks see at once."""

MIDDLE, HALF_RANGE = 127.5, 128.0
"""Pixels are shifted and scaled by these, as in MTCNN's training."""


COVERED = 0.5
"""Share of the smaller of two boxes that the other one covers, from which they count as one face."""

NOTHING: Float[np.ndarray, "0 4"] = np.empty((0, 4))


class Candidates(NamedTuple):
    """Faces in edge coordinates, the most certain first."""

    boxes: Float[np.ndarray, "N 4"]
    landmarks: Float[np.ndarray, "N 5 2"]
    scores: Float[np.ndarray, " N"]


class Mtcnn:
    """The three networks. Any threads may share them."""

    def __init__(self, thresholds: tuple[float, float, float] = (0.6, 0.7, 0.7)) -> None:
        """Load the packaged networks.

        Args:
            thresholds: the least confidence that each network in turn lets pass.

        Raises:
            ArtifactError: a file is missing or damaged.
        """
        self._thresholds = thresholds
        self._proposal, self._refine, self._output = (
            FaceNetwork(FACE_NETWORKS / f"mtcnn_{name}.onnx") for name in ("proposal", "refine", "output")
        )

    def find(
        self, photo: UInt8[np.ndarray, "H W 3"], min_face_px: float, known: Float[np.ndarray, "K 4"] = NOTHING
    ) -> Candidates:
        """Find every face in an RGB photo whose longer side is at least about `min_face_px`.

        Args:
            known: boxes of faces that need not be found again, nor anything within them.
        """
        boxes = self._propose(photo, min_face_px, known)
        boxes = self._refined(photo, boxes)
        if not len(boxes):
            return Candidates(NOTHING, np.empty((0, 5, 2)), np.empty(0))
        boxes = self.locate(photo, boxes).boxes
        # A second look, centered on the face itself, makes the landmarks depend less on the photo's scale.
        return self.locate(photo, boxes)

    def locate(self, photo: UInt8[np.ndarray, "H W 3"], boxes: Float[np.ndarray, "N 4"]) -> Candidates:
        """Look at each box with the last network: faces that it accepts, with landmarks."""
        squares = _squares(boxes)
        scores, offsets, points = self._look(self._output, photo, squares, OUTPUT_PX, mirrored=True)
        passed = scores > self._thresholds[2]
        squares, scores = squares[passed], scores[passed]
        boxes = _shift(squares, offsets[passed])
        # The network gives five x and then five y, as fractions of its square.
        relative = points[passed].reshape(-1, 2, 5).transpose(0, 2, 1).astype(np.float64)
        landmarks = squares[:, None, :2] + relative * (squares[:, None, 2:] - squares[:, None, :2])
        # Against its union with the whole face a part of it overlaps little; against its own area, fully.
        keep = suppress(boxes, scores, 0.7, relative_to_smaller=True)
        return Candidates(boxes[keep], landmarks[keep], scores[keep])

    def _propose(
        self, photo: UInt8[np.ndarray, "H W 3"], min_face_px: float, known: Float[np.ndarray, "K 4"]
    ) -> Float[np.ndarray, "N 4"]:
        """Slide the first network over a pyramid of the photo."""
        height, width = photo.shape[:2]
        found: list[Float[np.ndarray, "N 4"]] = []
        found_scores: list[Float[np.ndarray, " N"]] = []
        for level in _pyramid(photo, PROPOSAL_PX / min_face_px):
            photo_from_level = np.array([width / level.shape[2], height / level.shape[1]] * 2)
            boxes, scores = self._slide(level)
            boxes *= photo_from_level
            if len(known):
                new = ~covered(boxes, known)
                boxes, scores = boxes[new], scores[new]
            keep = suppress(boxes, scores, 0.5)
            found.append(boxes[keep])
            found_scores.append(scores[keep])
        if not found:
            return np.empty((0, 4))
        boxes = np.concatenate(found)
        return boxes[suppress(boxes, np.concatenate(found_scores), 0.7)]

    def _slide(self, level: Float32[np.ndarray, "3 H W"]) -> tuple[Float[np.ndarray, "N 4"], Float[np.ndarray, " N"]]:
        """Return boxes and scores of one pyramid level, piece by piece."""
        height, width = level.shape[1:]
        overlap = PROPOSAL_PX - PROPOSAL_STRIDE
        boxes: list[Float[np.ndarray, "N 4"]] = []
        found: list[Float[np.ndarray, " N"]] = []
        for top in range(0, height - overlap, TILE_PX):
            for left in range(0, width - overlap, TILE_PX):
                tile = level[None, :, top : top + TILE_PX + overlap, left : left + TILE_PX + overlap]
                scores, offsets = self._proposal(np.ascontiguousarray(tile))
                rows, columns = np.nonzero(scores[0, 1] > self._thresholds[0])
                corner = PROPOSAL_STRIDE * np.stack([columns, rows], axis=1) + (left, top)
                squares = np.concatenate([corner, corner + PROPOSAL_PX], axis=1)
                boxes.append(_shift(squares, offsets[0, :, rows, columns]))
                found.append(scores[0, 1, rows, columns])
        return np.concatenate(boxes), np.concatenate(found)

    def _refined(self, photo: UInt8[np.ndarray, "H W 3"], boxes: Float[np.ndarray, "N 4"]) -> Float[np.ndarray, "M 4"]:
        """Throw most proposals away and move the others."""
        squares = _squares(boxes)
        scores, offsets = self._look(self._refine, photo, squares, REFINE_PX)
        passed = scores > self._thresholds[1]
        boxes, scores = _shift(squares[passed], offsets[passed]), scores[passed]
        return boxes[suppress(boxes, scores, 0.7)]

    def _look(
        self,
        network: FaceNetwork,
        photo: UInt8[np.ndarray, "H W 3"],
        squares: Int[np.ndarray, "N 4"],
        side: int,
        *,
        mirrored: bool = False,
    ) -> list[np.ndarray]:
        """Return scores and a network's other outputs for every square, in batches that bound the memory.

        Args:
            mirrored: average the landmarks with the mirror image's: the network's lean to the right by a fraction of
                its pixel, and the mirror image cancels that.
        """
        batches: list[list[np.ndarray]] = []
        for start in range(0, max(1, len(squares)), BATCH):  # one batch even of nothing: its outputs have the shapes
            crops = _crops(photo, squares[start : start + BATCH], side)
            outputs = network(crops)
            if mirrored:
                points = _unmirror(network(np.ascontiguousarray(crops[..., ::-1]))[2])
                outputs[2] = (outputs[2] + points) / 2
            batches.append([outputs[0][:, 1], *outputs[1:]])
        return [np.concatenate(parts) for parts in zip(*batches, strict=True)]


def suppress(
    boxes: Float[np.ndarray, "N 4"],
    scores: Float[np.ndarray, " N"],
    limit: float,
    relative_to_smaller: bool = False,
) -> Int[np.ndarray, " M"]:
    """Suppress overlaps (greedy non-maximum suppression); return indices of the boxes to keep, the best first.

    A box goes when its overlap with a better one exceeds `limit` of their union, or of the smaller of both.
    """
    order = np.argsort(-scores, kind="stable")
    kept = np.ones(len(order), np.bool_)
    _suppress(np.asarray(boxes, np.float64)[order], limit, relative_to_smaller, kept)
    return order[kept]


@compiled()
def _suppress(boxes: Any, limit: float, relative_to_smaller: bool, kept: Any) -> None:
    """Clear in kept (N,) what overlaps too much with an earlier one of boxes (N,4) that is kept."""
    areas = np.empty(len(boxes))
    for index in range(len(boxes)):
        areas[index] = max(boxes[index, 2] - boxes[index, 0], 0.0) * max(boxes[index, 3] - boxes[index, 1], 0.0)
        for better in range(index):
            width = min(boxes[index, 2], boxes[better, 2]) - max(boxes[index, 0], boxes[better, 0])
            height = min(boxes[index, 3], boxes[better, 3]) - max(boxes[index, 1], boxes[better, 1])
            overlap = max(width, 0.0) * max(height, 0.0)
            smaller, union = min(areas[index], areas[better]), areas[index] + areas[better] - overlap
            if kept[better] and overlap > limit * (smaller if relative_to_smaller else union):
                kept[index] = False
                break


def covered(boxes: Float[np.ndarray, "N 4"], known: Float[np.ndarray, "K 4"]) -> Bool[np.ndarray, " N"]:
    """Tell which boxes lie mostly within a known one, or the other way around."""
    corner = np.maximum(boxes[:, None, :2], known[:, :2])
    both = _area(np.concatenate([corner, np.minimum(boxes[:, None, 2:], known[:, 2:])], axis=-1))
    smaller = np.minimum(_area(boxes)[:, None], _area(known))
    return np.any(both > COVERED * smaller, axis=1)


def _pyramid(photo: UInt8[np.ndarray, "H W 3"], scale: float) -> list[Float32[np.ndarray, "3 h w"]]:
    """Yield the photo at `scale` and smaller, down to the first network's window, as the networks take pixels."""
    height, width = photo.shape[:2]
    images = [Image.fromarray(photo)]
    if (factor := int(1 / scale / FINER)) > 1:
        images = [images[0].reduce(factor)]
    levels: list[Float32[np.ndarray, "3 h w"]] = []
    while min(height, width) * scale >= PROPOSAL_PX:
        # Of a level twice as fine: of the photo itself each would take as long as the first.
        finer = images[max(0, len(images) - 2)]
        size = math.ceil(width * scale), math.ceil(height * scale)
        images.append(finer.resize(size, Image.Resampling.BILINEAR))
        level = np.asarray(images[-1]).transpose(2, 0, 1).astype(np.float32, order="C")
        level -= MIDDLE
        level *= 1 / HALF_RANGE
        levels.append(level)
        scale *= PYRAMID_STEP
    return levels


def _crops(
    photo: UInt8[np.ndarray, "H W 3"], squares: Int[np.ndarray, "N 4"], side: int
) -> Float32[np.ndarray, "N 3 side side"]:
    """Cut the squares, resized; -1 where they leave the photo (clipping them would squash the face)."""
    height, width = photo.shape[:2]
    crops = np.empty((len(squares), 3, side, side), np.float32)
    for crop, (left, top, right, bottom) in zip(crops, squares.tolist(), strict=True):
        filters = _triangle_filter(right - left, side)
        x, y = slice(max(left, 0), min(right, width)), slice(max(top, 0), min(bottom, height))
        inside = photo[y, x].transpose(2, 0, 1).astype(np.float32)
        # What is missing counts as zero: -1 after all values are shifted.
        inside += HALF_RANGE - MIDDLE
        rows, columns = filters[:, y.start - top : y.stop - top], filters[:, x.start - left : x.stop - left]
        np.matmul(rows @ inside, columns.T, out=crop)
    crops -= HALF_RANGE
    crops /= HALF_RANGE
    return crops


@functools.lru_cache(maxsize=1024)
def _triangle_filter(source: int, target: int) -> Float32[np.ndarray, "target source"]:
    """Compute weights of bilinear resizing with antialiasing, as Pillow and torch do it."""
    scale = source / target
    centers = (np.arange(target) + 0.5) * scale
    distances = np.abs(np.arange(source) + 0.5 - centers[:, None])
    weights = np.maximum(0, 1 - distances / max(scale, 1))
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32)


def _unmirror(points: Float[np.ndarray, "N 10"]) -> Float[np.ndarray, "N 10"]:
    """Convert landmarks found in the mirror image to landmarks of the image."""
    swapped = points.reshape(-1, 2, 5)[:, :, [1, 0, 2, 4, 3]]
    return np.concatenate([1 - swapped[:, 0], swapped[:, 1]], axis=1)


def _squares(boxes: Float[np.ndarray, "N 4"]) -> Int[np.ndarray, "N 4"]:
    """Grow each box about its center to a square of whole pixels."""
    side = np.rint((boxes[:, 2:] - boxes[:, :2]).max(axis=1, keepdims=True, initial=0)).clip(min=1)
    corner = np.rint((boxes[:, :2] + boxes[:, 2:] - side) / 2)
    return np.concatenate([corner, corner + side], axis=1).astype(np.int64)


def _shift(boxes: Float[np.ndarray, "N 4"], offsets: Float[np.ndarray, "N 4"]) -> Float[np.ndarray, "N 4"]:
    """Move each edge by an offset relative to the box's size."""
    size = boxes[:, 2:] - boxes[:, :2]
    return boxes + offsets * np.concatenate([size, size], axis=1)


def _area(boxes: Float[np.ndarray, "*N 4"]) -> Float[np.ndarray, "*N"]:
    return np.prod((boxes[..., 2:] - boxes[..., :2]).clip(min=0), axis=-1)
