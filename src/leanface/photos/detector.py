"""Faces and their five landmarks in a photo, with MTCNN; the weights are packaged, so nothing is downloaded.

Source: Zhang et al., "Joint Face Detection and Alignment using Multi-task Cascaded Convolutional Networks",
2016 (arXiv:1604.02878). The weights are those of facenet-pytorch 2.6.0 (MIT; see assets/mtcnn.LICENSE). To
make the packaged file again:

    pip download facenet-pytorch==2.6.0 --no-deps
    unzip facenet_pytorch-2.6.0-py3-none-any.whl 'facenet_pytorch/data/*'
    python -m leanface.photos.detector facenet_pytorch/data src/leanface/assets/mtcnn.safetensors

Inside this module, boxes are in edge coordinates (a W x H photo spans [0, W] x [0, H]), where cropping and
resizing need no half-pixel terms; what it returns has pixel centres at integers, as everywhere else.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file  # pyright: ignore[reportUnknownVariableType]
from torch import Tensor, nn
from torch.nn import functional

from leanface import paths
from leanface.errors import ArtifactError, ConfigError, NoFaceError
from leanface.photos.load import require_rgb

WEIGHTS = paths.ASSETS / "mtcnn.safetensors"

PROPOSAL_PX, REFINE_PX, OUTPUT_PX = 12, 24, 48
"""Side of the square that each of the three networks sees."""

FEATURES_PX = 3
"""Side of the feature map that the dense layers of the second and third networks read."""

PROPOSAL_STRIDE = 2
PYRAMID_STEP = 0.709
"""Ratio of neighbouring pyramid levels: halves the area, as in the paper."""

LOWER = "Smaller ones are looked for with a lower min_face_px (`leanface reconstruct --min-face`)."

_BATCH = 512


@dataclass(frozen=True, eq=False)
class FaceDetection:
    """One face, in pixels of the photo: x right, y down, pixel centres at integer coordinates.

    Attributes:
        box: left, top, right, bottom; may reach beyond the photo.
        landmarks: image-left eye, image-right eye, nose tip, image-left and image-right mouth corner.
        score: the last network's confidence, in [0, 1].
    """

    box: Float[np.ndarray, "4"]
    landmarks: Float[np.ndarray, "5 2"]
    score: float


class FaceDetector:
    """Finds faces of any size above `min_face_px`. Deterministic; keeps no state between photos."""

    def __init__(
        self,
        min_face_px: int = 40,
        thresholds: tuple[float, float, float] = (0.6, 0.7, 0.7),
        weights: Path = WEIGHTS,
    ) -> None:
        """Load the packaged weights.

        Args:
            min_face_px: longer side of the smallest face to look for; the time grows with its inverse square.
            thresholds: the least confidence that each network in turn lets pass.
            weights: a file that `convert_facenet_weights` wrote.

        Raises:
            ConfigError: `min_face_px` or `thresholds` is out of range.
            ArtifactError: the weights are missing or damaged.
        """
        if min_face_px < PROPOSAL_PX:
            raise ConfigError(f"min_face_px must be at least {PROPOSAL_PX}, got {min_face_px}")
        if len(thresholds) != 3 or not all(0 < threshold < 1 for threshold in thresholds):
            raise ConfigError(f"thresholds must be three numbers between 0 and 1, got {thresholds}")
        self._min_face_px = min_face_px
        self._thresholds = thresholds
        self._networks = _load(weights)

    def detect(self, image: UInt8[np.ndarray, "H W 3"]) -> list[FaceDetection]:
        """Every face in an RGB photo, the largest first; [] where there is none.

        Raises:
            ValueError: the image is not uint8 (H, W, 3).
        """
        return self._detect(image, self._min_face_px)

    def _detect(self, image: UInt8[np.ndarray, "H W 3"], min_face_px: float) -> list[FaceDetection]:
        require_rgb(image)
        pixels = torch.tensor(np.ascontiguousarray(image.transpose(2, 0, 1))[None], dtype=torch.float32)
        pixels = (pixels - 127.5) / 128  # The range that MTCNN was trained on.
        with torch.inference_mode():
            boxes = self._propose(pixels, min_face_px)
            boxes = self._refine(pixels, boxes)
            boxes, _, _ = self._output(pixels, boxes)
            # A second look, centred on the face itself, makes the landmarks depend less on the photo's scale.
            boxes, landmarks, scores = self._output(pixels, boxes)
        faces = [
            FaceDetection(box - 0.5, points - 0.5, float(score))
            for box, points, score in zip(boxes, landmarks, scores, strict=True)
            if _side(box) >= min_face_px
        ]
        return sorted(faces, key=lambda face: (_area(face.box), face.score), reverse=True)

    def largest(self, image: UInt8[np.ndarray, "H W 3"]) -> FaceDetection:
        """The largest face in an RGB photo.

        Raises:
            NoFaceError: there is no face in it, or only smaller ones than `min_face_px`.
            ValueError: the image is not uint8 (H, W, 3).
        """
        faces = self.detect(image)
        if faces:
            return faces[0]
        photo = "a photo of {1}x{0} pixels".format(*image.shape)
        # What is smaller still takes long to look for, and is seldom a face.
        smaller = self._detect(image, max(self._min_face_px / 2, PROPOSAL_PX))
        if smaller:
            raise NoFaceError(
                f"the largest face in {photo} is about {_side(smaller[0].box):.0f} pixels tall, too small to be read; "
                f"expected at least {self._min_face_px}. Use a larger picture of it.",
                LOWER,
            )
        raise NoFaceError(
            f"no face found in {photo}. Use an upright photo in which both eyes and the mouth show and the face is at "
            f"least {self._min_face_px} pixels tall.",
            LOWER,
        )

    def _propose(self, pixels: Float[Tensor, "1 3 H W"], min_face_px: float) -> Float[np.ndarray, "N 4"]:
        """Slide the proposal network over a pyramid of the photo."""
        height, width = pixels.shape[2:]
        scale = PROPOSAL_PX / min_face_px
        found: list[Float[np.ndarray, "N 4"]] = []
        found_scores: list[Float[np.ndarray, " N"]] = []
        while min(height, width) * scale >= PROPOSAL_PX:
            level = (math.ceil(height * scale), math.ceil(width * scale))
            score_map, offset_map = self._networks["proposal"](_resize(pixels, level))
            score_map = score_map.softmax(1)[0, 1]
            rows, columns = torch.nonzero(score_map > self._thresholds[0], as_tuple=True)
            scores = score_map[rows, columns].numpy()
            corner = PROPOSAL_STRIDE * torch.stack([columns, rows], dim=1).numpy()
            photo_from_level = np.array([width / level[1], height / level[0]] * 2)
            boxes = np.concatenate([corner, corner + PROPOSAL_PX], axis=1) * photo_from_level
            boxes = _shift(boxes, offset_map[0, :, rows, columns].T.numpy())
            keep = _suppress(boxes, scores, 0.5)
            found.append(boxes[keep])
            found_scores.append(scores[keep])
            scale *= PYRAMID_STEP
        if not found:
            return np.empty((0, 4))
        boxes = np.concatenate(found)
        return boxes[_suppress(boxes, np.concatenate(found_scores), 0.7)]

    def _refine(self, pixels: Float[Tensor, "1 3 H W"], boxes: Float[np.ndarray, "N 4"]) -> Float[np.ndarray, "M 4"]:
        """Throw most proposals away and move the others."""
        squares = _squares(boxes)
        logits, offsets = self._run("refine", _crops(pixels, squares, REFINE_PX))
        scores = logits.softmax(1)[:, 1].numpy()
        passed = scores > self._thresholds[1]
        boxes, scores = _shift(squares[passed], offsets.numpy()[passed]), scores[passed]
        return boxes[_suppress(boxes, scores, 0.7)]

    def _output(
        self, pixels: Float[Tensor, "1 3 H W"], boxes: Float[np.ndarray, "N 4"]
    ) -> tuple[Float[np.ndarray, "M 4"], Float[np.ndarray, "M 5 2"], Float[np.ndarray, " M"]]:
        """Final boxes, landmarks and scores."""
        squares = _squares(boxes)
        crops = _crops(pixels, squares, OUTPUT_PX)
        logits, offsets, points = self._run("output", crops)
        # The network's landmarks lean to the right by a fraction of its pixel; the mirror image cancels it.
        points = (points + _unmirror(self._run("output", crops.flip(3))[2])) / 2
        scores = logits.softmax(1)[:, 1].numpy()
        passed = scores > self._thresholds[2]
        squares, scores = squares[passed], scores[passed]
        boxes = _shift(squares, offsets.numpy()[passed])
        # The network gives five x and then five y, as fractions of its square.
        relative = points.numpy()[passed].reshape(-1, 2, 5).transpose(0, 2, 1).astype(np.float64)
        landmarks = squares[:, None, :2] + relative * (squares[:, None, 2:] - squares[:, None, :2])
        # Against its union with the whole face a part of it overlaps little; against its own area, fully.
        keep = _suppress(boxes, scores, 0.7, relative_to_smaller=True)
        return boxes[keep], landmarks[keep], scores[keep]

    def _run(self, name: str, crops: Float[Tensor, "N 3 side side"]) -> list[Tensor]:
        """One network's outputs for every crop, in batches that bound the memory."""
        starts = range(0, max(1, len(crops)), _BATCH)  # one batch even of nothing: its outputs have the shapes
        batches = [self._networks[name](crops[start : start + _BATCH]) for start in starts]
        return [torch.cat(parts) for parts in zip(*batches, strict=True)]


def convert_facenet_weights(source: Path, target: Path) -> None:
    """Turn facenet-pytorch's pnet.pt, rnet.pt and onet.pt into this module's one weights file."""
    tensors: dict[str, Tensor] = {}
    for name, network in _build().items():
        # Both list the same layers in the same order, under other names.
        theirs = torch.load(source / f"{name[0]}net.pt", weights_only=True)
        ours = dict(zip(network.state_dict(), theirs.values(), strict=True))
        for key, weight in ours.items():
            if weight.ndim == 2 and key.startswith("trunk"):
                # There, features were flattened as (width, height, channel); nn.Flatten reverses the order.
                ours[key] = weight.unflatten(1, (FEATURES_PX, FEATURES_PX, -1)).permute(0, 3, 2, 1).flatten(1)
        network.load_state_dict(ours)
        tensors |= {f"{name}.{key}": weight.contiguous() for key, weight in ours.items()}
    save_file(tensors, target)


class _Network(nn.Module):
    """A trunk of convolutions with PReLU and pooling, and heads: two logits, box offsets, landmarks."""

    def __init__(self, layers: Sequence[tuple[int, int, int | None]], hidden: int | None, heads: Sequence[int]) -> None:
        """Build the layers.

        Args:
            layers: (channels, kernel size, pooling window or None) of each convolution.
            hidden: width of the dense layer over the features that remain; None: fully convolutional.
            heads: outputs of each head.
        """
        super().__init__()
        trunk: list[nn.Module] = []
        channels = 3
        for outputs, kernel, window in layers:
            trunk += [nn.Conv2d(channels, outputs, kernel), nn.PReLU(outputs)]
            if window is not None:
                trunk.append(nn.MaxPool2d(window, 2, ceil_mode=True))
            channels = outputs
        if hidden is not None:
            trunk += [nn.Flatten(), nn.Linear(channels * FEATURES_PX**2, hidden), nn.PReLU(hidden)]
        self.trunk = nn.Sequential(*trunk)
        self.heads = nn.ModuleList(
            nn.Conv2d(channels, size, 1) if hidden is None else nn.Linear(hidden, size) for size in heads
        )

    def forward(self, crops: Tensor) -> list[Tensor]:
        features = self.trunk(crops)
        return [head(features) for head in self.heads]


def _build() -> dict[str, _Network]:
    return {
        "proposal": _Network([(10, 3, 2), (16, 3, None), (32, 3, None)], None, (2, 4)),
        "refine": _Network([(28, 3, 3), (48, 3, 3), (64, 2, None)], 128, (2, 4)),
        "output": _Network([(32, 3, 3), (64, 3, 3), (64, 3, 2), (128, 2, None)], 256, (2, 4, 10)),
    }


def _load(path: Path) -> nn.ModuleDict:
    networks = nn.ModuleDict(_build())
    try:
        networks.load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise ArtifactError(
            f"the face detector's weights {path} are missing or damaged ({error}). Restore the file with "
            "`git checkout -- src/leanface/assets/mtcnn.safetensors` or reinstall leanface."
        ) from error
    return networks.eval().requires_grad_(False)


def _resize(pixels: Float[Tensor, "N C H W"], size: tuple[int, int]) -> Float[Tensor, "N C h w"]:
    return functional.interpolate(pixels, size, mode="bilinear", antialias=True, align_corners=False)


def _crops(
    pixels: Float[Tensor, "1 3 H W"], squares: Int[np.ndarray, "N 4"], side: int
) -> Float[Tensor, "N 3 side side"]:
    """The squares, resized; black where they leave the photo (clipping them would squash the face)."""
    height, width = pixels.shape[2:]
    crops = [pixels.new_empty((0, 3, side, side))]
    for left, top, right, bottom in squares.tolist():
        inside = pixels[:, :, max(top, 0) : min(bottom, height), max(left, 0) : min(right, width)]
        margins = (max(-left, 0), max(right - width, 0), max(-top, 0), max(bottom - height, 0))
        crops.append(_resize(functional.pad(inside, margins, value=-1.0), (side, side)))
    return torch.cat(crops)


def _unmirror(points: Float[Tensor, "N 10"]) -> Float[Tensor, "N 10"]:
    """Landmarks found in the mirror image, as landmarks of the image."""
    swapped = points.view(-1, 2, 5)[:, :, [1, 0, 2, 4, 3]]
    return torch.cat([1 - swapped[:, 0], swapped[:, 1]], dim=1)


def _squares(boxes: Float[np.ndarray, "N 4"]) -> Int[np.ndarray, "N 4"]:
    """Each box grown about its centre to a square of whole pixels."""
    side = np.rint((boxes[:, 2:] - boxes[:, :2]).max(axis=1, keepdims=True)).clip(min=1)
    corner = np.rint((boxes[:, :2] + boxes[:, 2:] - side) / 2)
    return np.concatenate([corner, corner + side], axis=1).astype(np.int64)


def _shift(boxes: Float[np.ndarray, "N 4"], offsets: Float[np.ndarray, "N 4"]) -> Float[np.ndarray, "N 4"]:
    """Move each edge by an offset relative to the box's size."""
    size = boxes[:, 2:] - boxes[:, :2]
    return boxes + offsets * np.concatenate([size, size], axis=1)


def _side(box: Float[np.ndarray, "4"]) -> float:
    return float((box[2:] - box[:2]).max())


def _area(boxes: Float[np.ndarray, "*N 4"]) -> Float[np.ndarray, "*N"]:
    return np.prod((boxes[..., 2:] - boxes[..., :2]).clip(min=0), axis=-1)


def _suppress(
    boxes: Float[np.ndarray, "N 4"],
    scores: Float[np.ndarray, " N"],
    limit: float,
    relative_to_smaller: bool = False,
) -> Int[np.ndarray, " M"]:
    """Greedy non-maximum suppression: indices of the boxes to keep, the best first.

    A box goes when its overlap with a better one exceeds `limit` of their union, or of the smaller of both.
    """
    order = np.argsort(-scores, kind="stable")
    areas = _area(boxes)
    kept: list[int] = []
    while order.size:
        best, rest = order[0], order[1:]
        kept.append(int(best))
        corner = np.maximum(boxes[best, :2], boxes[rest, :2])
        overlap = _area(np.concatenate([corner, np.minimum(boxes[best, 2:], boxes[rest, 2:])], axis=1))
        whole = np.minimum(areas[best], areas[rest]) if relative_to_smaller else areas[best] + areas[rest] - overlap
        order = rest[overlap <= limit * whole]
    return np.array(kept, dtype=np.int64)
